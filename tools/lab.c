/* lab.c: opens a model for work and scores windows.

   In:  a model file and options. Out: a session on its compiled program; per-window losses of a shard.

   Scoring reads every window once per draw. The last batch is filled up with copies of its last window, whose results are
   ignored. For a masked-diffusion model window w of draw d of D has n = 1 + floor(T frac((perm(w) + u_w) / W + d / D)) masked positions,
   u_w uniform on [0, 1): n is uniform on 1..T for every window and draw, whatever W and D, so the mean is an unbiased estimate of
   the NELBO; and it is stratified twice, over the draws of a window and over the windows of a draw. */
#include "codegen/flops.h"
#include "runtime/bundle.h"
#include "tools/lab.h"

#include <math.h>

int lab_error(const Lab *lab) { return cmd_fail("%s", sn_session_error(lab->s)); }

static void count_weights(Lab *lab) {
    for (int i = 0; i < lab->p->nstorage; i++) {
        const SnStorage *st = &lab->p->storage[i];
        int64_t n = 1;
        for (int k = 0; k < st->t.rank; k++) n *= st->t.dim[k];
        if (!st->is_state) lab->params += n;
    }
    lab->vocab = lab_param(lab, "vocab", 0);
}

int64_t lab_param(const Lab *lab, const char *name, int64_t otherwise) {
    for (int i = 0; i < lab->p->nparams; i++)
        if (!strcmp(lab->p->params[i].name, name)) return strtoll(lab->p->params[i].value, NULL, 10);
    return otherwise;
}

bool lab_param_is(const Lab *lab, const char *name, const char *text) {
    for (int i = 0; i < lab->p->nparams; i++)
        if (!strcmp(lab->p->params[i].name, name)) return strstr(lab->p->params[i].value, text) != NULL;
    return false;
}

static bool listed(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (!strncmp(p, name, n) && (p[n] == ',' || !p[n])) return true;
    return false;
}

/* What is not run is not compiled, nor does its state get into checkpoints. */
void lab_choose_graphs(Module *m, const char *graphs) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->graphs.n; i++) {
        const char *name = snU_str(m->ctx, m->graphs.v[i]->name);
        bool keep = graphs ? listed(graphs, name) : !listed("logits,prefill,decode", name);
        if (keep) m->graphs.v[n++] = m->graphs.v[i];
        else snG_free(m->graphs.v[i]);
    }
    m->graphs.n = n;
}

int lab_target(const char *device, const char *target, char out_target[64], char out_device[16]) {
    bool any = target && !strcmp(target, "opencl");      /* vectors as long as the device's */
    if (target && !any) snprintf(out_target, 64, "%s", target);
    else if (sn_device_target(device ? device : target, out_target)) return cmd_fail("%s", sn_rt_error());
    if (device) snprintf(out_device, 16, "%s", device);
    else snprintf(out_device, 16, "%s", snR_default_device(out_target));
    return 0;
}

/* A program that is compiled already. */
static int open_bundle(Lab *lab, const LabOptions *o) {
    int rc = bundle_takes(o->file, o->defines, &o->passes, o->fuse);
    if (rc) return rc;
    double t0 = snU_now();
    if (!(lab->p = sn_program_open(o->file, o->device))) return cmd_fail("%s", sn_rt_error());
    lab->load_s = snU_now() - t0;
    lab->bundle = true;
    lab->seed = o->seed;
    lab->ema = o->ema;
    sn_session_desc d = { .device = o->device, .seed = o->seed, .threads = o->threads, .profile = o->profile };
    if (!(lab->s = sn_session_new(lab->p, &d))) rc = cmd_fail("%s", sn_rt_error());
    if (!rc) count_weights(lab);
    else lab_close(lab);
    return rc;
}

int lab_open(Lab *lab, const LabOptions *o) {
    memset(lab, 0, sizeof *lab);
    char target[64], device[16];
    if (!o->text && is_bundle(o->file)) return open_bundle(lab, o);
    int rc = lab_target(o->device, o->target, target, device);
    if (rc) return rc;
    double t0 = snU_now();
    rc = model_load(&lab->m, o->file, o->text, o->defines);
    if (rc) return rc;
    if (!o->text) lab_choose_graphs(lab->m.m, o->graphs);
    lab->load_s = snU_now() - t0;
    BuildOptions bo = { .target = target, .train = o->train, .order = o->order, .trace = o->trace, .fuse = o->fuse, .threads = o->threads,
                        .verbose = o->verbose, .autocast = o->passes.autocast, .recompute = o->passes.recompute, .sched = o->sched };
    lab->seed = o->seed;
    lab->ema = o->ema;
    lab->p = snK_build(lab->m.m, &bo, &lab->stats);
    if (!lab->p) rc = model_error(lab->m.c);
    sn_session_desc d = { .device = device, .seed = o->seed, .threads = o->threads, .profile = o->profile };
    if (!rc && !(lab->s = sn_session_new(lab->p, &d))) rc = cmd_fail("%s", sn_rt_error());
    if (!rc) count_weights(lab);
    else lab_close(lab);
    return rc;
}

