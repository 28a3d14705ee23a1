/* generate.c: sampling from models.

   In:  graphs `prefill` and `decode` (AR) or `logits` (DLM), a prompt. Out: the tokens after it.

   AR: prefill runs once over BOS and the prompt and fills the cache; each decode takes one token and writes its keys and values
   behind those before. DLM, as LLaDA's generate.py: the text is the prompt and masks; blocks from left to right; in every step the
   model predicts all masked positions, and those of the block that it is surest of are kept, as many as the steps left want. What
   has been kept is never changed. A suffix behind the masks is seen like the prompt: infilling.

   DLM with kernel=uniform: all positions begin as random tokens and are drawn anew in every step, from the posterior of the kernel given what the
   model says of the clean text (sample.h), at equal steps of time. */
#include "tools/generate.h"

#include <math.h>
#include <stdlib.h>

static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* -- Opening ------------------------------------------------------------------------------------------------------ */

static bool named(const StrList *l, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < l->n; i++)
        if (!strncmp(l->v[i], name, n) && l->v[i][n] == '=') return true;
    return false;
}

static bool among(const char *const *names, const char *name) {
    while (*names && strcmp(*names, name)) names++;
    return *names != NULL;
}

/* What `sinter train` says in a checkpoint; NULL in *meta when it says nothing. 0, or 1 after a line. */
static int read_meta(const char *ckpt, json_t **meta) {
    char err[256];
    sn_file *f = sn_file_open(ckpt, err);
    *meta = NULL;
    if (!f) return cmd_fail("%s", err);
    const char *text = sn_file_meta(f, "sinter");
    if (text) *meta = json_loads(text, 0, NULL);
    sn_file_close(f);
    return 0;
}

static bool has(const StrList *names, const char *name) {
    int i = 0;
    while (i < names->n && strcmp(names->v[i], name)) i++;
    return i < names->n;
}

/* A checkpoint has the params of the file that it was trained with; one that this file lacks tells that it is another. */
static int refuse_other_model(const char *ckpt, const json_t *meta, const char *file, const StrList *known) {
    const char *key, *model = json_string_value(json_object_get(meta, "model"));
    json_t *v;
    json_object_foreach(json_object_get(meta, "params"), key, v)
        if (!has(known, key))
            return cmd_fail("%s: is a checkpoint of %s; %s has no param '%s'; give the model file that it was trained with", ckpt,
                            model ? model : "another model", file, key);
    return 0;
}

/* The params of a file with these -D. False: it has errors, which loading it will tell. */
static bool model_params(const char *file, const StrList *defines, StrList *names) {
    sn_ctx *c = sn_ctx_new();
    Define *d = cmd_defines(defines);
    Module *m = c ? snG_load(c, file, d, defines->n) : NULL;
    for (uint32_t i = 0; m && i < m->params.n; i++) list_add(names, strdup(m->params.v[i].name));
    bool ok = m != NULL;
    if (m) snG_free_module(m);
    if (c) sn_ctx_free(c);
    free(d);
    return ok;
}

int checkpoint_params(const char *ckpt, const char *file, StrList *defines) {
    static const char *const but[] = { "B", "T", "ctx", NULL };
    StrList known = {0};
    json_t *meta, *v;
    const char *key;
    int rc = read_meta(ckpt, &meta);
    if (!rc && model_params(file, defines, &known)) rc = refuse_other_model(ckpt, meta, file, &known);
    json_object_foreach(json_object_get(meta, "params"), key, v)
        if (!rc && json_is_string(v) && !among(but, key) && !named(defines, key)) list_add(defines, text_fmt("%s=%s", key, json_string_value(v)));
    for (int i = 0; i < known.n; i++) free((char *)known.v[i]);
    free(known.v);
    json_decref(meta);
    return rc;
}

int checkpoint_of(const char *ckpt, const char *file, const Lab *lab) {
    StrList known = {0};
    json_t *meta;
    int rc = read_meta(ckpt, &meta);
    for (int i = 0; i < lab->p->nparams; i++) list_add(&known, lab->p->params[i].name);
    if (!rc) rc = refuse_other_model(ckpt, meta, file, &known);
    free(known.v);
    json_decref(meta);
    return rc;
}

