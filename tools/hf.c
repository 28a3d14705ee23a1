/* hf.c: weights between checkpoints and folders of safetensors under Hugging Face's names.

   In:  DIR with config.json and model.safetensors, or several files and model.safetensors.index.json; or a checkpoint. Out: the other.

   A row of TENSORS is a weight of models/transformer.sn, its name there and in either family. A projection is stored as [out, in] there and
   as [in, out] here, so it is transposed; the numbers stay what they are (f16 and bf16 are read exactly). Every tensor of the source must have
   its row and every row its tensor: nothing is left out in silence. */
#include "tools/hf.h"

#include "tools/text.h"
#include "tools/verify.h"

enum { NONE, VOCAB, WIDTH, QUERIES, KEYS, HIDDEN, HEAD_DIM, EXPERTS };
enum { ALWAYS, QK_NORM, UNTIED, DENSE, MIXTURE };

/* axes: of the tensor in Hugging Face's order; one that is a projection has the outputs first. */
typedef struct Row { const char *ours, *llama, *llada; uint8_t axis[2], when; bool turned; } Row;
static const Row TENSORS[] = {
    { "embed", "model.embed_tokens.weight", "model.transformer.wte.weight", { VOCAB, WIDTH } },
    { "h.%d.n1.gain", "model.layers.%d.input_layernorm.weight", "model.transformer.blocks.%d.attn_norm.weight", { WIDTH } },
    { "h.%d.attn.wq", "model.layers.%d.self_attn.q_proj.weight", "model.transformer.blocks.%d.q_proj.weight", { QUERIES, WIDTH }, ALWAYS, true },
    { "h.%d.attn.wk", "model.layers.%d.self_attn.k_proj.weight", "model.transformer.blocks.%d.k_proj.weight", { KEYS, WIDTH }, ALWAYS, true },
    { "h.%d.attn.wv", "model.layers.%d.self_attn.v_proj.weight", "model.transformer.blocks.%d.v_proj.weight", { KEYS, WIDTH }, ALWAYS, true },
    { "h.%d.attn.wo", "model.layers.%d.self_attn.o_proj.weight", "model.transformer.blocks.%d.attn_out.weight", { WIDTH, QUERIES }, ALWAYS, true },
    { "h.%d.attn.qn.gain", "model.layers.%d.self_attn.q_norm.weight", NULL, { HEAD_DIM }, QK_NORM },
    { "h.%d.attn.kn.gain", "model.layers.%d.self_attn.k_norm.weight", NULL, { HEAD_DIM }, QK_NORM },
    { "h.%d.n2.gain", "model.layers.%d.post_attention_layernorm.weight", "model.transformer.blocks.%d.ff_norm.weight", { WIDTH } },
    { "h.%d.mlp.gate", "model.layers.%d.mlp.gate_proj.weight", "model.transformer.blocks.%d.ff_proj.weight", { HIDDEN, WIDTH }, DENSE, true },
    { "h.%d.mlp.up", "model.layers.%d.mlp.up_proj.weight", "model.transformer.blocks.%d.up_proj.weight", { HIDDEN, WIDTH }, DENSE, true },
    { "h.%d.mlp.down", "model.layers.%d.mlp.down_proj.weight", "model.transformer.blocks.%d.ff_out.weight", { WIDTH, HIDDEN }, DENSE, true },
    { "h.%d.moe.router", "model.layers.%d.mlp.gate.weight", NULL, { EXPERTS, WIDTH }, MIXTURE, true },
    { "h.%d.moe.gate", "model.layers.%d.mlp.experts.%e.gate_proj.weight", NULL, { HIDDEN, WIDTH }, MIXTURE, true },
    { "h.%d.moe.up", "model.layers.%d.mlp.experts.%e.up_proj.weight", NULL, { HIDDEN, WIDTH }, MIXTURE, true },
    { "h.%d.moe.down", "model.layers.%d.mlp.experts.%e.down_proj.weight", NULL, { WIDTH, HIDDEN }, MIXTURE, true },
    { "out.gain", "model.norm.weight", "model.transformer.ln_f.weight", { WIDTH } },
    { "head", "lm_head.weight", "model.transformer.ff_out.weight", { VOCAB, WIDTH }, UNTIED, true },
};
enum { NROWS = sizeof TENSORS / sizeof *TENSORS };

