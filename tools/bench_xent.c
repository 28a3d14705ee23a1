/* bench_xent.c: `sinter bench xent`: the vocabulary projection and its cross entropy, forward and backward, fused against unfused.

   In:  shapes N x D x V, each with the share of rows that carry weight. Out: time of both sides, GFLOP/s (three products over the rows
   that carry weight) against the FMA peak of the same run, and the arena: what the logits cost. */
#include "tools/bench.h"

#include <math.h>

static const char TEXT[] =
    "dim N = %lld\ndim D = %lld\ndim V = %lld\n"
    "graph g {\n"
    "  weight x: f32[N, D] = normal(1)\n"
    "  weight head: f32[D, V] = normal(0.02)\n"
    "  input targets: i32[N]\n"
    "  input weight: f32[N]\n"
    "  output loss = sum(select(weight > 0, xent(x @ head, targets), 0) * weight)\n"
    "}\n";

static void report(const BenchOptions *o, const Case *c, const int64_t d[3], const CaseTime *t) {
    double flops = 6.0 * (double)d[0] * (double)d[1] * (double)d[2] * c->share, gflops = flops / t->seconds[0] * 1e-9;
    if (o->json)
        bench_row(json_pack("{s:s s:s s:s s:I s:I s:I s:f s:s s:f s:f s:f s:f s:f s:f s:I s:I}", "kind", "xent", "name", c->name, "dir", "fwd+bwd",
                            "m", (json_int_t)d[0], "n", (json_int_t)d[2], "k", (json_int_t)d[1], "rows", c->share, "dtype", bench_dtype(o), "ms",
                            t->seconds[0] * 1e3, "gflops", gflops, "peak_gflops", t->peak, "ratio", gflops / t->peak, "unfused_ms",
                            t->seconds[1] * 1e3, "speedup", t->seconds[1] / t->seconds[0], "peak_bytes", (json_int_t)t->arena[0],
                            "unfused_peak_bytes", (json_int_t)t->arena[1]));
    else
        printf("%6lld %6lld %7lld %6.2f %10.2f %9.1f %7.2f %12.2f %8.2f %10.1f %10.1f\n", (long long)d[0], (long long)d[1], (long long)d[2], c->share,
               t->seconds[0] * 1e3, gflops, gflops / t->peak, t->seconds[1] * 1e3, t->seconds[1] / t->seconds[0], (double)t->arena[0] * 1e-6,
               (double)t->arena[1] * 1e-6);
    fflush(stdout);
}

int bench_xent(const BenchOptions *o) {
    const char *list = o->shapes ? o->shapes : "1024x768x50304,1024x768x50304@0.5,1024x768x50304@0.15,64x768x50304,2048x192x257";
    char item[96];
    if (!o->json)
        printf("%6s %6s %7s %6s %10s %9s %7s %12s %8s %10s %10s\n", "N", "D", "V", "rows", "ms", "GFLOP/s", "ratio", "unfused, ms", "speedup",
               "arena, MB", "unfused");
    while (next_item(&list, item, sizeof item)) {
        long long n, d, v;
        int used = 0, more = 0;
        double share = 1;
        bool ok = sscanf(item, "%lldx%lldx%lld%n", &n, &d, &v, &used) == 3;
        if (ok && item[used] == '@') ok = sscanf(item + used, "@%lf%n", &share, &more) == 1;
        if (!ok || item[used + more] || n < 1 || d < 1 || v < 1 || share <= 0 || share > 1 || n * v > (int64_t)1 << 31)
            return cmd_fail("bench xent: --shapes wants NxDxV or NxDxV@SHARE,..., not '%s'", item);
        char *text = text_fmt(TEXT, n, d, v);
        Case c = { .name = "linear_xent", .text = text, .grad = true, .vocab = v, .share = share };
        CaseTime t;
        int rc = case_run(o, &c, &t);
        if (!rc) report(o, &c, (int64_t[]){ n, d, v }, &t);
        free(text);
        if (rc) return rc;
    }
    return 0;
}
