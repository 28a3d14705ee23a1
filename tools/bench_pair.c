/* bench_pair.c: one graph built twice, run in turn on the same inputs, timed and compared.

   In:  a model and two lists of fusions. Out: the best time of every launch and of the whole run, for each side; and whether both
   compute the same.

   How far apart may they be? Neither side is exact, and a deep model's results move by far more than their own last place
   when anything before them does. So the unfused side says what rounding can do: every element of every weight and state is
   moved by one unit in the last place, up or down at random, and d is how far that moves a result (rms, the larger of two draws).
   A sum of K terms in floating point is the exact sum of terms moved by about sqrt(K) units (Higham and Mary, 2019), and errors of
   different sums are independent: with K the mean length of the sums and products that a result comes from, its naive error is
   about sqrt(K) d. The bar of design.md 8 for the fused side, twice the naive error plus 2 ulp, and the naive error of the other
   side make 3 sqrt(K) d + 2 ulp of the largest value. */
#include "tools/bench.h"
#include "tools/verify.h"

#include <math.h>

enum { CHUNK = 1 << 14, DRAWS = 2 };

/* -- Opening --------------------------------------------------------------------------------------------------------- */

static int open_side(Pair *p, int i) {
    Side *s = &p->side[i];
    const PairOptions *o = &p->o;
    s->fuse = o->fuse[i];
    LabOptions lo = { .file = o->file, .text = o->text, .order = o->order, .fuse = s->fuse, .passes = o->passes, .defines = o->defines,
                      .train = !o->order, .trace = &s->trace, .profile = true, .seed = 1, .threads = o->threads,
                      .device = o->device, .target = o->target, .sched = o->sched };
    int rc = lab_open(&s->lab, &lo);
    if (rc) return rc;
    s->g = lab_graph(&s->lab, o->graph);
    if (!s->g) return cmd_fail("%s has no graph `%s`", o->file, o->graph);
    for (uint32_t k = 0; k < s->trace.graphs.n; k++)
        if (!strcmp(s->trace.graphs.v[k].name, o->graph)) s->built = &s->trace.graphs.v[k];
    s->now = calloc((size_t)s->g->nlaunches + 1, sizeof *s->now);
    s->best = calloc((size_t)s->g->nlaunches + 1, sizeof *s->best);
    if (o->feed) rc = o->feed(&s->lab, s->g, o->user);
    for (int k = 0; o->set && k < o->set->n && !rc; k++)
        if (sn_set(s->lab.s, o->set->v[k].name, o->set->v[k].value)) rc = lab_error(&s->lab);
    return rc;
}

int pair_open(Pair *p, const PairOptions *o) {
    static const StrList none;
    memset(p, 0, sizeof *p);
    p->o = *o;
    if (!o->defines) p->o.defines = &none;
    p->sides = o->fuse[1] ? 2 : 1;
    int rc = 0;
    for (int i = 0; i < p->sides && !rc; i++) rc = open_side(p, i);
    return rc;
}

void pair_close(Pair *p) {
    for (int i = 0; i < p->sides; i++) {
        snK_free_trace(&p->side[i].trace);
        lab_close(&p->side[i].lab);
        free(p->side[i].now);
        free(p->side[i].best);
    }
    p->sides = 0;
}

static int run_side(Side *s, int step) {
    sn_set(s->lab.s, "step", step);                        /* a graph without optimizer has none */
    sn_step(s->lab.s, (uint32_t)step, 0);
    return sn_run(s->lab.s, s->g->name) ? lab_error(&s->lab) : 0;
}

/* -- Comparing ------------------------------------------------------------------------------------------------------- */

typedef struct Value {               /* an output, or a weight or state that the graph updates */
    const char *name, *graph;        /* graph NULL: storage */
    const SnTensorDesc *t;
    int64_t n;
    size_t bytes;
    double terms;                    /* mean length of the sums that it comes from */
    uint8_t *unfused;
    double moved;                    /* by one ulp in every weight, rms */
} Value;