/* A tensor of Hugging Face's on its way: both names and its shape there. Of an expert's, part `expert` of `parts` along the first axis of ours;
   the parts stand one after the other. */
typedef struct Weight { char *ours, *hf; int rank; int64_t dim[2]; bool turned; int expert, parts; } Weight;      /* parts 0: it is all of ours */
typedef struct Weights { Weight *v; int n, room; } Weights;

static int64_t axis_length(const HfConfig *c, int axis) {
    switch (axis) {
    case VOCAB: return c->vocab;
    case WIDTH: return c->width;
    case QUERIES: return c->heads * c->head_dim;
    case KEYS: return c->kv_heads * c->head_dim;
    case HIDDEN: return c->hidden;
    case EXPERTS: return c->experts;
    default: return c->head_dim;
    }
}

/* A name with a number in the place of the mark, %d or %e. */
static char *named(const char *pattern, const char *mark, int number) {
    const char *at = strstr(pattern, mark);
    return at ? text_fmt("%.*s%d%s", (int)(at - pattern), pattern, number, at + 2) : text_fmt("%s", pattern);
}

static void push_weight(Weights *w, Weight x) {
    if (w->n == w->room) {
        w->room = 2 * w->room + 64;
        w->v = realloc(w->v, sizeof *w->v * (size_t)w->room);
        if (!w->v) abort();
    }
    w->v[w->n++] = x;
}

static void add_weight(Weights *w, const HfConfig *c, const Row *r, int layer) {
    if ((r->when == QK_NORM && !c->qk_norm) || (r->when == UNTIED && c->tied) || (r->when == DENSE && c->experts) || (r->when == MIXTURE && !c->experts)) return;
    const char *pattern = c->kind == HF_LLADA ? r->llada : r->llama;
    int parts = strstr(pattern, "%e") ? (int)c->experts : 0;
    for (int e = 0; e < (parts ? parts : 1); e++) {
        char *hf = named(pattern, "%d", layer);
        Weight x = { named(r->ours, "%d", layer), named(hf, "%e", e), r->axis[1] ? 2 : 1,
                     { axis_length(c, r->axis[0]), r->axis[1] ? axis_length(c, r->axis[1]) : 1 }, r->turned, e, parts };
        free(hf);
        push_weight(w, x);
    }
}

/* All weights in the order of the layers: runs of rows with %d are repeated. */
static Weights list_weights(const HfConfig *c) {
    Weights w = {0};
    for (int i = 0, end; i < NROWS; i = end) {
        bool layers = strstr(TENSORS[i].ours, "%d") != NULL;
        for (end = i + 1; end < NROWS && layers && strstr(TENSORS[end].ours, "%d"); ) end++;
        for (int l = 0; l < (layers ? c->layers : 1); l++)
            for (int k = i; k < end; k++) add_weight(&w, c, &TENSORS[k], l);
    }
    return w;
}

/* A config.json may say anything; names are made only for as many tensors as there are. */
static int check_count(const char *path, const HfConfig *c, int64_t tensors) {
    if (c->layers * (c->experts ? c->experts : 1) <= tensors) return 0;
    return cmd_fail("%s: %lld layers%s are more than its %lld tensors", path, (long long)c->layers, c->experts ? " of experts" : "", (long long)tensors);
}

static void free_weights(Weights *w) {
    for (int i = 0; i < w->n; i++) free(w->v[i].ours), free(w->v[i].hf);
    free(w->v);
}

static int64_t elements(const Weight *w) { return w->dim[0] * w->dim[1]; }

/* from: [rows, columns] -> to: [columns, rows], by squares that stay in the cache. */
static void turn(const float *from, float *to, int64_t rows, int64_t columns) {
    enum { SIDE = 32 };
    for (int64_t r0 = 0; r0 < rows; r0 += SIDE)
        for (int64_t c0 = 0; c0 < columns; c0 += SIDE)
            for (int64_t r = r0; r < rows && r < r0 + SIDE; r++)
                for (int64_t k = c0; k < columns && k < c0 + SIDE; k++) to[k * rows + r] = from[r * columns + k];
}