int checkpoint_shape(const char *ckpt, StrList *defines) {
    static const char *const only[] = { "vocab", "mask_id", "bos_id", "width", "layers", "heads", "kv_heads", "hidden", "head_dim", "qk_norm", "tied", "rope_base",
                                        "norm_eps", "experts", "top_k", "gate_over", "shared_hidden", NULL };
    json_t *meta;
    int rc = read_meta(ckpt, &meta);
    for (int i = 0; !rc && only[i]; i++) {
        const char *v = json_string_value(json_object_get(json_object_get(meta, "params"), only[i]));
        if (v && !named(defines, only[i])) list_add(defines, text_fmt("%s=%s", only[i], v));
    }
    json_decref(meta);
    return rc;
}

const Tokenizer *checkpoint_tokenizer(const char *path, const char *ckpt) {
    char err[256], hash[24] = "";
    sn_file *f = ckpt ? sn_file_open(ckpt, err) : NULL;
    if (ckpt && !f) { cmd_fail("%s", err); return NULL; }
    const char *text = f ? sn_file_meta(f, "sinter") : NULL;
    json_t *meta = text ? json_loads(text, 0, NULL) : NULL;
    const char *was = json_string_value(json_object_get(meta, "tokenizer")), *want = json_string_value(json_object_get(meta, "tokenizer_xxh3"));
    const Tokenizer *t = tokenizer_open(path ? path : was);
    if (t && t->path) snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->hash);
    if (t && want && strcmp(hash, want)) {
        cmd_fail("%s was trained with the tokenizer %s (hash %s), %s has the hash %s; --tokenizer names another place of it", ckpt, was ? was : "", want, t->path, hash);
        tokenizer_close(t);
        t = NULL;
    }
    json_decref(meta);
    if (f) sn_file_close(f);
    return t;
}

static int has_graph(const LabOptions *o, const char *name, bool *has) {
    Model m;
    int rc = model_load(&m, o->file, NULL, o->defines);
    if (rc) return rc;
    *has = snG_get(m.m, name) != NULL;
    model_free(&m);
    return 0;
}

static int check_model(Generator *g) {
    g->vocab = lab_output_count(lab_graph(&g->lab, g->ar ? "decode" : "logits"), "logits");
    if (!g->vocab) return cmd_fail("%s has no graphs for generation: prefill and decode (AR), or logits (DLM), with the output logits", g->lab.m.m ? "the model" : "");
    if (!g->ar) g->vocab /= g->room;
    g->mask = lab_param(&g->lab, "mask_id", g->vocab - 1);
    g->bos = lab_param(&g->lab, "bos_id", g->vocab - 1);
    g->uniform = !g->ar && lab_param_is(&g->lab, "kernel", "uniform");
    g->classes = lab_param(&g->lab, "classes", g->mask);
    if (g->uniform && (g->classes < 1 || g->classes > g->vocab)) return cmd_fail("the param classes is %lld: it must be 1 to the vocabulary, %lld", (long long)g->classes, (long long)g->vocab);
    g->own_block = g->ar ? 0 : lab_param(&g->lab, "block_size", 0);
    if (g->own_block && g->o.block && g->o.block != g->own_block)
        return cmd_fail("--block %lld: the model's blocks are of %lld tokens", (long long)g->o.block, (long long)g->own_block);
    if (g->tok->vocab > g->vocab)
        return cmd_fail("the tokenizer has %lld tokens, the model's vocabulary is %lld; set -D vocab", (long long)g->tok->vocab, (long long)g->vocab);
    g->tokens = calloc((size_t)g->room + 1, sizeof *g->tokens);
    g->logits = malloc(sizeof *g->logits * (size_t)(g->vocab * (g->ar ? 1 : g->room)));
    if (g->o.guidance > 0) g->without = malloc(sizeof *g->without * (size_t)(g->vocab * g->room));
    return g->tokens && g->logits && (g->without || g->o.guidance <= 0) ? 0 : cmd_fail("out of memory");
}