static int64_t count_of(const SnTensorDesc *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

static const sn_tensor *find_average(const sn_file *f, const char *name) {
    char *of = text_fmt("ema.%s", name);
    const sn_tensor *t = sn_file_find(f, of);
    free(of);
    return t;
}

static int load_weight(Lab *lab, const sn_file *f, const char *path, const SnTensorDesc *d) {
    const sn_tensor *t = lab->ema ? find_average(f, d->name) : NULL;
    if (!t) t = sn_file_find(f, d->name);
    if (!t) return cmd_fail("%s: has no weight '%s'; is it a checkpoint of this model, with these -D?", path, d->name);
    if (t->dtype != d->dtype || t->rank != d->rank || memcmp(t->dim, d->dim, sizeof *d->dim * d->rank))
        return cmd_fail("%s: the weight '%s' has another shape or dtype (%zu bytes) than the model's; are -D those of the training?", path, d->name, t->bytes);
    return sn_write(lab->s, d->name, t->data, t->bytes) ? lab_error(lab) : 0;
}

int lab_load(Lab *lab, const char *path) {
    char err[256];
    sn_file *f = sn_file_open(path, err);
    if (!f) return cmd_fail("%s", err);
    int rc = 0, averages = 0;
    for (int i = 0; i < lab->p->nstorage; i++) averages += !lab->p->storage[i].is_state && find_average(f, lab->p->storage[i].t.name);
    if (lab->ema && !averages) rc = cmd_fail("%s has no averaged weights (ema.*); it was trained without -D ema=0.999", path);
    for (int i = 0; i < lab->p->nstorage && !rc; i++)
        if (!lab->p->storage[i].is_state) rc = load_weight(lab, f, path, &lab->p->storage[i].t);
    sn_file_close(f);
    return rc;
}

static const SnTensorDesc *average_of(const Lab *lab, const char *weight) {
    for (int i = 0; i < lab->p->nstorage; i++) {
        const char *name = lab->p->storage[i].t.name;
        if (lab->p->storage[i].is_state && !strncmp(name, "ema.", 4) && !strcmp(name + 4, weight)) return &lab->p->storage[i].t;
    }
    return NULL;
}

bool lab_has_averages(const Lab *lab) {
    for (int i = 0; i < lab->p->nstorage; i++)
        if (!lab->p->storage[i].is_state && average_of(lab, lab->p->storage[i].t.name)) return true;
    return false;
}

static int swap_average(Lab *lab, const SnTensorDesc *w, const SnTensorDesc *e) {
    size_t bytes = 4 * (size_t)count_of(w);
    char *a = malloc(bytes), *b = malloc(bytes);
    int rc = a && b ? 0 : cmd_fail("out of memory");
    if (w->dtype != SN_F32) rc = cmd_fail("the weight '%s' is no f32: its average cannot stand in its place", w->name);
    if (!rc && (sn_read(lab->s, NULL, w->name, a, bytes) || sn_read(lab->s, NULL, e->name, b, bytes) ||
                sn_write(lab->s, w->name, b, bytes) || sn_write(lab->s, e->name, a, bytes))) rc = lab_error(lab);
    free(a);
    free(b);
    return rc;
}

int lab_swap_averages(Lab *lab) {
    int rc = 0;
    for (int i = 0; i < lab->p->nstorage && !rc; i++) {
        const SnTensorDesc *w = &lab->p->storage[i].t, *e = lab->p->storage[i].is_state ? NULL : average_of(lab, w->name);
        if (e) rc = swap_average(lab, w, e);
    }
    return rc;
}

void lab_close(Lab *lab) {
    if (lab->s) sn_session_free(lab->s);
    if (lab->p) snR_program_free(lab->p);
    model_free(&lab->m);
    lab->s = NULL;
    lab->p = NULL;
}

/* -- Looking things up -------------------------------------------------------------------------------------- */

const SnGraphPlan *lab_graph(const Lab *lab, const char *name) {
    for (int i = 0; i < lab->p->ngraphs; i++)
        if (!strcmp(lab->p->graphs[i].name, name)) return &lab->p->graphs[i];
    return NULL;
}

const SnBuffer *lab_input(const SnGraphPlan *g, const char *name) {
    for (int i = 0; g && i < g->nbuffers; i++)
        if (g->buffers[i].kind == SN_BUF_INPUT && !strcmp(g->buffers[i].t.name, name)) return &g->buffers[i];
    return NULL;
}

int64_t lab_output_count(const SnGraphPlan *g, const char *name) {
    for (int i = 0; g && i < g->noutputs; i++)
        if (!strcmp(g->outputs[i].name, name)) return count_of(&g->buffers[g->outputs[i].buffer].t);
    return 0;
}

bool lab_has_output(const SnGraphPlan *g, const char *name) { return lab_output_count(g, name) > 0; }

/* What draws at random in `eval`, masks or orders, bounds the likelihood. */
bool lab_is_bound(const SnGraphPlan *g) { return lab_input(g, "n") || lab_input(g, "sample"); }

double lab_flops(const Lab *lab, const SnGraphPlan *g) {
    double sum = 0;
    for (int i = 0; g && i < g->nlaunches; i++) sum += lab->p->kernels[g->launches[i].kernel].flops;
    return sum;
}

static bool some_count(const Graph *g, const Group *grp) {
    for (uint32_t i = 0; i < grp->nodes.n; i++)
        if (snG_node(g, grp->nodes.v[i])->op == OP_matmul_some) return true;
    return false;
}

Flops lab_executed(const Lab *lab, const BuildTrace *trace, const char *graph) {
    Flops f = {0};
    const SnGraphPlan *p = lab_graph(lab, graph);
    for (uint32_t i = 0; p && i < trace->graphs.n; i++) {
        const BuiltGraph *b = &trace->graphs.v[i];
        if (strcmp(b->name, graph)) continue;
        for (int k = 0; k < p->nlaunches; k++) {
            const Group *grp = b->group_of.v[k] >= 0 ? &b->groups.group.v[b->group_of.v[k]] : NULL;
            double flops = lab->p->kernels[p->launches[k].kernel].flops;
            if (grp && grp->kind == G_ATTENTION) flops *= snK_visited_share(b->g, grp);
            if (grp && some_count(b->g, grp)) f.counted += flops;
            else f.fixed += flops;
        }
    }
    return f;
}

int lab_batch(const SnGraphPlan *g, Batch *out) {
    const SnBuffer *b = lab_input(g, "tokens");
    if (!b || b->t.rank != 2 || b->t.dtype != SN_I32)
        return cmd_fail("graph '%s' needs `input tokens: i32[B, T]` to be fed with text", g->name);
    *out = (Batch){ b->t.dim[0], b->t.dim[1] };
    return 0;
}

/* -- Feeding ------------------------------------------------------------------------------------------------- */

static int feed_constant(Lab *lab, const SnGraphPlan *g, const char *name, int64_t window) {
    const SnBuffer *b = lab_input(g, name);
    if (!b || b->t.rank == 0) return 0;
    int64_t n = count_of(&b->t);
    int32_t *v = calloc((size_t)n + 1, sizeof *v);
    float one = 1;
    for (int64_t i = 0; i < n; i++) {
        if (!strcmp(name, "pos")) v[i] = (int32_t)(i % window);
        if (!strcmp(name, "weight")) memcpy(&v[i], &one, 4);
    }
    int rc = sn_bind(lab->s, g->name, name, v, (size_t)n * 4);
    free(v);
    return rc;
}

int rows_new(TextRows *r, Batch b) {
    size_t n = (size_t)(b.rows * b.window), rows = (size_t)b.rows;
    *r = (TextRows){ calloc(n, 4), calloc(n, 4), calloc(n, 4), calloc(rows, 4), calloc(rows, 4) };
    if (!r->tokens || !r->begins || !r->scored || !r->sample || !r->view) return cmd_fail("out of memory");
    for (size_t i = 0; i < n; i++) r->scored[i] = 1;
    return 0;
}

void rows_free(TextRows *r) {
    int32_t *all[] = { r->tokens, r->begins, r->scored, r->sample, r->view };
    for (int i = 0; i < 5; i++) free(all[i]);
    *r = (TextRows){0};
}

int rows_read(TextRows *r, Batch b, int64_t row, sn_data *data, int64_t window) {
    int64_t id, at = row * b.window;
    if (sn_data_window(data, window, r->tokens + at, &id, NULL) || sn_data_marks(data, window, r->begins + at, r->scored + at))
        return cmd_fail("%s", sn_rt_error());
    r->sample[row] = (int32_t)id;
    r->view[row] = (int32_t)(id / sn_data_windows(data));
    return 0;
}

int lab_feed(Lab *lab, const SnGraphPlan *g, const TextRows *r) {
    Batch b = {0};
    int rc = lab_batch(g, &b);
    if (rc) return rc;
    const struct { const char *name; const int32_t *v; int64_t each; } inputs[] = {
        { "tokens", r->tokens, b.window }, { "targets", r->tokens, b.window }, { "doc", r->begins, b.window },
        { "scored", r->scored, b.window }, { "sample", r->sample, 1 }, { "view", r->view, 1 },
    };
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && !rc; i++)
        if (lab_input(g, inputs[i].name)) rc = sn_bind(lab->s, g->name, inputs[i].name, inputs[i].v, 4 * (size_t)(b.rows * inputs[i].each));
    static const char *const constants[] = { "pos", "weight", NULL };
    for (int i = 0; constants[i] && !rc; i++) rc = feed_constant(lab, g, constants[i], b.window);
    return rc ? lab_error(lab) : 0;
}