/* Numbers of a file, not aligned, to f32; f32 to the dtype of a file. Both exact, or rounded to nearest even. */
enum { CHUNK = 4096 };
static void to_floats(const sn_tensor *t, int64_t n, float *out) {
    double v[CHUNK];
    float raw[CHUNK];
    size_t size = t->dtype == SN_F32 ? 4 : 2;
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t k = n - at < CHUNK ? n - at : CHUNK;
        memcpy(raw, (const char *)t->data + size * (size_t)at, size * (size_t)k);
        snV_unpack(t->dtype, raw, k, v);
        for (int64_t i = 0; i < k; i++) out[at + i] = (float)v[i];
    }
}

static void from_floats(Dtype dtype, const float *from, int64_t n, void *out) {
    double v[CHUNK];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t k = n - at < CHUNK ? n - at : CHUNK;
        for (int64_t i = 0; i < k; i++) v[i] = from[at + i];
        snV_pack(dtype, v, k, (char *)out + at * snG_dtype_size(dtype));
    }
}

/* -- A folder's files ------------------------------------------------------------------------------------------------------ */

typedef struct Folder { const char *dir; sn_file **file; char **name; int n; } Folder;

static void close_folder(Folder *f) {
    for (int i = 0; i < f->n; i++) sn_file_close(f->file[i]), free(f->name[i]);
    free(f->file);
    free(f->name);
}

static int open_file(Folder *f, const char *name) {
    char err[256], *path = text_fmt("%s/%s", f->dir, name);
    sn_file *file = sn_file_open(path, err);
    free(path);
    if (!file) return cmd_fail("%s", err);
    f->file = realloc(f->file, sizeof *f->file * (size_t)(f->n + 1));
    f->name = realloc(f->name, sizeof *f->name * (size_t)(f->n + 1));
    if (!f->file || !f->name) abort();
    f->name[f->n] = text_fmt("%s", name);
    f->file[f->n++] = file;
    return 0;
}

static bool is_open(const Folder *f, const char *name) {
    for (int i = 0; i < f->n; i++)
        if (!strcmp(f->name[i], name)) return true;
    return false;
}

/* The files that the index names, each once: names without a folder, so that no index reaches outside. */
static int open_indexed(Folder *f, const char *path) {
    json_t *o = json_file(path), *map = json_object_get(o, "weight_map"), *v;
    const char *key;
    int rc = !o ? EXIT_FAILED : json_is_object(map) && json_object_size(map) ? 0 : cmd_fail("%s: has no \"weight_map\"", path);
    json_object_foreach(map, key, v) {
        const char *name = json_string_value(v);
        if (rc) break;
        if (!name || !*name || strchr(name, '/') || *name == '.')
            rc = cmd_fail("%s: the file of '%.60s' is no name of a file beside it", path, key);
        else if (!is_open(f, name)) rc = open_file(f, name);
    }
    json_decref(o);
    return rc;
}

static int open_folder(Folder *f, const char *dir) {
    *f = (Folder){ .dir = dir };
    char *index = text_fmt("%s/model.safetensors.index.json", dir);
    int rc = file_exists(index) ? open_indexed(f, index) : open_file(f, "model.safetensors");
    free(index);
    return rc;
}

static const sn_tensor *find(const Folder *f, const char *name) {
    const sn_tensor *t = NULL;
    for (int i = 0; i < f->n && !t; i++) t = sn_file_find(f->file[i], name);
    return t;
}

/* -- Import -------------------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) { return strcmp(((const Weight *)a)->hf, ((const Weight *)b)->hf); }

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && !strcmp(s + n - k, end);
}

/* What old files hold and nobody reads: RoPE's constants; the head of a tied model. */
static bool is_idle(const HfConfig *c, const char *name) {
    return ends_with(name, ".rotary_emb.inv_freq") || (c->tied && !strcmp(name, c->kind == HF_LLADA ? "model.transformer.ff_out.weight" : "lm_head.weight"));
}