typedef struct Compare { Pair *p; Value *v; int n; void *raw; Dtype coarse; } Compare;   /* coarse: the widest float spacing in use */

static int64_t elements(const SnTensorDesc *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

/* How many terms the node adds up for each element; 1 = it is no sum. */
static double terms_of(const Graph *g, NodeId id) {
    OpClass cls = snG_op(g->ctx, snG_node(g, id)->op)->cls;
    const Type *x = snG_node(g, id)->nin ? snG_type(g, snG_in(g, id, 0)) : NULL;
    if (cls == C_CONTRACT) return (double)x->dim[snG_attr_int(g, id, 0) ? x->rank - 2 : x->rank - 1];
    return snG_node(g, id)->op == OP_sum ? (double)snG_count(x) / (double)snG_count(snG_type(g, id)) : 1;
}

/* Over the sums that node id depends on, itself included. */
static double mean_terms(const Graph *g, NodeId id) {
    uint8_t *in = calloc(g->nodes.n, 1);
    double sum = 0, n = 0;
    in[id] = 1;
    for (NodeId k = id; k > 0; k--) {
        double terms = in[k] ? terms_of(g, k) : 1;
        if (terms > 1) sum += terms, n++;
        for (unsigned i = 0; in[k] && i < snG_node(g, k)->nin; i++) in[snG_in(g, k, i)] = 1;
    }
    free(in);
    return n ? sum / n : 1;
}

static void add_value(Compare *c, const char *name, const char *graph, const SnTensorDesc *t, NodeId id) {
    int64_t n = elements(t);
    size_t bytes = (size_t)n * (size_t)snG_dtype_size(t->dtype);
    c->v = realloc(c->v, sizeof *c->v * (size_t)(c->n + 1));
    c->v[c->n++] = (Value){ name, graph, t, n, bytes, mean_terms(c->p->side[1].built->g, id), calloc(1, bytes + 1), 0 };
}

static void list_values(Compare *c) {
    const Side *s = &c->p->side[1];
    const Graph *g = s->built->g;
    for (int i = 0; i < s->g->noutputs; i++)
        add_value(c, s->g->outputs[i].name, s->g->name, &s->g->buffers[s->g->outputs[i].buffer].t, g->outputs.v[i].node);
    for (uint32_t i = 0; i < g->updates.n; i++) {
        const char *name = snU_str(g->ctx, snG_leaf(g, g->updates.v[i].target)->name);
        for (int k = 0; k < s->lab.p->nstorage; k++)
            if (!strcmp(s->lab.p->storage[k].t.name, name)) add_value(c, name, NULL, &s->lab.p->storage[k].t, g->updates.v[i].value);
    }
    c->coarse = SN_F32;
    for (int i = 0; i < s->g->nbuffers; i++) {
        Dtype d = s->g->buffers[i].t.dtype;
        if (d == SN_BF16 || (d == SN_F16 && c->coarse == SN_F32)) c->coarse = d;
    }
}

static int read_value(const Value *v, Side *s, void *to) {
    return sn_read(s->lab.s, v->graph, v->name, to, v->bytes) ? lab_error(&s->lab) : 0;
}

typedef struct Distance { double rms, largest; int64_t worst; bool wild; } Distance;   /* wild: not both the same infinity or NaN; integers that differ */

static Distance distance(const Value *v, const uint8_t *a, const uint8_t *b) {
    static double x[CHUNK], y[CHUNK];
    Distance d = {0};
    Dtype dt = v->t->dtype;
    double sum = 0, most = 0;
    int size = snG_dtype_size(dt);
    for (int64_t at = 0; at < v->n; at += CHUNK) {
        int64_t n = v->n - at < CHUNK ? v->n - at : CHUNK;
        snV_unpack(dt, a + at * size, n, x);
        snV_unpack(dt, b + at * size, n, y);
        for (int64_t i = 0; i < n; i++) {
            if (!snG_is_float(dt) || !isfinite(x[i]) || !isfinite(y[i])) {
                bool same = x[i] == y[i] || (isnan(x[i]) && isnan(y[i]));
                if (!same && !d.wild) d.wild = true, d.worst = at + i;
                continue;
            }
            double e = fabs(x[i] - y[i]);
            if (e > most && !d.wild) most = e, d.worst = at + i;
            d.largest = fmax(d.largest, fabs(y[i]));
            sum += e * e;
        }
    }
    d.rms = v->n ? sqrt(sum / (double)v->n) : 0;
    return d;
}

/* Every element of every float weight and state that is not 0 one unit of the coarsest float in use up or down. */
static int move_weights(const Compare *c, Side *s, uint32_t x) {
    static double v[CHUNK];
    for (int k = 0; k < s->lab.p->nstorage; k++) {
        const SnTensorDesc *t = &s->lab.p->storage[k].t;
        Dtype d = t->dtype;
        int64_t n = elements(t), size = snG_dtype_size(d);
        if (!snG_is_float(d)) continue;
        uint8_t *raw = malloc((size_t)(n * size) + 1);
        int rc = !raw ? cmd_fail("out of memory") : sn_read(s->lab.s, NULL, t->name, raw, (size_t)(n * size)) ? lab_error(&s->lab) : 0;
        for (int64_t at = 0; at < n && !rc; at += CHUNK) {
            int64_t m = n - at < CHUNK ? n - at : CHUNK;
            snV_unpack(d, raw + at * size, m, v);
            for (int64_t i = 0; i < m; i++) {
                x = x * 1664525u + 1013904223u;
                if (v[i] != 0 && isfinite(v[i])) v[i] += x >> 31 ? snV_ulp(c->coarse, v[i]) : -snV_ulp(c->coarse, v[i]);
            }
            snV_pack(d, v, m, raw + at * size);
        }
        if (!rc && sn_write(s->lab.s, t->name, raw, (size_t)(n * size))) rc = lab_error(&s->lab);
        free(raw);
        if (rc) return rc;
    }
    return 0;
}

static int run_from_start(Side *s) {
    sn_init(s->lab.s);
    return run_side(s, 1);
}

/* The unfused side's results, and how far they move. */
static int measure_unfused(Compare *c) {
    Side *s = &c->p->side[1];
    int rc = run_from_start(s);
    for (int i = 0; i < c->n && !rc; i++) rc = read_value(&c->v[i], s, c->v[i].unfused);
    for (int draw = 0; draw < DRAWS && !rc; draw++) {
        sn_init(s->lab.s);
        rc = move_weights(c, s, 977u + (uint32_t)draw);
        if (!rc) rc = run_side(s, 1);
        for (int i = 0; i < c->n && !rc; i++) {
            rc = read_value(&c->v[i], s, c->raw);
            if (!rc) c->v[i].moved = fmax(c->v[i].moved, distance(&c->v[i], c->raw, c->v[i].unfused).rms);
        }
    }
    sn_init(s->lab.s);
    return rc;
}

static int judge(const Compare *c, const Value *v) {
    Distance d = distance(v, c->raw, v->unfused);
    Dtype dt = v->t->dtype;
    double bar = 3 * sqrt(v->terms) * v->moved + 2 * snV_ulp(snG_is_float(dt) ? dt : SN_F32, d.largest), got, want;
    c->p->compared++;
    if (!d.wild && d.rms >= c->p->nearness * bar) {
        c->p->nearness = d.rms / bar;
        snprintf(c->p->worst, sizeof c->p->worst, "%s", v->name);
    }
    if (!d.wild && (d.rms <= bar || !snG_is_float(dt))) return 0;
    int size = snG_dtype_size(dt);
    snV_unpack(dt, (uint8_t *)c->raw + d.worst * size, 1, &got);
    snV_unpack(dt, v->unfused + d.worst * size, 1, &want);
    return cmd_fail("%s: %s differs between fuse %s and fuse %s beyond rounding: rms %.3g, allowed %.3g; [%lld] is %.9g and %.9g", c->p->o.file, v->name,
                    c->p->side[0].fuse, c->p->side[1].fuse, d.wild ? INFINITY : d.rms, bar, (long long)d.worst, got, want);
}

int pair_compare(Pair *p) {
    Compare c = { .p = p };
    size_t most = 0;
    list_values(&c);
    for (int i = 0; i < c.n; i++) most = c.v[i].bytes > most ? c.v[i].bytes : most;
    c.raw = malloc(most + 1);
    int rc = measure_unfused(&c);
    if (!rc) rc = run_from_start(&p->side[0]);
    for (int i = 0; i < c.n && !rc; i++) {
        rc = read_value(&c.v[i], &p->side[0], c.raw);
        if (!rc) rc = judge(&c, &c.v[i]);
    }
    sn_init(p->side[0].lab.s);
    for (int i = 0; i < c.n; i++) free(c.v[i].unfused);
    free(c.v);
    free(c.raw);
    return rc;
}

/* -- Timing ---------------------------------------------------------------------------------------------------------- */

/* On a card the times of kernels come at a price: the whole is a run without them. */
static int time_run(Side *s, int step, bool count, bool card) {
    sn_profile_reset(s->lab.s);
    double t0 = snU_now();
    int rc = run_side(s, step);
    double t = snU_now() - t0;
    if (!rc && card) {
        sn_profile_enable(s->lab.s, false);
        t0 = snU_now();
        rc = run_side(s, step);
        t = snU_now() - t0;
        sn_profile_enable(s->lab.s, true);
    }
    if (rc || !count) return rc;
    if (sn_profile(s->lab.s, s->g->name, s->now, s->g->nlaunches) < 0) return lab_error(&s->lab);
    bool first = s->step == 0;
    for (int i = 0; i < s->g->nlaunches; i++) s->best[i] = first ? s->now[i].seconds : fmin(s->best[i], s->now[i].seconds);
    s->step = first ? t : fmin(s->step, t);
    return 0;
}

/* The largest of the whole run so far: a neighbour on the machine can only make a measurement smaller. */
static void measure_device(Pair *p, bool again) {
    static double peak, bandwidth, last = -INFINITY;
    bool pairs = p->o.bf16 || (p->o.passes.autocast && !strcmp(p->o.passes.autocast, "bf16"));
    if (again || snU_now() - last > 20) {
        peak = fmax(peak, sn_measure_device(p->o.device, pairs ? SN_PEAK_BF16 : SN_PEAK_F32, p->o.threads));
        bandwidth = fmax(bandwidth, sn_measure_device(p->o.device, SN_BANDWIDTH, p->o.threads));
        last = snU_now();
    }
    p->peak = peak, p->bandwidth = bandwidth;
}

int pair_time(Pair *p, int64_t runs, double seconds) {
    enum { WARM = 2 };
    int rc = 0;
    double start = 0;
    bool card = p->o.device && !strncmp(p->o.device, "cuda", 4);
    measure_device(p, false);
    for (int64_t i = 0; !rc; i++) {
        if (i == WARM) start = snU_now();
        if (i >= WARM && (runs ? i >= WARM + runs : i >= WARM + 5 && snU_now() - start > seconds * p->sides)) break;
        for (int k = 0; k < p->sides && !rc; k++) rc = time_run(&p->side[k], (int)i + 1, i >= WARM, card);
    }
    measure_device(p, seconds >= 2);
    return rc;
}

double pair_roofline(const Pair *p, double flops, double bytes) { return fmax(flops / (p->peak * 1e9), bytes / (p->bandwidth * 1e9)); }