/* -- Scoring --------------------------------------------------------------------------------------------------- */

/* Where in [0, 1) each window's share of masks starts: a permutation (Fisher-Yates by Philox) of W strata, a place in each. */
static void strata(double *share, int64_t W, uint64_t seed) {
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) }, w[4];
    for (int64_t i = 0; i < W; i++) share[i] = (double)i;
    for (int64_t i = W - 1; i >= 0; i--) {
        uint32_t ctr[4] = { (uint32_t)i, 0, 0, 0xfffffffcu };
        sn_philox(key, ctr, w);
        uint64_t x = (uint64_t)w[1] << 32 | w[0];
        int64_t k = (int64_t)((unsigned __int128)x * (uint64_t)(i + 1) >> 64);
        double t = share[i];
        share[i] = share[k];
        share[k] = t;
        share[i] = (share[i] + w[2] * 0x1p-32) / (double)W;
    }
}

typedef struct Scoring {
    Lab *lab;
    const SnGraphPlan *g;
    Batch b;
    sn_data *data;
    Score *out;
    double *share, *square;          /* per window: strata; sum of squares over draws */
    bool answers;                    /* what is masked are scored tokens, n at most so many */
    TextRows rows;
    int32_t *n;
    float *nll;
} Scoring;

static int64_t scored_of(const Scoring *sc, int64_t row) {
    int64_t n = 0;
    for (int64_t k = 0; k < sc->b.window; k++) n += sc->rows.scored[row * sc->b.window + k] != 0;
    return n;
}

