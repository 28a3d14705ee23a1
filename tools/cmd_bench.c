/* cmd_bench.c: `sinter bench M.sn`: tokens/s of the training step, and where the time goes, kernel by kernel.

   In:  a model. Out: the median step of several, rows of kernels with their share of the roofline min(FMA peak, bytes at the
   measured bandwidth), and with --compare the same with one kernel per primitive. */
#include "tools/bench.h"

#include <ctype.h>
#include <math.h>

enum { MAX_STEPS = 4096 };

typedef struct KernelRow { char name[64]; const char *family; double seconds, flops, bytes; int64_t launches; } KernelRow;

typedef struct StepBench {
    const BenchOptions *o;
    const char *fuse;
    Lab lab;
    const SnGraphPlan *g;
    Batch b;
    double median, peak, bandwidth, flops;
    KernelRow *row;
    int nrows;
} StepBench;

void bench_row(json_t *row) {
    char *text = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(6) | JSON_PRESERVE_ORDER);
    puts(text);
    fflush(stdout);
    free(text);
    json_decref(row);
}

/* -- Measuring -------------------------------------------------------------------------------------------------------- */

static int feed_random(StepBench *b) {
    int64_t n = b->b.rows * b->b.window, vocab = b->lab.vocab > 2 ? b->lab.vocab : 256;
    int32_t *tokens = calloc((size_t)n, sizeof *tokens), *sample = calloc((size_t)b->b.rows, sizeof *sample);
    uint32_t x = 12345;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        tokens[i] = (int32_t)((x >> 8) % (uint32_t)(vocab - 1));
    }
    for (int64_t i = 0; i < b->b.rows; i++) sample[i] = (int32_t)i;
    int rc = lab_feed(&b->lab, b->g, tokens, sample);
    free(tokens);
    free(sample);
    return rc;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Three steps to warm up, then --steps of them, or as many as fit into 4 seconds, 9 at least. */
static int time_steps(StepBench *b) {
    sn_session *s = b->lab.s;
    double t[MAX_STEPS], start = 0;
    int n = 0, want = (int)b->o->steps;
    for (int i = 0; i < MAX_STEPS; i++) {
        if (i == 3) sn_profile_reset(s), start = snU_now();
        if (want ? n >= want : n >= 9 && snU_now() - start > 4) break;
        double t0 = snU_now();
        sn_set(s, "step", i + 1);
        sn_step(s, (uint32_t)i + 1, 0);
        if (sn_run(s, b->g->name)) return lab_error(&b->lab);
        if (i >= 3) t[n++] = snU_now() - t0;
    }
    qsort(t, (size_t)n, sizeof *t, by_value);
    b->median = t[n / 2];
    return 0;
}

/* -- Kernels, the layers of a model taken together -------------------------------------------------------------------- */

static void layerless(char out[64], const char *name) {
    size_t n = 0;
    for (const char *p = name; *p && n < 63; ) {
        bool number = isdigit((unsigned char)*p) && p > name && p[-1] == '.' && p[strspn(p, "0123456789")] == '.';
        if (number) out[n++] = '*', p += strspn(p, "0123456789");
        else out[n++] = *p++;
    }
    out[n] = 0;
}

static int by_time(const void *a, const void *b) {
    double x = ((const KernelRow *)a)->seconds, y = ((const KernelRow *)b)->seconds;
    return (x < y) - (x > y);
}

static int collect_kernels(StepBench *b) {
    int n = b->g->nlaunches;
    sn_kernel_time *k = calloc((size_t)n + 1, sizeof *k);
    b->row = calloc((size_t)n + 1, sizeof *b->row);
    if (sn_profile(b->lab.s, b->g->name, k, n) < 0) return lab_error(&b->lab);
    for (int i = 0; i < n; i++) {
        char name[64];
        int r = 0;
        layerless(name, k[i].name);
        while (r < b->nrows && (strcmp(b->row[r].name, name) || strcmp(b->row[r].family, k[i].family))) r++;
        if (r == b->nrows) memcpy(b->row[b->nrows++].name, name, sizeof name), b->row[r].family = k[i].family;
        b->row[r].seconds += k[i].seconds / (double)k[i].launches;
        b->row[r].flops += k[i].flops / (double)k[i].launches;
        b->row[r].bytes += k[i].bytes / (double)k[i].launches;
        b->row[r].launches++;
    }
    qsort(b->row, (size_t)b->nrows, sizeof *b->row, by_time);
    free(k);
    return 0;
}