int generator_open(Generator *g, const LabOptions *desc, const char *ckpt, const Tokenizer *tok, const GenOptions *o, int64_t longest) {
    *g = (Generator){ .tok = tok, .o = *o, .room = longest + o->length };
    StrList defines = {0};
    for (int i = 0; i < desc->defines->n; i++) list_add(&defines, desc->defines->v[i]);
    LabOptions lo = *desc;
    lo.defines = &defines;
    int rc = ckpt ? checkpoint_params(ckpt, lo.file, &defines) : 0;
    if (!rc) rc = has_graph(&lo, "decode", &g->ar);
    if (rc) return rc;
    if (g->ar) {
        g->fed = round_up(longest + 1, 32);
        g->room = at_least(g->room + 1, g->fed);
        list_add(&defines, text_fmt("ctx=%lld", (long long)g->room));
        list_add(&defines, text_fmt("prefill.T=%lld", (long long)g->fed));
    } else {
        list_add(&defines, text_fmt("logits.T=%lld", (long long)g->room));
    }
    lo.graphs = g->ar ? "prefill,decode" : "logits";
    rc = lab_open(&g->lab, &lo);
    if (rc) return rc;
    if (ckpt) rc = lab_load(&g->lab, ckpt);
    if (!rc) rc = check_model(g);
    if (rc) generator_close(g);
    return rc;
}

void generator_close(Generator *g) {
    lab_close(&g->lab);
    free(g->tokens);
    free(g->logits);
    free(g->without);
}

static void show(const Generator *g, Progress *p, int64_t done, int64_t all, const char *unit, const int32_t *ids, int64_t n, int32_t mask) {
    if (!p || !p->tty) return;
    size_t bytes = 0;
    char *text = NULL;
    if (mask < 0) text = g->tok->decode(g->tok, ids, n, &bytes);
    else {                                                       /* masks are underscores */
        StrBuf b = {0};
        for (int64_t i = 0; i < n; i++) {
            char *one = ids[i] == mask ? NULL : g->tok->decode(g->tok, ids + i, 1, &bytes);
            snU_putf(&b, "%s", one ? one : "_");
            free(one);
        }
        text = strdup(b.n ? b.s : "");
        bytes = text ? strlen(text) : 0;
        free(b.s);
    }
    progress_show(p, done, all, unit, text, bytes);
    free(text);
}

/* -- AR ------------------------------------------------------------------------------------------------------------- */

static int prefill(Generator *g, const Tokens *prompt) {
    int32_t len = (int32_t)prompt->n + 1;
    memset(g->tokens, 0, sizeof *g->tokens * (size_t)g->room);
    g->tokens[0] = (int32_t)g->bos;
    memcpy(g->tokens + 1, prompt->v, sizeof *g->tokens * (size_t)prompt->n);
    sn_session *s = g->lab.s;
    int rc = sn_bind(s, "prefill", "tokens", g->tokens, sizeof *g->tokens * (size_t)g->fed);
    if (!rc) rc = sn_bind(s, "prefill", "len", &len, sizeof len);
    if (!rc) rc = sn_run(s, "prefill");
    return rc ? rc : sn_read(s, "prefill", "logits", g->logits, sizeof *g->logits * (size_t)g->vocab);
}

static int decode_token(Generator *g, int32_t token, int64_t at) {
    int32_t pos = (int32_t)at;
    double t0 = snU_now();
    sn_session *s = g->lab.s;
    int rc = sn_bind(s, "decode", "tokens", &token, sizeof token);
    if (!rc) rc = sn_bind(s, "decode", "pos", &pos, sizeof pos);
    if (!rc) rc = sn_run(s, "decode");
    if (!rc) rc = sn_read(s, "decode", "logits", g->logits, sizeof *g->logits * (size_t)g->vocab);
    g->decode_s += snU_now() - t0;
    g->decoded++;
    return rc;
}

static int next_tokens(Generator *g, const Tokens *prompt, uint32_t number, Progress *p, Tokens *out) {
    int rc = prefill(g, prompt);
    while (!rc && out->n < g->o.length) {
        Draw d = { g->o.seed, number, (uint32_t)out->n };
        int32_t t = sample_token(&g->o.rule, g->logits, g->vocab, d);
        if (t == g->o.eos) break;
        out->v[out->n++] = t;
        show(g, p, out->n, g->o.length, "tokens", out->v, out->n, -1);
        if (out->n < g->o.length) rc = decode_token(g, t, prompt->n + out->n);
    }
    return rc ? lab_error(&g->lab) : 0;
}

/* -- DLM ------------------------------------------------------------------------------------------------------------ */

