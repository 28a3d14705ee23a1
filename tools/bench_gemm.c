/* bench_gemm.c: `sinter bench gemm`: matrix products against the peak of the same run.

   In:  a list of shapes, and f32 or bf16 (of the operands; sums and result are f32). The peak is that of FMAs, or of dot products of
   bf16 pairs, in registers. Out: a line per shape: time, GFLOP/s, the peak measured just before and after (the larger), the ratio.
   Every shape is a program of one kernel, built from the gemm family's plain tile program and run by the runtime as a
   training step would run it. A few elements of each result are checked against products in f64. */
#include "tools/bench.h"
#include "tools/verify.h"

#include <math.h>

typedef struct Shape { int64_t m, n, k; bool ta, tb; const char *name, *dir; } Shape;

/* Squares, then a 124M model (12 layers, width 768, hidden 2048, vocabulary 50304) at 1024 tokens, forward, and the two
   products of its backward pass: dx = dy w^T, dw = x^T dy. */
static const Shape DEFAULT_SHAPES[] = {
    { 512, 512, 512, 0, 0, "square", "fwd" },         { 1024, 1024, 1024, 0, 0, "square", "fwd" },
    { 2048, 2048, 2048, 0, 0, "square", "fwd" },      { 1024, 768, 768, 0, 0, "attention", "fwd" },
    { 1024, 768, 768, 0, 1, "attention.dx", "bwd" },  { 768, 768, 1024, 1, 0, "attention.dw", "bwd" },
    { 1024, 2048, 768, 0, 0, "mlp.up", "fwd" },       { 1024, 768, 2048, 0, 1, "mlp.up.dx", "bwd" },
    { 768, 2048, 1024, 1, 0, "mlp.up.dw", "bwd" },    { 1024, 768, 2048, 0, 0, "mlp.down", "fwd" },
    { 1024, 2048, 768, 0, 1, "mlp.down.dx", "bwd" },  { 2048, 768, 1024, 1, 0, "mlp.down.dw", "bwd" },
    { 1024, 50304, 768, 0, 0, "head", "fwd" },        { 1024, 768, 50304, 0, 1, "head.dx", "bwd" },
    { 768, 50304, 1024, 1, 0, "head.dw", "bwd" },
};

typedef struct GemmRun {
    const BenchOptions *o;
    sn_ctx *c;
    Target target;
    Arena arena;
    void *so;
    SnProgram p;
    SnKernelDesc kernel;
    SnStorage storage[2];
    SnBuffer buffer[3];
    SnLaunch launch;
    SnOutput output;
    SnGraphPlan plan;
    Dtype dtype;                     /* of a and b */
    char device[16];
    double ms, peak, gflops, error;
    GemmSched sched;                 /* of the shape */
    char overrides[sizeof ((Target *)0)->sched];   /* the target's own, before --sched */
} GemmRun;

static SnTensorDesc matrix(const char *name, Dtype d, int64_t rows, int64_t cols) {
    return (SnTensorDesc){ .name = name, .dtype = (uint8_t)d, .rank = 2, .dim = { rows, cols } };
}

static void make_program(GemmRun *r, const Shape *s, const Tile *t, const Kernel *k, const char *symbol, size_t code_bytes) {
    static const int32_t args[3] = { 0, 1, 2 };
    SnTensorDesc d[3] = { s->ta ? matrix("a", r->dtype, s->k, s->m) : matrix("a", r->dtype, s->m, s->k),
                          s->tb ? matrix("b", r->dtype, s->n, s->k) : matrix("b", r->dtype, s->k, s->n), matrix("c", SN_F32, s->m, s->n) };
    r->kernel = (SnKernelDesc){ symbol, "gemm", s->name, t->grid[0] * t->grid[1] * t->grid[2], k->scratch, t->flops, t->bytes, 3, k->threads, k->shared };
    for (int i = 0; i < 2; i++) r->storage[i] = (SnStorage){ .t = d[i], .init = INIT_UNIFORM, .a = -1, .b = 1 };
    for (int i = 0; i < 3; i++)
        r->buffer[i] = (SnBuffer){ .kind = i < 2 ? SN_BUF_STORAGE : SN_BUF_ARENA, .t = d[i], .storage = i < 2 ? i : -1,
                                   .bytes = snG_dtype_size((Dtype)d[i].dtype) * d[i].dim[0] * d[i].dim[1] };
    r->launch = (SnLaunch){ 0, 3, args };
    r->output = (SnOutput){ "c", 2 };
    int64_t bytes = (r->buffer[2].bytes + 63) & ~(int64_t)63;
    r->plan = (SnGraphPlan){ "gemm", 3, 1, 1, r->buffer, &r->launch, &r->output, bytes, bytes };
    r->p = (SnProgram){ .target = r->target.name, .nkernels = 1, .nstorage = 2, .ngraphs = 1, .kernels = &r->kernel, .storage = r->storage,
                        .graphs = &r->plan, .code = r->so, .code_bytes = code_bytes };
}