static int score_batch(Scoring *sc, int64_t draw, int64_t first) {
    int64_t W = sc->out->windows;
    for (int64_t r = 0; r < sc->b.rows; r++) {
        int64_t w = first + r < W ? first + r : W - 1, most = sc->b.window;
        if (rows_read(&sc->rows, sc->b, r, sc->data, w)) return EXIT_FAILED;
        if (sc->answers) most = scored_of(sc, r);
        sc->rows.sample[r] = (int32_t)(draw * W + w);
        double x = sc->share[w] + (double)draw / (double)sc->out->draws;
        int64_t n = 1 + (int64_t)((x - floor(x)) * (double)most);
        sc->n[r] = (int32_t)(n < most || !most ? n : most);
    }
    int rc = lab_feed(sc->lab, sc->g, &sc->rows);
    if (rc) return rc;
    sn_session *s = sc->lab->s;
    if (lab_input(sc->g, "n")) rc = sn_bind(s, sc->g->name, "n", sc->n, sizeof *sc->n * (size_t)sc->b.rows);
    if (!rc) rc = sn_run(s, sc->g->name);
    if (!rc) rc = sn_read(s, sc->g->name, "nll", sc->nll, sizeof *sc->nll * (size_t)sc->b.rows);
    if (rc) return lab_error(sc->lab);
    for (int64_t r = 0; r < sc->b.rows && first + r < W; r++) {
        sc->out->nll[first + r] += sc->nll[r];
        sc->square[first + r] += (double)sc->nll[r] * sc->nll[r];
    }
    return 0;
}