static double roofline(const StepBench *b, const KernelRow *k) {
    double least = fmax(k->flops / (b->peak * 1e9), k->bytes / (b->bandwidth * 1e9));
    return k->seconds > 0 ? least / k->seconds : 0;
}

/* -- Reporting -------------------------------------------------------------------------------------------------------- */

static void print_compile(const StepBench *b) {
    const BuildStats *s = &b->lab.stats;
    double plan = b->lab.load_s + s->passes_s + s->plan_s;
    if (b->o->json)
        bench_row(json_pack("{s:s s:s s:s s:I s:I s:I s:f s:f s:f s:f s:f s:f}", "kind", "compile", "name", b->o->file, "fuse", b->fuse, "nodes",
                            (json_int_t)s->nodes, "groups", (json_int_t)s->groups, "kernels", (json_int_t)s->unique_kernels, "load_ms", b->lab.load_s * 1e3,
                            "passes_ms", s->passes_s * 1e3, "plan_ms", s->plan_s * 1e3, "text_to_plan_ms", plan * 1e3, "lower_ms", s->lower_s * 1e3,
                            "compile_ms", s->compile_s * 1e3));
    else
        printf("all graphs of the file: %d nodes, %d groups, %d kernels; text to plan %.1f ms (load %.1f, passes %.1f, plan %.1f), lower %.0f ms, compile %.0f ms\n",
               s->nodes, s->groups, s->unique_kernels, plan * 1e3, b->lab.load_s * 1e3, s->passes_s * 1e3, s->plan_s * 1e3, s->lower_s * 1e3,
               s->compile_s * 1e3);
}

static void print_json(const StepBench *b) {
    double tokens = (double)(b->b.rows * b->b.window), gflops = b->flops / b->median * 1e-9;
    bench_row(json_pack("{s:s s:s s:s s:s s:I s:I s:I s:I s:f s:f s:f s:f s:f s:I s:I}", "kind", "step", "name", b->o->file, "fuse", b->fuse, "dtype",
                        "f32", "weights", (json_int_t)b->lab.params, "batch", (json_int_t)b->b.rows, "window", (json_int_t)b->b.window,
                        "launches", (json_int_t)b->g->nlaunches, "ms", b->median * 1e3, "tokens_per_s", tokens / b->median, "gflops", gflops,
                        "peak_gflops", b->peak, "ratio", gflops / b->peak, "peak_bytes", (json_int_t)b->g->arena_bytes, "threads",
                        (json_int_t)b->o->threads));
    for (int i = 0; i < b->nrows && i < b->o->top; i++) {
        const KernelRow *k = &b->row[i];
        bench_row(json_pack("{s:s s:s s:s s:s s:I s:f s:f s:f s:f s:f s:f}", "kind", "kernel", "name", k->name, "family", k->family, "fuse", b->fuse,
                            "launches", (json_int_t)k->launches, "ms", k->seconds * 1e3, "share", k->seconds / b->median, "gflops",
                            k->flops / k->seconds * 1e-9, "gbs", k->bytes / k->seconds * 1e-9, "peak_gflops", b->peak, "ratio", roofline(b, k)));
    }
}

static void print_table(const StepBench *b) {
    double tokens = (double)(b->b.rows * b->b.window), gflops = b->flops / b->median * 1e-9, sum = 0;
    printf("%s, fuse %s: %.2f ms a step, %.0f tokens/s, %.1f GFLOP/s = %.2f of the FMA peak %.1f; %d launches, arena %.1f MB\n", b->o->file,
           b->fuse, b->median * 1e3, tokens / b->median, gflops, gflops / b->peak, b->peak, b->g->nlaunches, (double)b->g->arena_bytes * 1e-6);
    printf("%-44s %-8s %5s %9s %7s %9s %8s %9s\n", "kernel", "family", "uses", "ms", "share", "GFLOP/s", "GB/s", "roofline");
    for (int i = 0; i < b->nrows; i++) {
        const KernelRow *k = &b->row[i];
        sum += k->seconds;
        if (i < b->o->top)
            printf("%-44s %-8s %5lld %9.3f %6.1f%% %9.1f %8.1f %9.2f\n", k->name, k->family, (long long)k->launches, k->seconds * 1e3,
                   100 * k->seconds / b->median, k->flops / k->seconds * 1e-9, k->bytes / k->seconds * 1e-9, roofline(b, k));
    }
    printf("%-44s %-8s %5d %9.3f %6.1f%%\n", "all kernels", "", b->g->nlaunches, sum * 1e3, 100 * sum / b->median);
}