static int refuse_others(const Folder *f, const HfConfig *c, const Weights *w) {
    Weight *sorted = malloc(sizeof *sorted * (size_t)w->n);
    int rc = 0;
    if (!sorted) return cmd_fail("out of memory");
    memcpy(sorted, w->v, sizeof *sorted * (size_t)w->n);
    qsort(sorted, (size_t)w->n, sizeof *sorted, by_name);
    for (int i = 0; i < f->n; i++)
        for (int k = 0; k < sn_file_count(f->file[i]) && !rc; k++) {
            Weight key = { .hf = (char *)sn_file_at(f->file[i], k)->name };
            if (!bsearch(&key, sorted, (size_t)w->n, sizeof *sorted, by_name) && !is_idle(c, key.hf))
                rc = cmd_fail("%s/%s: the tensor '%.100s' has no place in models/transformer.sn with this config.json", f->dir, f->name[i], key.hf);
        }
    free(sorted);
    return rc;
}

/* The tensor that is this weight; NULL after an error line. */
static const sn_tensor *fitting(const Folder *f, const Weight *w) {
    const sn_tensor *t = find(f, w->hf);
    if (!t) { cmd_fail("%s: no file has the tensor '%s'", f->dir, w->hf); return NULL; }
    if (t->rank != w->rank || t->dim[0] != w->dim[0] || (w->rank == 2 && t->dim[1] != w->dim[1])) {
        char *second = w->rank == 2 ? text_fmt(", %lld", (long long)w->dim[1]) : text_fmt("%s", "");
        cmd_fail("%s: '%s' has not the shape that config.json says, [%lld%s]", f->dir, w->hf, (long long)w->dim[0], second);
        free(second);
        return NULL;
    }
    if (t->dtype == SN_F32 || t->dtype == SN_BF16 || t->dtype == SN_F16) return t;
    cmd_fail("%s: '%s' is neither f32, bf16 nor f16", f->dir, w->hf);
    return NULL;
}

/* The same on our side, as f32, malloc'ed. */
static float *read_weight(const Folder *f, const Weight *w) {
    const sn_tensor *t = fitting(f, w);
    if (!t) return NULL;
    int64_t n = elements(w);
    float *v = malloc(sizeof *v * (size_t)n), *turned = w->turned ? malloc(sizeof *v * (size_t)n) : NULL;
    if (!v || (w->turned && !turned)) { free(v); free(turned); cmd_fail("out of memory"); return NULL; }
    to_floats(t, n, v);
    if (!w->turned) return v;
    turn(v, turned, w->dim[0], w->dim[1]);
    free(v);
    return turned;
}

/* Tensor of ours that begins with w->v[i]: of one weight, or of all parts of one. */
static int gather_weight(const Folder *f, const Weight *w, sn_tensor *t) {
    int parts = w->parts ? w->parts : 1;
    int64_t n = elements(w);
    *t = (sn_tensor){ .name = w->ours, .dtype = SN_F32, .rank = (uint8_t)(w->rank + (w->parts > 0)), .dim = { w->parts }, .bytes = 4 * (size_t)(n * parts) };
    for (int k = 0; k < w->rank; k++) t->dim[k + (w->parts > 0)] = w->dim[w->turned ? 1 - k : k];
    if (!w->parts) return (t->data = read_weight(f, w)) ? 0 : EXIT_FAILED;
    float *all = malloc(t->bytes);
    t->data = all;
    if (!all) return cmd_fail("out of memory");
    for (int e = 0; e < parts; e++) {
        float *v = read_weight(f, &w[e]);
        if (!v) return EXIT_FAILED;
        memcpy(all + e * n, v, 4 * (size_t)n);
        free(v);
    }
    return 0;
}

