/* bench_rows.c: `sinter bench rows`: row kernels against the memory bandwidth of the same run, and against one kernel per primitive.

   In:  a list of shapes. Out: per kernel, direction and shape: time, GB/s (what has to be read and written, each once), the
   ratio to the bandwidth (above 1 what is read comes from a cache), launches, and the speedup over the unfused side. */
#include "tools/bench.h"

#include <math.h>

/* R, C: the shape; dy: the gradient of the result, [R, C], of the cross entropy [R, 1]. */
static const struct { const char *name, *leaves, *fwd, *bwd; } KERNELS[] = {
    { "softmax", "weight x: f32[R, C] = normal(1)\n",
      "output y = softmax(x)\n",
      "y = softmax(x)\noutput dx = y * (dy - sum(dy * y, -1))\n" },
    { "rmsnorm", "weight x: f32[R, C] = normal(1)\nweight gain: f32[C] = ones()\n",
      "output y = rmsnorm(x, gain)\n",
      "output dx = rmsnorm_grad(dy, x, gain, 1e-6) as _\noutput dgain = sum_to(dy * (x * rms_scale(x, 1e-6) as _), gain)\n" },
    { "layernorm", "weight x: f32[R, C] = normal(1)\nweight gain: f32[C] = ones()\nweight bias: f32[C] = normal(1)\n",
      "output y = layernorm(x, gain, bias)\n",
      "output dx = layernorm_grad(dy, x, gain, 1e-5) as _\noutput dgain = sum_to(dy * standard(x, 1e-5) as _, gain)\n"
      "output dbias = sum_to(dy, bias)\n" },
    { "swiglu", "weight a: f32[R, C] = normal(1)\nweight b: f32[R, C] = normal(1)\n",
      "output y = swiglu(a, b)\n",
      "output da = dy * b * silu_slope(a) as _\noutput db = dy * silu(a)\n" },
    { "residual+dropout", "weight x: f32[R, C] = normal(1)\nweight r: f32[R, C] = normal(1)\ninput p: f32[] = 0.1\n",
      "output y = x + dropout(r, p)\n",
      "output dr = select(random([R, C]) < p, 0, dy / (1 - p))\n" },
    { "xent", "weight x: f32[R, C] = normal(1)\ninput targets: i32[R]\n",
      "output y = xent(x, targets)\n",
      "output dx = (softmax(x) - cast(iota([R, C], 1) == reshape(targets, [R, 1]), f32)) * dy\n" },
    { "adamw", "weight w: f32[R, C] = normal(1)\nstate m: f32[R, C] = zeros()\nstate v: f32[R, C] = zeros()\ninput g: f32[R, C]\n",
      "m2 = adamw_m(m, g, 0.9) as _\nv2 = adamw_v(v, g, 0.95) as _\nupdate m = m2\nupdate v = v2\n"
      "update w = adamw_w(w, m2, v2, 0.001, 1.0, 0.9999, 1e-8) as _\n", NULL },
};

static void report(const BenchOptions *o, const Case *c, const char *dir, int64_t r, int64_t cols, const CaseTime *t) {
    double gbs = t->bytes / t->seconds[0] * 1e-9, speedup = t->seconds[1] / t->seconds[0];
    if (o->json)
        bench_row(json_pack("{s:s s:s s:s s:I s:I s:s s:f s:f s:f s:f s:i s:f s:f}", "kind", "rows", "name", c->name, "dir", dir, "m",
                            (json_int_t)r, "n", (json_int_t)cols, "dtype", bench_dtype(o), "ms", t->seconds[0] * 1e3, "gbs", gbs, "peak_gbs",
                            t->bandwidth, "ratio", gbs / t->bandwidth, "launches", t->launches[0], "unfused_ms", t->seconds[1] * 1e3, "speedup",
                            speedup));
    else
        printf("%-18s %-4s %7lld %7lld %9.3f %8.1f %8.1f %7.2f %5d %11.3f %8.2f\n", c->name, dir, (long long)r, (long long)cols,
               t->seconds[0] * 1e3, gbs, t->bandwidth, gbs / t->bandwidth, t->launches[0], t->seconds[1] * 1e3, speedup);
    fflush(stdout);
}

static int bench_kernel(const BenchOptions *o, int k, int64_t r, int64_t cols) {
    static const char *const dirs[2] = { "fwd", "bwd" };
    for (int i = 0; i < 2; i++) {
        const char *body = i ? KERNELS[k].bwd : KERNELS[k].fwd;
        if (!body || !case_dir(o, dirs[i])) continue;
        const char *dy = !i ? "" : strstr(KERNELS[k].leaves, "targets") ? "input dy: f32[R, 1]\n" : "input dy: f32[R, C]\n";
        char *text = text_fmt("dim R = %lld\ndim C = %lld\ngraph g {\n%s%s%s}\n", (long long)r, (long long)cols, KERNELS[k].leaves, dy, body);
        Case c = { .name = KERNELS[k].name, .text = text, .vocab = cols };
        CaseTime t;
        int rc = case_run(o, &c, &t);
        if (!rc) report(o, &c, dirs[i], r, cols, &t);
        free(text);
        if (rc) return rc;
    }
    return 0;
}

int bench_rows(const BenchOptions *o) {
    const char *list = o->shapes ? o->shapes : "2048x768,16384x768";
    char item[64];
    if (!o->json)
        printf("%-18s %-4s %7s %7s %9s %8s %8s %7s %5s %11s %8s\n", "kernel", "dir", "rows", "cols", "ms", "GB/s", "of", "ratio", "uses", "unfused, ms",
               "speedup");
    while (next_item(&list, item, sizeof item)) {
        long long r, cols;
        int used = 0;
        if (sscanf(item, "%lldx%lld%n", &r, &cols, &used) != 2 || item[used] || r < 1 || cols < 1 || r * cols > (int64_t)1 << 31)
            return cmd_fail("bench rows: --shapes wants ROWSxCOLS,..., not '%s'", item);
        for (size_t k = 0; k < sizeof KERNELS / sizeof *KERNELS; k++) {
            int rc = bench_kernel(o, (int)k, r, cols);
            if (rc) return rc;
        }
    }
    return 0;
}