static int bench_step(StepBench *b, Settings *set) {
    LabOptions lo = { .file = b->o->file, .fuse = b->fuse, .passes = b->o->passes, .defines = &b->o->defines, .train = true, .profile = true, .seed = 1,
                      .threads = (int)b->o->threads };
    sn_device_info d;
    int rc = lab_open(&b->lab, &lo);
    if (rc) return rc;
    b->g = lab_graph(&b->lab, "train");
    if (!b->g) return cmd_fail("%s has no graph `train`", b->o->file);
    rc = lab_batch(b->g, &b->b);
    if (!rc) rc = feed_random(b);
    for (int i = 0; i < set->n && !rc; i++)
        if (sn_set(b->lab.s, set->v[i].name, set->v[i].value)) rc = lab_error(&b->lab);
    sn_devices(&d, 1, true);
    double before = sn_measure_fma_peak((int)b->o->threads);
    if (!rc) rc = time_steps(b);
    b->peak = fmax(before, sn_measure_fma_peak((int)b->o->threads));
    b->bandwidth = d.bandwidth_gbs;
    b->flops = lab_flops(&b->lab, b->g);
    if (!rc) rc = collect_kernels(b);
    if (!rc) print_compile(b);
    if (!rc && b->o->json) print_json(b);
    if (!rc && !b->o->json) print_table(b);
    return rc;
}

static int bench_model(const BenchOptions *o, Settings *set) {
    const char *first = o->fuse ? o->fuse : "all";
    StepBench a = { .o = o, .fuse = first }, none = { .o = o, .fuse = "none" };
    int rc = bench_step(&a, set);
    if (!rc && o->compare) rc = bench_step(&none, set);
    if (!rc && o->compare && o->json)
        bench_row(json_pack("{s:s s:s s:f s:f s:f}", "kind", "fused", "name", o->file, "ms", a.median * 1e3, "unfused_ms", none.median * 1e3,
                            "speedup", none.median / a.median));
    if (!rc && o->compare && !o->json)
        printf("fused against unfused: %.2f ms against %.2f ms, %.2fx\n", a.median * 1e3, none.median * 1e3, none.median / a.median);
    lab_close(&a.lab);
    lab_close(&none.lab);
    free(a.row);
    free(none.row);
    return rc;
}

int cmd_bench(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    Settings set;
    const char *target = "host";
    bool profile = false;
    BenchOptions o = { .top = 24 };
    const Opt opts[] = {
        { "target", 't', OPT_TEXT, &target, "T", "host" },
        { "json", 0, OPT_FLAG, &o.json, "", "one JSON object a line" },
        { "define", 'D', OPT_LIST, &o.defines, "K=V", "a param or dim of the file" },
        { "set", 0, OPT_LIST, &o.sets, "K=V", "a scalar input" },
        { "fuse", 0, OPT_TEXT, &o.fuse, "LIST", cmd_fuse_doc() },
        PASS_OPTIONS(&o.passes),
        { "compare", 0, OPT_FLAG, &o.compare, "", "also unfused, and the ratio" },
        { "shapes", 0, OPT_TEXT, &o.shapes, "LIST", "gemm: MxNxK[ta|tb],... (default: squares, a 124M model)" },
        { "dtype", 0, OPT_TEXT, &o.dtype, "f32|bf16", "gemm: of the operands; sums and result are f32" },
        { "steps", 0, OPT_INT, &o.steps, "N", "steps to time (default: 4 seconds, 9 at least)" },
        { "profile", 0, OPT_FLAG, &profile, "", "every kernel, not only the slowest" },
        { "threads", 0, OPT_INT, &o.threads, "N", "0 = all cores" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_settings(self, &o.sets, &set);
    if (rc < 0) rc = cmd_pass_options(self, &o.passes);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one model file, or gemm");
    if (strcmp(target, "host")) return cmd_usage(self, "the only target so far is host, not '%s'", target);
    if ((rc = cmd_fuse(self, o.fuse)) >= 0) return rc;
    if (o.dtype && strcmp(o.dtype, "f32") && strcmp(o.dtype, "bf16")) return cmd_usage(self, "--dtype is f32 or bf16, not '%s'", o.dtype);
    if (o.steps > MAX_STEPS - 3) return cmd_usage(self, "--steps is at most %d", MAX_STEPS - 3);
    if (profile) o.top = INT32_MAX;
    o.file = pos.v[0];
    return !strcmp(o.file, "gemm") ? bench_gemm(&o) : bench_model(&o, &set);
}