static int run_logits(Generator *g, const int32_t *tokens, int64_t len, float *logits) {
    int32_t n = (int32_t)len;
    sn_session *s = g->lab.s;
    int rc = sn_bind(s, "logits", "tokens", tokens, sizeof *tokens * (size_t)g->room);
    if (!rc) rc = sn_bind(s, "logits", "len", &n, sizeof n);
    if (!rc) rc = sn_run(s, "logits");
    if (!rc) rc = sn_read(s, "logits", "logits", logits, sizeof *logits * (size_t)(g->room * g->vocab));
    return rc ? lab_error(&g->lab) : 0;
}

static int predict(Generator *g, int64_t prompt, int64_t len) {
    int rc = run_logits(g, g->tokens, len, g->logits);
    if (rc || g->o.guidance <= 0) return rc;
    int32_t *blind = malloc(sizeof *blind * (size_t)g->room);
    if (!blind) return cmd_fail("out of memory");
    for (int64_t i = 0; i < g->room; i++) blind[i] = i < prompt || i >= len - g->suffix.n ? (int32_t)g->mask : g->tokens[i];
    rc = run_logits(g, blind, len, g->without);
    free(blind);
    if (!rc) sample_guide(g->logits + prompt * g->vocab, g->without + prompt * g->vocab, (len - prompt) * g->vocab, g->o.guidance);
    return rc;
}

typedef struct Spot { Guess g; int64_t at; } Spot;

static int surer(const void *a, const void *b) {
    const Spot *x = a, *y = b;
    return x->g.sure != y->g.sure ? (x->g.sure < y->g.sure) - (x->g.sure > y->g.sure) : (x->at > y->at) - (x->at < y->at);
}

/* One step in [from, to): keeps the `keep` surest, or all beyond the threshold and at least one. The number of masks left. */
static int64_t keep_surest(Generator *g, int64_t from, int64_t to, int64_t keep, Draw d, Spot *spot) {
    int64_t n = 0;
    for (int64_t i = from; i < to; i++)
        if (g->tokens[i] == g->mask)
            spot[n++] = (Spot){ sample_guess(g->logits + i * g->vocab, g->vocab, (int32_t)g->mask, g->o.rule.temperature, g->o.remask, d, (uint64_t)i), i };
    qsort(spot, (size_t)n, sizeof *spot, surer);
    if (g->o.remask == REMASK_THRESHOLD)
        for (keep = 1; keep < n && spot[keep].g.sure > g->o.threshold; ) keep++;
    for (int64_t i = 0; i < n && i < keep; i++) g->tokens[spot[i].at] = spot[i].g.token;
    return n > keep ? n - keep : 0;
}

static int denoise_block(Generator *g, int64_t prompt, int64_t len, int64_t from, int64_t to, int64_t steps, Draw *d, Progress *p, Spot *spot) {
    int64_t n = to - from, left = n;
    bool by_count = g->o.remask != REMASK_THRESHOLD;
    for (int64_t s = 0; left && (s < steps || !by_count); s++, d->step++) {
        int rc = predict(g, prompt, len);
        if (rc) return rc;
        left = keep_surest(g, from, to, n / steps + (s < n % steps), *d, spot);
        show(g, p, to - left - prompt, g->o.length, "tokens", g->tokens + prompt, g->o.length, (int32_t)g->mask);
    }
    return 0;
}

/* Where the block that begins at `from` ends. A block-diffusion model's blocks lie at multiples of its own size. */
static int64_t block_end(const Generator *g, int64_t from, int64_t len) {
    int64_t size = g->own_block ? g->own_block : g->o.block ? g->o.block : g->o.length;
    int64_t to = g->own_block ? (from / size + 1) * size : from + size;
    return to < len ? to : len;
}

static int denoise(Generator *g, const Tokens *prompt, uint32_t number, Progress *p, Tokens *out) {
    int64_t end = prompt->n + g->o.length, len = end + g->suffix.n, blocks = 0, most = 0;
    for (int64_t from = prompt->n; from < end; from = block_end(g, from, end), blocks++)
        most = at_least(most, block_end(g, from, end) - from);
    for (int64_t i = 0; i < g->room; i++)
        g->tokens[i] = i < prompt->n ? prompt->v[i] : i >= end && i < len ? g->suffix.v[i - end] : (int32_t)g->mask;
    Spot *spot = malloc(sizeof *spot * (size_t)(most + 1));
    Draw d = { g->o.seed, number, 0 };
    int64_t total = g->o.steps ? g->o.steps : g->o.length;
    int rc = spot ? 0 : cmd_fail("out of memory");
    for (int64_t b = 0, from = prompt->n, to; b < blocks && !rc; b++, from = to) {
        to = block_end(g, from, end);
        int64_t steps = at_least(1, total / blocks + (b < total % blocks));
        rc = denoise_block(g, prompt->n, len, from, to, steps < to - from ? steps : to - from, &d, p, spot);
    }
    free(spot);
    for (int64_t i = prompt->n; i < end && !rc && g->tokens[i] != g->o.eos; i++) out->v[out->n++] = g->tokens[i];
    return rc;
}

