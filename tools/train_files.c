/* train_files.c: what a run writes and reads back: configuration, log, checkpoints, per-window losses. See train.h. */
#include "tools/train.h"

#include <errno.h>
#include <math.h>

char *train_path(const Train *t, const char *fmt, ...) {
    char name[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return text_fmt("%s/%s", t->o.out, name);
}

double settings_get(const Settings *s, const char *name, double otherwise) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->v[i].name, name)) return s->v[i].value;
    return otherwise;
}

void settings_put(Settings *s, const char *name, double v) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->v[i].name, name)) { s->v[i].value = v; return; }
    s->v = realloc(s->v, sizeof *s->v * (size_t)(s->n + 1));
    s->v[s->n++] = (Setting){ strdup(name), v };
}

/* -- The pieces of config.json and of a checkpoint's position ------------------------------------------------ */

static json_t *settings_json(const Settings *s) {
    json_t *o = json_object();
    for (int i = 0; i < s->n; i++) json_object_set_new(o, s->v[i].name, json_real(s->v[i].value));
    return o;
}

static json_t *params_json(const Train *t) {
    json_t *o = json_object();
    for (int i = 0; i < t->lab.p->nparams; i++)
        json_object_set_new(o, t->lab.p->params[i].name, json_string(t->lab.p->params[i].value));
    return o;
}

/* Every scalar input of every graph with the value that this run uses. */
static json_t *inputs_json(const Train *t) {
    json_t *o = json_object();
    for (int i = 0; i < t->lab.p->ngraphs; i++) {
        const SnGraphPlan *g = &t->lab.p->graphs[i];
        for (int k = 0; k < g->nbuffers; k++) {
            const SnBuffer *b = &g->buffers[k];
            if (b->kind == SN_BUF_INPUT && b->t.rank == 0 && b->has_default)
                json_object_set_new(o, b->t.name, json_real(settings_get(&t->set, b->t.name, b->dflt)));
        }
    }
    if (json_object_get(o, "total")) json_object_set_new(o, "total", json_real(settings_get(&t->set, "total", (double)t->end)));
    json_object_del(o, "step");
    json_object_del(o, "accum_scale");
    return o;
}

static json_t *set_json(const CorpusSet *s) {
    char hash[24];
    if (!s->path[0]) return json_null();
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)s->hash);
    return json_pack("{s:s s:I s:I s:s s:f}", "path", s->path, "files", (json_int_t)s->files, "bytes", (json_int_t)s->bytes,
                     "xxh3", hash, "overlap_with_train", s->overlap);
}

static json_t *data_json(const Train *t) {
    const CorpusInfo *c = &t->corpus;
    json_t *paths = json_array();
    for (int i = 0; i < t->o.data.n; i++) json_array_append_new(paths, json_string(t->o.data.v[i]));
    json_t *held = json_array();
    for (int i = 0; i < t->o.held.n; i++) json_array_append_new(held, json_string(t->o.held.v[i]));
    return json_pack("{s:o s:o s:s s:I s:I s:o s:o s:o}", "paths", paths, "held", held, "corrupt", t->o.corrupt ? t->o.corrupt : c->corrupt, "unique", (json_int_t)sn_data_tokens(t->data), "split_seed",
                     (json_int_t)t->o.split_seed, "train", set_json(&c->train), "val", set_json(&c->val), "test", set_json(&c->test));
}

static void put_windows(const Train *t, json_t *o) {
    json_object_set_new(o, "fixed_windows", json_boolean(t->o.fixed_windows));
    json_object_set_new(o, "views", json_integer(t->o.views));
    json_object_set_new(o, "score_fill", json_boolean(t->o.score_fill));
}

static const char *train_autocast(const Train *t) { return t->o.passes.autocast ? t->o.passes.autocast : "none"; }
static bool is_bound(const Train *t) { return lab_is_bound(lab_graph(&t->lab, "eval")); }

/* What text was encoded with; of bytes, nothing. */
static void put_tokenizer(const Train *t, json_t *o) {
    char hash[24], *full = t->tok->path ? realpath(t->tok->path, NULL) : NULL;
    if (!t->tok->path) return;
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->tok->hash);
    json_object_set_new(o, "tokenizer", json_string(full ? full : t->tok->path));
    json_object_set_new(o, "tokenizer_xxh3", json_string(hash));
    free(full);
}