/* mask_se takes the draws of a window for independent; strata make the error smaller than that. */
static void summarise(Score *o, const double *square) {
    double sum = 0, sq = 0, within = 0, W = (double)o->windows, D = (double)o->draws;
    for (int64_t i = 0; i < o->windows; i++) {
        o->nll[i] /= D;
        sum += o->nll[i];
        if (o->draws > 1) within += fmax(0, square[i] - D * o->nll[i] * o->nll[i]) / (D - 1) / D;
    }
    o->mean = sum / W;
    for (int64_t i = 0; i < o->windows; i++) sq += (o->nll[i] - o->mean) * (o->nll[i] - o->mean);
    o->se = o->windows > 1 ? sqrt(sq / (W - 1) / W) : 0;
    o->mask_se = sqrt(within) / W;
}

static int score_all(Scoring *sc, uint64_t eval_seed) {
    int rc = 0;
    sn_seed(sc->lab->s, eval_seed);
    sn_step(sc->lab->s, 0, 0);
    strata(sc->share, sc->out->windows, eval_seed);
    for (int64_t d = 0; d < sc->out->draws && !rc; d++)
        for (int64_t w = 0; w < sc->out->windows && !rc; w += sc->b.rows) rc = score_batch(sc, d, w);
    sn_seed(sc->lab->s, sc->lab->seed);
    if (!rc) summarise(sc->out, sc->square);
    return rc;
}

static int open_scoring(Scoring *sc, const char *shard, int64_t limit) {
    char err[256];
    sc->g = lab_graph(sc->lab, "eval");
    if (!sc->g) return cmd_fail("the model has no graph `eval`: it cannot be scored");
    int rc = lab_batch(sc->g, &sc->b);
    if (rc) return rc;
    if (lab_output_count(sc->g, "nll") != sc->b.rows)
        return cmd_fail("graph `eval` needs `output nll`, one loss per row of the batch");
    sc->data = sn_data_open(&(sn_data_desc){ .path = shard, .window = sc->b.window }, err);
    if (!sc->data) return cmd_fail("%s", err);
    int64_t W = sn_data_windows(sc->data);
    if (limit && W > limit) W = limit;
    if (W < 1) return cmd_fail("%s is shorter than one window of %lld tokens", shard, (long long)sc->b.window);
    if (sc->lab->vocab && sn_data_max(sc->data) >= sc->lab->vocab)
        return cmd_fail("%s has the token %d, the model's vocabulary is %lld; set -D vocab", shard, sn_data_max(sc->data), (long long)sc->lab->vocab);
    sc->out->windows = W;
    size_t rows = (size_t)sc->b.rows;
    sc->share = calloc((size_t)W, sizeof *sc->share);
    sc->square = calloc((size_t)W, sizeof *sc->square);
    sc->answers = lab_input(sc->g, "scored") != NULL;
    rc = rows_new(&sc->rows, sc->b);
    if (rc) return rc;
    sc->n = calloc(rows, sizeof *sc->n);
    sc->nll = calloc(rows, sizeof *sc->nll);
    sc->out->nll = calloc((size_t)W, sizeof *sc->out->nll);
    return sc->share && sc->square && sc->n && sc->nll && sc->out->nll ? 0 : cmd_fail("out of memory");
}

int lab_score(Lab *lab, const char *shard, int64_t draws, uint64_t eval_seed, int64_t limit, Score *out) {
    Scoring sc = { .lab = lab, .out = out };
    double t0 = snU_now();
    memset(out, 0, sizeof *out);
    int rc = open_scoring(&sc, shard, limit);
    if (!rc) {
        out->bound = lab_is_bound(sc.g);
        out->draws = out->bound && draws > 0 ? draws : 1;
        rc = score_all(&sc, eval_seed);
    }
    out->seconds = snU_now() - t0;
    if (sc.data) sn_data_close(sc.data);
    free(sc.share);
    free(sc.square);
    rows_free(&sc.rows);
    free(sc.n);
    free(sc.nll);
    return rc;
}

void score_free(Score *s) {
    free(s->nll);
    s->nll = NULL;
}

Paired score_paired(const double *a, const double *b, int64_t n) {
    Paired p = { .n = n };
    double sq = 0;
    for (int64_t i = 0; i < n; i++) p.mean += (a[i] - b[i]) / (double)n;
    for (int64_t i = 0; i < n; i++) sq += (a[i] - b[i] - p.mean) * (a[i] - b[i] - p.mean);
    p.se = n > 1 ? sqrt(sq / (double)(n - 1) / (double)n) : 0;
    return p;
}