static int write_checkpoint(const Folder *f, const HfConfig *c, const Weights *w, const char *out) {
    sn_tensor *t = calloc((size_t)w->n, sizeof *t);
    char err[256], *meta = hf_meta(c);
    int n = 0, rc = t && meta ? 0 : cmd_fail("out of memory");
    for (int i = 0; i < w->n && !rc; i += w->v[i].parts ? w->v[i].parts : 1) rc = gather_weight(f, &w->v[i], &t[n++]);
    const char *const pairs[] = { "sinter", meta, NULL };
    if (!rc && sn_file_write(out, t, n, pairs, err)) rc = cmd_fail("%s", err);
    for (int i = 0; t && i < n; i++) free((void *)t[i].data);
    free(t);
    free(meta);
    return rc;
}

static int64_t tensors_of(const Folder *f) {
    int64_t n = 0;
    for (int i = 0; i < f->n; i++) n += sn_file_count(f->file[i]);
    return n;
}

int hf_import(const char *dir, const char *type, const char *out) {
    HfConfig c;
    Folder f = {0};
    Weights w = {0};
    int rc = hf_read_config(dir, type, &c);
    if (!rc) rc = open_folder(&f, dir);
    if (!rc) rc = check_count(dir, &c, tensors_of(&f));
    if (!rc) w = list_weights(&c), rc = refuse_others(&f, &c, &w);
    if (!rc) rc = write_checkpoint(&f, &c, &w, out);
    free_weights(&w);
    close_folder(&f);
    hf_free_config(&c);
    return rc;
}

/* -- Export -------------------------------------------------------------------------------------------------------------------- */

typedef struct Out { const HfExport *e; const sn_file *f; const Weights *w; int *file, files; } Out;

static int64_t element_size(const HfExport *e) { return e->dtype == SN_F32 ? 4 : 2; }

static const sn_tensor *source(const Out *o, const Weight *w) {
    char *name = text_fmt("ema.%s", w->ours);
    const sn_tensor *t = o->e->ema ? sn_file_find(o->f, name) : NULL;
    free(name);
    return t ? t : sn_file_find(o->f, w->ours);
}

static bool is_state(const char *name) { return !strncmp(name, "adam.", 5) || !strncmp(name, "accum.", 6) || !strncmp(name, "ema.", 4); }

/* The checkpoint must be this model's: its weights all of these, and these shapes. */
static int check_weights(const Out *o) {
    int found = 0, all = 0, averages = 0;
    for (int i = 0; i < o->w->n; i++) {
        const Weight *x = &o->w->v[i];
        const sn_tensor *t = source(o, x);
        if (!t) return cmd_fail("%s: has no weight '%s'; is it a checkpoint of models/ar.sn or models/dlm.sn?", o->e->ckpt, x->ours);
        int outer = x->parts > 0;
        bool fits = t->dtype == SN_F32 && t->rank == x->rank + outer && (!outer || t->dim[0] == x->parts);
        for (int k = 0; k < x->rank && fits; k++) fits = t->dim[k + outer] == x->dim[x->turned ? 1 - k : k];
        if (!fits) return cmd_fail("%s: the weight '%s' has another shape than the params say", o->e->ckpt, x->ours);
        found += x->expert == 0;
    }
    for (int i = 0; i < sn_file_count(o->f); i++) {
        const char *name = sn_file_at(o->f, i)->name;
        all += !is_state(name);
        averages += !strncmp(name, "ema.", 4);
    }
    if (o->e->ema && !averages) return cmd_fail("%s: has no averaged weights; it was trained without -D ema=0.999", o->e->ckpt);
    if (all > found)
        return cmd_fail("%s: has %d weights that %s models have no place for", o->e->ckpt, all - found, o->e->type ? o->e->type : "Llama-, Qwen3- and Qwen3-MoE-shaped");
    return 0;
}

/* Which file each weight goes to: the next one when this one is full. */
static void deal(Out *o) {
    int64_t used = 0;
    for (int i = 0; i < o->w->n; i++) {
        int64_t bytes = elements(&o->w->v[i]) * element_size(o->e);
        if (!i || (o->e->shard && used && used + bytes > o->e->shard)) o->files++, used = 0;
        used += bytes;
        o->file[i] = o->files;
    }
}

static char *file_name(const Out *o, int k) {
    return o->files == 1 ? text_fmt("model.safetensors") : text_fmt("model-%05d-of-%05d.safetensors", k, o->files);
}