/* -- DLM, uniform kernel -------------------------------------------------------------------------------------------- */

/* The share of positions that are not yet corrupted at time t, by the model's schedule (models/noise.sn). */
static double survives(const Generator *g, double t) {
    return t <= 0 ? 1 : 1 - (lab_param_is(&g->lab, "noise_schedule", "cosine") ? sin(t * M_PI_2) : t);
}

static int draw_uniform_step(Generator *g, int64_t from, int64_t to, int64_t len, double alpha, double next, Draw d, double *p) {
    int rc = run_logits(g, g->tokens, len, g->logits);
    for (int64_t i = from; i < to && !rc; i++) {
        sample_posterior(g->logits + i * g->vocab, g->classes, g->tokens[i], alpha, next, g->o.rule.temperature, p);
        g->tokens[i] = sample_from(p, g->classes, draw_uniform(d, (uint64_t)i));
    }
    return rc;
}

static int denoise_uniform(Generator *g, const Tokens *prompt, uint32_t number, Progress *p, Tokens *out) {
    int64_t from = prompt->n, to = from + g->o.length, len = to + g->suffix.n, steps = g->o.steps ? g->o.steps : g->o.length;
    Draw d = { g->o.seed, number, 0 };
    double *probability = malloc(sizeof *probability * (size_t)g->classes);
    int rc = probability ? 0 : cmd_fail("out of memory");
    for (int64_t i = 0; i < g->room; i++) {
        int32_t any = (int32_t)(draw_uniform(d, (uint64_t)i) * (double)g->classes);
        g->tokens[i] = i < from ? prompt->v[i] : i < to ? any : i < len ? g->suffix.v[i - to] : 0;
    }
    for (int64_t s = 0; s < steps && !rc; s++) {
        double t = 1 - (double)s / (double)steps, after = 1 - (double)(s + 1) / (double)steps;
        d.step = (uint32_t)(s + 1);
        rc = draw_uniform_step(g, from, to, len, survives(g, t), survives(g, s + 1 < steps ? after : 0), d, probability);
        show(g, p, s + 1, steps, "steps", g->tokens + from, g->o.length, -1);
    }
    free(probability);
    for (int64_t i = from; i < to && !rc && g->tokens[i] != g->o.eos; i++) out->v[out->n++] = g->tokens[i];
    return rc;
}

int generator_text(Generator *g, const Tokens *prompt, uint32_t number, Progress *p, Tokens *out) {
    *out = (Tokens){ malloc(sizeof *out->v * (size_t)(g->o.length + 1)), 0 };
    if (!out->v) return cmd_fail("out of memory");
    int64_t most = (g->ar ? g->fed - 1 : g->room - g->o.length - g->suffix.n);
    if (g->ar && g->suffix.n) return cmd_fail("a suffix is for masked-diffusion models: an AR model does not look ahead");
    if (prompt->n > most) return cmd_fail("the prompt has %lld tokens, there is room for %lld", (long long)prompt->n, (long long)most);
    for (int64_t i = 0; i < prompt->n; i++)
        if (prompt->v[i] < 0 || prompt->v[i] >= g->vocab) return cmd_fail("the prompt has the token %d, the vocabulary is %lld", prompt->v[i], (long long)g->vocab);
    for (int64_t i = 0; i < g->suffix.n; i++)
        if (g->suffix.v[i] < 0 || g->suffix.v[i] >= g->vocab)
            return cmd_fail("the suffix has the token %d, the vocabulary is %lld", g->suffix.v[i], (long long)g->vocab);
    if (g->ar) return next_tokens(g, prompt, number, p, out);
    return g->uniform ? denoise_uniform(g, prompt, number, p, out) : denoise(g, prompt, number, p, out);
}