/* A matrix as doubles; malloc'ed. */
static double *read_matrix(const GemmRun *r, sn_session *ss, int i) {
    const SnBuffer *b = &r->buffer[i];
    int64_t n = b->t.dim[0] * b->t.dim[1];
    void *raw = malloc((size_t)b->bytes);
    double *v = malloc(sizeof *v * (size_t)n);
    bool ok = raw && v && !sn_read(ss, "gemm", b->t.name, raw, (size_t)b->bytes);
    if (ok) snV_unpack((Dtype)b->t.dtype, raw, n, v);
    free(raw);
    if (ok) return v;
    free(v);
    return NULL;
}

/* 64 elements of c against their products in f64: the largest error over sqrt(k). */
static int check(GemmRun *r, const Shape *s, sn_session *ss) {
    double *m[3];
    bool ok = true;
    for (int i = 0; i < 3; i++) ok &= (m[i] = read_matrix(r, ss, i)) != NULL;
    r->error = 0;
    for (int64_t e = 0; e < 64 && ok; e++) {
        int64_t i = e * 7919 % s->m, j = (e * 104729 + 13) % s->n;
        double sum = 0;
        for (int64_t k = 0; k < s->k; k++)
            sum += (s->ta ? m[0][k * s->m + i] : m[0][i * s->k + k]) * (s->tb ? m[1][j * s->k + k] : m[1][k * s->n + j]);
        r->error = fmax(r->error, fabs(sum - m[2][i * s->n + j]) / sqrt((double)s->k));
    }
    for (int i = 0; i < 3; i++) free(m[i]);
    if (!ok) return cmd_fail("gemm: cannot read the result back: %s", sn_session_error(ss));
    return r->error < 1e-5 ? 0 : cmd_fail("gemm %lldx%lldx%lld gives wrong numbers: error %g", (long long)s->m, (long long)s->n, (long long)s->k, r->error);
}

static double measure_peak(const GemmRun *r) {
    return sn_measure_device(r->device, r->dtype == SN_BF16 ? SN_PEAK_BF16 : SN_PEAK_F32, (int)r->o->threads);
}

/* The kernel's own time: on a card a run also costs a start and a wait. */
static int run_once(sn_session *ss, double *best) {
    sn_kernel_time t;
    sn_profile_reset(ss);
    if (sn_run(ss, "gemm") || sn_profile(ss, "gemm", &t, 1) != 1) return cmd_fail("%s", sn_session_error(ss));
    *best = fmin(*best, t.seconds);
    return 0;
}

/* Best time of --steps runs, else of at least 5 and two seconds, between two measurements of the peak. */
static int time_shape(GemmRun *r, const Shape *s) {
    int threads = (int)r->o->threads, rc = 0;
    sn_session *ss = sn_session_new(&r->p, &(sn_session_desc){ .device = r->device, .seed = 1, .threads = threads, .profile = true });
    if (!ss) return cmd_fail("%s", sn_rt_error());
    rc = sn_run(ss, "gemm") ? cmd_fail("%s", sn_session_error(ss)) : check(r, s, ss);
    double before = measure_peak(r), best = INFINITY, start = snU_now();
    int64_t steps = r->o->steps;
    for (int i = 0; !rc && (steps > 0 ? i < steps : i < 5 || snU_now() - start < 2); i++) rc = run_once(ss, &best);
    double after = measure_peak(r);
    r->peak = fmax(before, after);
    r->ms = best * 1e3;
    r->gflops = r->kernel.flops / best * 1e-9;
    sn_session_free(ss);
    return rc;
}

/* sched: what --sched says for this run, NULL = nothing. */
static int bench_shape(GemmRun *r, const Shape *s, const char *sched) {
    SN_ENTER(r->c, return model_error(r->c));
    memcpy(r->target.sched, r->overrides, sizeof r->overrides);
    if (sched) snK_sched_override(r->c, &r->target, sched);
    r->sched = snK_sched_gemm(&r->target, 1, s->m, s->n, s->k, s->ta, s->tb, r->dtype);
    if (r->sched.bm < 1 || r->sched.bn < 1 || r->sched.kc < 1) snU_fail(r->c, SN_USAGE, 0, "--sched: bm, bn and kc of '%s' are at least 1", sched);
    GemmShape gs = { 1, s->m, s->n, s->k, s->ta, s->tb, r->dtype, SN_F32 };
    Tile *t = snT_gemm_plain(r->c, &r->arena, &gs, &r->target);
    Kernel *k = snK_lower(r->c, &r->arena, t, &r->target);
    const Kernel *all[1] = { k };
    const char *symbol[1];
    size_t bytes = 0;
    snK_compile(r->c, all, 1, &r->target, 0, &r->so, &bytes, symbol, &r->arena);
    make_program(r, s, t, k, symbol[0], bytes);
    SN_LEAVE(r->c);
    int rc = time_shape(r, s);
    free(r->so);
    r->so = NULL;
    return rc;
}