/* On Hugging Face's side, in the dtype of the export; malloc'ed. */
static void *turned_back(const Out *o, const Weight *w) {
    const sn_tensor *t = source(o, w);
    int64_t n = elements(w);
    float *v = malloc(sizeof *v * (size_t)n), *turned = w->turned ? malloc(sizeof *v * (size_t)n) : NULL;
    void *out = malloc((size_t)(n * element_size(o->e)));
    if (v && out && (turned || !w->turned)) {
        memcpy(v, (const char *)t->data + 4 * n * w->expert, 4 * (size_t)n);
        if (w->turned) turn(v, turned, w->dim[1], w->dim[0]);
        from_floats(o->e->dtype, w->turned ? turned : v, n, out);
    } else {
        cmd_fail("out of memory");
        free(out);
        out = NULL;
    }
    free(v);
    free(turned);
    return out;
}

static int write_file(const Out *o, int k) {
    sn_tensor *t = calloc((size_t)o->w->n, sizeof *t);
    char err[256], *name = file_name(o, k), *path = text_fmt("%s/%s", o->e->dir, name);
    int n = 0, rc = t ? 0 : cmd_fail("out of memory");
    for (int i = 0; i < o->w->n && !rc; i++) {
        const Weight *w = &o->w->v[i];
        if (o->file[i] != k) continue;
        t[n] = (sn_tensor){ .name = w->hf, .dtype = o->e->dtype, .rank = (uint8_t)w->rank, .dim = { w->dim[0], w->dim[1] },
                            .bytes = (size_t)(elements(w) * element_size(o->e)) };
        if (!(t[n].data = turned_back(o, w))) rc = EXIT_FAILED;
        else n++;
    }
    const char *const pairs[] = { "format", "pt", NULL };
    if (!rc && sn_file_write(path, t, n, pairs, err)) rc = cmd_fail("%s", err);
    for (int i = 0; i < n; i++) free((void *)t[i].data);
    free(t);
    free(name);
    free(path);
    return rc;
}

static int write_index(const Out *o) {
    int64_t total = 0;
    json_t *map = json_object();
    for (int i = 0; i < o->w->n; i++) {
        char *name = file_name(o, o->file[i]);
        json_object_set_new(map, o->w->v[i].hf, json_string(name));
        total += elements(&o->w->v[i]) * element_size(o->e);
        free(name);
    }
    json_t *root = json_pack("{s:{s:I} s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *s = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER), *path = text_fmt("%s/model.safetensors.index.json", o->e->dir);
    int rc = s ? write_text(path, s, strlen(s)) : cmd_fail("out of memory");
    json_decref(root);
    free(path);
    free(s);
    return rc;
}

static int write_folder(Out *o, const HfConfig *c) {
    int rc = make_folder(o->e->dir);
    for (int k = 1; k <= o->files && !rc; k++) rc = write_file(o, k);
    if (!rc && o->files > 1) rc = write_index(o);
    return rc ? rc : hf_write_config(o->e->dir, c, o->e->dtype == SN_F32 ? "float32" : o->e->dtype == SN_BF16 ? "bfloat16" : "float16");
}

int hf_export(const HfExport *e) {
    char err[256];
    HfConfig c;
    sn_file *f = sn_file_open(e->ckpt, err);
    if (!f) return cmd_fail("%s", err);
    int rc = hf_config_of(e->ckpt, f, e->defines, e->type, &c);
    Weights w = {0};
    if (!rc) rc = check_count(e->ckpt, &c, sn_file_count(f) * (c.experts ? c.experts : 1));
    if (!rc) w = list_weights(&c);
    Out o = { e, f, &w, calloc((size_t)w.n + 1, sizeof(int)), 0 };
    if (!rc && !o.file) rc = cmd_fail("out of memory");
    if (!rc) rc = check_weights(&o);
    if (!rc) deal(&o), rc = write_folder(&o, &c);
    free(o.file);
    free_weights(&w);
    hf_free_config(&c);
    sn_file_close(f);
    return rc;
}