int train_write_config(Train *t) {
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->lab.p->hash);
    json_t *o = json_pack("{s:s s:s s:s s:s s:I s:I s:I s:I s:I s:I s:I s:I s:I s:f s:I s:I}", "sinter", SINTER_VERSION, "model", t->o.file,
                          "objective", is_bound(t) ? "nelbo" : "nll", "program_xxh3", hash, "weights", (json_int_t)t->lab.params,
                          "batch", (json_int_t)t->b.rows, "accum", (json_int_t)t->o.accum, "window", (json_int_t)t->b.window,
                          "windows_per_epoch", (json_int_t)sn_data_windows(t->data), "steps", (json_int_t)t->end,
                          "seed", (json_int_t)t->o.seed, "eval_seed", (json_int_t)t->o.eval_seed, "draws", (json_int_t)t->o.draws,
                          "flops_per_step", t->flops, "eval_every", (json_int_t)t->o.eval_every, "from_step", (json_int_t)t->from_step);
    json_object_set_new(o, "active_weights", json_integer(t->lab.params - lab_param(&t->lab, "idle_weights", 0)));
    json_object_set_new(o, "flops_executed_per_step", json_pack("{s:f s:f}", "fixed", t->executed.fixed, "counted", t->executed.counted));
    json_object_set_new(o, "init", t->o.init ? json_string(t->o.init) : json_null());
    json_object_set_new(o, "from", t->o.from ? json_string(t->o.from) : json_null());
    put_windows(t, o);
    put_tokenizer(t, o);
    json_object_set_new(o, "autocast", json_string(train_autocast(t)));
    json_object_set_new(o, "recompute", json_string(t->o.passes.recompute ? t->o.passes.recompute : "none"));
    json_object_set_new(o, "decay_steps", json_integer(t->o.decay));
    json_object_set_new(o, "params", params_json(t));
    json_object_set_new(o, "inputs", inputs_json(t));
    json_object_set_new(o, "data", data_json(t));
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9)), *path = train_path(t, "config.json");
    int rc = write_text(path, text, strlen(text));
    free(path);
    free(text);
    json_decref(o);
    return rc;
}

/* -- Log -------------------------------------------------------------------------------------------------------- */

/* Lines of steps that are done; a torn last line and lines of steps that will be done again are dropped. */
static int keep_log(const Train *t, const char *path) {
    StrBuf kept = {0};
    char *text = t->step > 0 && !t->o.from ? read_text(path, NULL) : NULL;
    if (t->step > 0 && t->o.from && t->o.resume) text = read_text(path, NULL);
    for (char *line = text; line && *line; ) {
        size_t n = strcspn(line, "\n");
        json_t *row = json_loadb(line, n, 0, NULL);
        json_t *step = row ? json_object_get(row, "step") : NULL;
        const char *kind = row ? json_string_value(json_object_get(row, "kind")) : NULL;
        if (step && json_integer_value(step) <= t->step && !(kind && !strcmp(kind, "end"))) snU_putf(&kept, "%.*s\n", (int)n, line);
        if (row) json_decref(row);
        line += n + (line[n] == '\n');
    }
    int rc = write_text(path, kept.s ? kept.s : "", kept.n);
    snU_free_buf(&kept);
    free(text);
    return rc;
}

int train_open_log(Train *t) {
    char *path = train_path(t, "log.jsonl");
    int rc = keep_log(t, path);
    if (!rc && !(t->log = fopen(path, "ab"))) rc = cmd_fail("cannot write %s: %s", path, strerror(errno));
    free(path);
    return rc;
}

void train_log(Train *t, json_t *row) {
    char *line = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(7) | JSON_PRESERVE_ORDER);
    fprintf(t->log, "%s\n", line);
    fflush(t->log);
    free(line);
    json_decref(row);
}

/* -- Checkpoints ------------------------------------------------------------------------------------------------- */

int train_save(Train *t, const char *name) {
    char hash[24];
    const char *folder = strrchr(t->corpus.train.path, '/');
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->corpus.train.hash);
    json_t *o = json_pack("{s:s s:I s:I s:I s:I s:I s:I s:s s:I s:I}", "sinter", SINTER_VERSION, "step", (json_int_t)t->step, "end",
                          (json_int_t)t->end, "window", (json_int_t)t->window, "seed", (json_int_t)t->o.seed, "accum",
                          (json_int_t)t->o.accum, "unique", (json_int_t)sn_data_tokens(t->data), "data_xxh3", hash,
                          "best_step", (json_int_t)t->best_step, "from_step", (json_int_t)t->from_step);
    if (isfinite(t->best)) json_object_set_new(o, "best", json_real(t->best));
    json_object_set_new(o, "data", json_stringn(t->corpus.train.path, folder ? (size_t)(folder - t->corpus.train.path) : 0));
    put_windows(t, o);
    put_tokenizer(t, o);
    json_object_set_new(o, "model", json_string(t->o.file));
    json_object_set_new(o, "autocast", json_string(train_autocast(t)));
    json_object_set_new(o, "params", params_json(t));
    json_object_set_new(o, "set", settings_json(&t->set));
    char *meta = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(17)), *path = train_path(t, "%s.safetensors", name);
    int rc = sn_save(t->lab.s, path, meta) ? lab_error(&t->lab) : 0;
    free(path);
    free(meta);
    json_decref(o);
    return rc;
}

static json_int_t get_int(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }

/* The run that goes on must be the run that was saved. */
static int check_same(const Train *t, const char *path, const json_t *meta) {
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)t->corpus.train.hash);
    const char *had = json_string_value(json_object_get(meta, "data_xxh3"));
    if (had && strcmp(had, hash)) return cmd_fail("%s was trained on other data (hash %s, now %s); give the same --data and --unique", path, had, hash);
    if (get_int(meta, "unique") != sn_data_tokens(t->data))
        return cmd_fail("%s was trained on %lld unique tokens, now %lld", path, (long long)get_int(meta, "unique"), (long long)sn_data_tokens(t->data));
    if (get_int(meta, "seed") != t->o.seed)
        return cmd_fail("%s was trained with --seed %lld, not %lld", path, (long long)get_int(meta, "seed"), (long long)t->o.seed);
    if (get_int(meta, "accum") != t->o.accum)
        return cmd_fail("%s was trained with --accum %lld, not %lld", path, (long long)get_int(meta, "accum"), (long long)t->o.accum);
    if (get_int(meta, "views") != t->o.views)
        return cmd_fail("%s was trained with --views %lld, not %lld", path, (long long)get_int(meta, "views"), (long long)t->o.views);
    const struct { const char *key; bool now; } flags[] = { { "fixed_windows", t->o.fixed_windows }, { "score_fill", t->o.score_fill } };
    for (int i = 0; i < 2; i++)
        if (json_is_true(json_object_get(meta, flags[i].key)) != flags[i].now)
            return cmd_fail("%s was trained %s --%s", path, flags[i].now ? "without" : "with", i ? "score-fill" : "fixed-windows");
    const char *cast = json_string_value(json_object_get(meta, "autocast"));
    if (strcmp(cast ? cast : "none", train_autocast(t)))
        return cmd_fail("%s was trained with --autocast %s, not %s", path, cast ? cast : "none", train_autocast(t));
    json_t *params = json_object_get(meta, "params");
    for (int i = 0; i < t->lab.p->nparams; i++) {
        const char *name = t->lab.p->params[i].name, *was = json_string_value(json_object_get(params, name));
        if (was && strcmp(was, t->lab.p->params[i].value))
            return cmd_fail("%s was trained with %s = %s, now it is %s; give the same -D", path, name, was, t->lab.p->params[i].value);
    }
    return 0;
}

static void take_meta(Train *t, const json_t *meta, bool resume) {
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(meta, "set"), key, v)
        if (isnan(settings_get(&t->set, key, NAN))) settings_put(&t->set, key, json_number_value(v));
    t->step = get_int(meta, "step");
    t->window = get_int(meta, "window");
    if (!resume) { t->from_step = t->step; return; }
    t->from_step = get_int(meta, "from_step");
    t->best_step = get_int(meta, "best_step");
    if (json_object_get(meta, "best")) t->best = json_number_value(json_object_get(meta, "best"));
    if (!t->end) t->end = get_int(meta, "end");
}

int train_load(Train *t, const char *path, bool resume) {
    char *text = NULL;
    int rc = checkpoint_of(path, t->o.file, &t->lab);
    if (rc) return rc;
    if (sn_load(t->lab.s, path, &text, false)) return lab_error(&t->lab);
    json_t *meta = text ? json_loads(text, 0, NULL) : NULL;
    rc = meta ? check_same(t, path, meta) : cmd_fail("%s is no checkpoint of `sinter train`: it does not say where it stands", path);
    if (!rc) take_meta(t, meta, resume);
    if (meta) json_decref(meta);
    free(text);
    return rc;
}

char *train_peek_data(const char *path) {
    char err[256], *folder = NULL;
    sn_file *f = sn_file_open(path, err);
    const char *text = f ? sn_file_meta(f, "sinter") : NULL;
    json_t *meta = text ? json_loads(text, 0, NULL) : NULL;
    const char *data = meta ? json_string_value(json_object_get(meta, "data")) : NULL;
    if (data && *data) folder = strdup(data);
    if (meta) json_decref(meta);
    if (f) sn_file_close(f);
    return folder;
}

/* -- Losses of windows --------------------------------------------------------------------------------------------- */

static sn_tensor window_tensor(const char *name, const Score *s, float *out) {
    for (int64_t i = 0; i < s->windows; i++) out[i] = (float)s->nll[i];
    return (sn_tensor){ .name = name, .dtype = SN_F32, .rank = 1, .dim = { s->windows }, .data = out, .bytes = 4 * (size_t)s->windows };
}

int train_save_windows(Train *t, const Score *val, const Score *test) {
    char err[256], *folder = train_path(t, "val"), *path = train_path(t, "val/%08lld.safetensors", (long long)t->step);
    float *buf[2] = { calloc((size_t)val->windows + 1, 4), calloc((size_t)test->windows + 1, 4) };
    sn_tensor ts[2] = { window_tensor("val", val, buf[0]), window_tensor("test", test, buf[1]) };
    int rc = make_folder(folder);
    if (!rc && sn_file_write(path, ts, test->windows ? 2 : 1, NULL, err)) rc = cmd_fail("%s", err);
    for (int i = 0; i < 2; i++) free(buf[i]);
    free(path);
    free(folder);
    return rc;
}