static void print_shape(const GemmRun *r, const Shape *s) {
    if (r->o->json) {
        bench_row(json_pack("{s:s s:s s:I s:I s:I s:b s:b s:s s:s s:s s:f s:f s:f s:f s:i s:i s:i}", "kind", "gemm", "name", s->name, "m", (json_int_t)s->m, "n",
                            (json_int_t)s->n, "k", (json_int_t)s->k, "ta", s->ta, "tb", s->tb, "dir", s->dir, "dtype", snG_dtype_name(r->dtype), "target", r->target.name, "ms", r->ms, "gflops",
                            r->gflops, "peak_gflops", r->peak, "ratio", r->gflops / r->peak, "bm", r->sched.bm, "bn", r->sched.bn, "kc", r->sched.kc));
        return;
    }
    printf("%-14s %6lld %6lld %6lld  %-5s %10.3f %9.1f %9.1f %7.3f  %d x %d, %d\n", s->name, (long long)s->m, (long long)s->n, (long long)s->k,
           s->ta ? "a^T" : s->tb ? "b^T" : "", r->ms, r->gflops, r->peak, r->gflops / r->peak, r->sched.bm, r->sched.bn, r->sched.kc);
    fflush(stdout);
}

/* The shape by the model's schedule, or by each of --sched; of several, the fastest as a row for sched.tab. */
static int bench_schedules(GemmRun *r, const Shape *s) {
    const char *next = r->o->sched;
    GemmSched best = { 0 };
    double ms = INFINITY;
    int tried = 0;
    do {
        char one[sizeof r->overrides];
        size_t n = next ? strcspn(next, "/") : 0;
        if (n >= sizeof one) return cmd_fail("--sched: one schedule is at most %zu characters", sizeof one - 1);
        if (next) memcpy(one, next, n), one[n] = 0;
        int rc = bench_shape(r, s, next ? one : NULL);
        if (rc) return rc;
        print_shape(r, s);
        if (r->ms < ms) ms = r->ms, best = r->sched;
        next = next && next[n] ? next + n + 1 : NULL;
        tried++;
    } while (next);
    if (tried > 1 && !r->o->json)
        printf("gemm v%d %lldx%lldx%lld bm=%d bn=%d kc=%d\n", r->target.f32_lanes, (long long)s->m, (long long)s->n, (long long)s->k, best.bm, best.bn, best.kc);
    return 0;
}

/* "MxNxK[ta|tb],..." */
static int parse_shapes(const char *text, Shape **out, int *n) {
    *out = NULL;
    *n = 0;
    while (*text) {
        long long m, nn, k;
        int used = 0;
        if (sscanf(text, "%lldx%lldx%lld%n", &m, &nn, &k, &used) != 3 || m < 1 || nn < 1 || k < 1 || m > 1 << 20 || nn > 1 << 20 || k > 1 << 20)
            return cmd_fail("--shapes wants MxNxK[ta|tb],... with sizes up to %d, not '%s'", 1 << 20, text);
        Shape s = { m, nn, k, false, false, "gemm", "fwd" };
        text += used;
        if (!strncmp(text, "ta", 2)) s.ta = true, text += 2;
        if (!strncmp(text, "tb", 2)) s.tb = true, text += 2;
        if (*text && *text != ',') return cmd_fail("--shapes: '%s' is not ta, tb or a comma", text);
        text += *text == ',';
        *out = realloc(*out, sizeof **out * (size_t)(*n + 1));
        (*out)[(*n)++] = s;
    }
    return 0;
}

int bench_gemm(const BenchOptions *o) {
    GemmRun r = { .o = o, .c = sn_ctx_new(), .dtype = o->dtype && !strcmp(o->dtype, "bf16") ? SN_BF16 : SN_F32 };
    Shape *given = NULL;
    int n = sizeof DEFAULT_SHAPES / sizeof *DEFAULT_SHAPES, rc = o->shapes ? parse_shapes(o->shapes, &given, &n) : 0;
    char target[64];
    if (!rc) rc = lab_target(o->device, o->target, target, r.device);
    SN_ENTER(r.c, { rc = model_error(r.c); goto end; });
    if (!rc) snK_target(r.c, target, &r.target), snK_ask_tf32(&r.target, o->passes.autocast), memcpy(r.overrides, r.target.sched, sizeof r.overrides);
    SN_LEAVE(r.c);
    if (!rc && !o->json)
        printf("%s on %s; best of the runs; peak: %s in registers, the larger of before and after\n%-14s %6s %6s %6s  %-5s %10s %9s %9s %7s  %s\n",
               snG_dtype_name(r.dtype), r.target.name,
               r.dtype == SN_BF16 && r.target.sm ? "bf16 on tensor cores" : r.dtype == SN_BF16 && r.target.bf16_dot ? "products of bf16 pairs" : "FMAs", "name", "m", "n", "k", "", "ms", "GFLOP/s", "peak", "ratio", "tile, K step");
    for (int i = 0; i < n && !rc; i++) {
        const Shape *s = given ? &given[i] : &DEFAULT_SHAPES[i];
        rc = bench_schedules(&r, s);
    }
end:
    free(given);
    snU_free_arena(&r.arena);
    sn_ctx_free(r.c);
    return rc;
}
