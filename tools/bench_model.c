/* bench_model.c: `sinter bench M.sn`: the training step, fused against unfused.

   In:  a model with a graph `train`. Out: for each side the best step of several, tokens/s, share of the FMA peak, launches and
   memory; per fused kernel its time, share of the roofline, and the time of the unfused kernels it replaces; with --fuse each, what
   the step costs without each fusion. Both sides run in turn, and their loss, gradients (the moments of the optimizer) and
   updated weights are compared first. */
#include "passes/pass.h"
#include "tools/bench.h"

#include <math.h>

static void print_head(const BenchOptions *o, const Pair *p) {
    bool pairs = o->passes.autocast && !strcmp(o->passes.autocast, "bf16");
    if (!o->json) printf("%s: %s peak %.1f GFLOP/s, bandwidth %.1f GB/s, both measured in this run; best of all runs\n", o->file, pairs ? "bf16" : "FMA", p->peak, p->bandwidth);
}

/* -- Feeding ----------------------------------------------------------------------------------------------------------- */

static int feed_random(Lab *lab, const SnGraphPlan *g, void *user) {
    Batch b = {0};
    (void)user;
    int rc = lab_batch(g, &b);
    if (rc) return rc;
    int64_t n = b.rows * b.window, vocab = lab->vocab > 2 ? lab->vocab : 256;
    TextRows r = {0};
    if ((rc = rows_new(&r, b))) return rc;
    uint32_t x = 12345;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        r.tokens[i] = (int32_t)((x >> 8) % (uint32_t)(vocab - 1));
    }
    for (int64_t i = 0; i < b.rows; i++) r.sample[i] = (int32_t)i;
    rc = lab_feed(lab, g, &r);
    rows_free(&r);
    return rc;
}

/* -- Reporting --------------------------------------------------------------------------------------------------------- */

static void report_compile(const BenchOptions *o, const Side *side) {
    const BuildStats *s = &side->lab.stats;
    double plan = side->lab.load_s + s->passes_s + s->plan_s;
    if (o->json)
        bench_row(json_pack("{s:s s:s s:s s:I s:I s:I s:f s:f s:f s:f s:f s:f s:f}", "kind", "compile", "name", o->file, "fuse",
                            side->fuse, "nodes", (json_int_t)s->nodes, "groups", (json_int_t)s->groups, "kernels", (json_int_t)s->unique_kernels,
                            "load_ms", side->lab.load_s * 1e3, "passes_ms", s->passes_s * 1e3, "plan_ms", s->plan_s * 1e3,
                            "text_to_plan_ms", plan * 1e3, "train_text_to_plan_ms", (side->lab.load_s + s->train_s) * 1e3, "lower_ms", s->lower_s * 1e3, "compile_ms", s->compile_s * 1e3));
    else
        printf("fuse %s, all graphs of the file: %d nodes, %d groups, %d kernels; text to plan %.1f ms (load %.1f, passes %.1f, plan %.1f; "
               "train alone, with load, %.1f), lower %.0f ms, compile %.0f ms\n", side->fuse, s->nodes, s->groups, s->unique_kernels,
               plan * 1e3, side->lab.load_s * 1e3, s->passes_s * 1e3, s->plan_s * 1e3, (side->lab.load_s + s->train_s) * 1e3,
               s->lower_s * 1e3, s->compile_s * 1e3);
}

/* The arena over the largest set of values alive at once, its lower bound. */
static double plan_ratio(const SnGraphPlan *g) { return g->live_peak ? (double)g->arena_bytes / (double)g->live_peak : 1; }

static void report_step(const BenchOptions *o, const Pair *p, int i, double speedup) {
    const Side *s = &p->side[i];
    Batch b = {0};
    Memory m = side_memory(s);
    lab_batch(s->g, &b);
    double tokens = (double)(b.rows * b.window), gflops = lab_flops(&s->lab, s->g) / s->step * 1e-9;
    if (o->json) {
        json_t *row = json_pack("{s:s s:s s:s s:s s:I s:I s:I s:I s:f s:f s:f s:f s:f s:f s:I s:I s:I s:I s:I s:f}", "kind", "step", "name", o->file,
                                "fuse", s->fuse, "dtype", bench_dtype(o), "weights", (json_int_t)s->lab.params, "batch", (json_int_t)b.rows, "window",
                                (json_int_t)b.window, "launches", (json_int_t)s->g->nlaunches, "ms", s->step * 1e3, "tokens_per_s",
                                tokens / s->step, "gflops", gflops, "peak_gflops", p->peak, "peak_gbs", p->bandwidth, "ratio", gflops / p->peak,
                                "peak_bytes", (json_int_t)(m.arena + m.storage), "arena_bytes", (json_int_t)m.arena, "activation_bytes",
                                (json_int_t)m.activations, "threads", (json_int_t)o->threads, "live_bytes", (json_int_t)s->g->live_peak,
                                "plan_ratio", plan_ratio(s->g));
        if (speedup > 0) {
            json_object_set_new(row, "speedup", json_real(speedup));
            json_object_set_new(row, "compared", json_integer(p->compared));
            json_object_set_new(row, "nearness", json_real(p->nearness));
        }
        bench_row(row);
        return;
    }
    printf("fuse %-12s %9.2f ms a step %9.0f tokens/s %8.1f GFLOP/s = %.2f of peak, %5d launches; MB: activations %.1f, with gradients %.1f, "
           "with weights and moments %.1f; arena %.1f, %.3f of the largest live set\n", s->fuse, s->step * 1e3, tokens / s->step, gflops, gflops / p->peak, s->g->nlaunches,
           (double)m.activations * 1e-6, (double)m.arena * 1e-6, (double)(m.arena + m.storage) * 1e-6,
           (double)s->g->arena_bytes * 1e-6, plan_ratio(s->g));
}

static double share(const Pair *p, const KernelRow *k) { return k->seconds > 0 ? pair_roofline(p, k->flops, k->bytes) / k->seconds : 0; }

static void report_rows_json(const BenchOptions *o, const Pair *p, int side) {
    KernelRows rows = side_rows(p, side);
    for (int i = 0; i < rows.n && i < o->top; i++) {
        const KernelRow *k = &rows.v[i];
        double s = k->seconds > 0 ? k->seconds : INFINITY;
        json_t *row = json_pack("{s:s s:s s:s s:s s:s s:i s:i s:f s:f s:f s:f s:f s:f s:f s:f s:f}", "kind", "kernel", "name", k->name,
                                "family", k->family, "dir", k->dir, "fuse", p->side[side].fuse, "uses", k->kernels, "launches", k->launches,
                                "ms", k->seconds * 1e3, "share", k->seconds / p->side[side].step, "gflop", k->flops * 1e-9, "mbytes",
                                k->bytes * 1e-6, "gflops", k->flops / s * 1e-9, "gbs", k->bytes / s * 1e-9, "peak_gflops", p->peak, "peak_gbs",
                                p->bandwidth, "ratio", share(p, k));
        if (k->bound) json_object_set_new(row, "all_rows_counted", json_true());
        if (!side && p->sides == 2) {
            json_object_set_new(row, "unfused_ms", json_real(k->unfused * 1e3));
            json_object_set_new(row, "unfused_launches", json_real(k->parts));
            if (k->seconds > 0) json_object_set_new(row, "speedup", json_real(k->unfused / k->seconds));
        }
        bench_row(row);
    }
    free(rows.v);
}

static void print_row(const Pair *p, const KernelRow *k, bool regions, double step) {
    printf("%-40s %-8.8s %-5s %4d %9.3f %5.1f%% %8.3f %8.1f %s%7.2f", k->name, k->family, k->dir, k->launches, k->seconds * 1e3, 100 * k->seconds / step,
           k->flops * 1e-9, k->bytes * 1e-6, k->bound ? "<" : " ", share(p, k));
    if (regions) printf(" %6.1f %9.3f %8.2f", k->parts, k->unfused * 1e3, k->seconds > 0 ? k->unfused / k->seconds : 0);
    printf("\n");
}

static void report_rows(const BenchOptions *o, const Pair *p, int side) {
    bool regions = side == 0 && p->sides == 2;
    double step = p->side[side].step;
    if (o->json) { report_rows_json(o, p, side); return; }
    KernelRows rows = side_rows(p, side);
    KernelRow sum = { .name = "all kernels", .family = "", .dir = "" }, rest = { .name = "the others", .family = "", .dir = "" };
    printf("\n%-40s %-8s %-5s %4s %9s %6s %8s %8s %8s", p->side[side].fuse, "family", "dir", "uses", "ms", "share", "GFLOP", "MB", "roofline");
    printf(regions ? " %6s %9s %8s\n" : "\n", "for", "unfused", "speedup");
    for (int i = 0; i < rows.n; i++) {
        const KernelRow *k = &rows.v[i];
        KernelRow *to[2] = { &sum, i >= o->top ? &rest : NULL };
        for (int t = 0; t < 2 && to[t]; t++) {
            to[t]->launches += k->launches, to[t]->seconds += k->seconds, to[t]->flops += k->flops, to[t]->bytes += k->bytes;
            to[t]->unfused += k->unfused, to[t]->parts += k->parts;
        }
        if (i < o->top) print_row(p, k, regions, step);
    }
    if (rest.launches) print_row(p, &rest, regions, step);
    print_row(p, &sum, regions, step);
    free(rows.v);
}

/* -- One pair ------------------------------------------------------------------------------------------------------------ */

static int run_pair(const BenchOptions *o, Pair *p, const char *fused, const char *unfused) {
    PairOptions po = { .file = o->file, .graph = "train", .passes = o->passes, .fuse = { fused, unfused }, .defines = &o->defines, .set = &o->set,
                       .feed = feed_random, .threads = (int)o->threads, .device = o->device, .target = o->target, .sched = o->sched };
    int rc = pair_open(p, &po);
    if (!rc && p->sides == 2) rc = pair_compare(p);
    return rc ? rc : pair_time(p, o->steps, 4);
}

/* Every launch at its least, together: what a step takes that nothing disturbs. */
static double undisturbed(const Side *s) {
    double sum = 0;
    for (int i = 0; i < s->g->nlaunches; i++) sum += s->best[i];
    return sum;
}

/* The step without each fusion, against the step with all: by the kernels, for disturbances of a whole step are larger than what most
   fusions are worth. */
static int each(const BenchOptions *o) {
    int rc = 0;
    for (int i = -1; i < NFUSIONS && !rc; i++) {
        char without[64] = "none";
        Pair p = {0};
        if (i >= 0) snprintf(without, sizeof without, "-%s", snP_fusions[i].name);
        rc = run_pair(o, &p, "all", without);
        if (!rc && i < 0) print_head(o, &p);
        if (!rc && i < 0 && !o->json) printf("%-12s %10s %10s %11s %10s %8s %9s %16s\n", "without", "step, ms", "all: ms", "kernels, ms", "all: ms", "worth", "launches", "activations, MB");
        if (!rc) {
            const Side *s = &p.side[1];
            Memory m = side_memory(s);
            double kernels = undisturbed(s), all = undisturbed(&p.side[0]), worth = kernels / all;
            if (o->json)
                bench_row(json_pack("{s:s s:s s:s s:f s:f s:f s:f s:f s:i s:I}", "kind", "worth", "name", o->file, "fuse", without, "ms", s->step * 1e3,
                                    "all_ms", p.side[0].step * 1e3, "kernel_ms", kernels * 1e3, "all_kernel_ms", all * 1e3, "speedup", worth, "launches", s->g->nlaunches, "activation_bytes",
                                    (json_int_t)m.activations));
            else
                printf("%-12s %10.2f %10.2f %11.2f %10.2f %7.3fx %9d %16.1f\n", i < 0 ? "all of them" : without + 1, s->step * 1e3, p.side[0].step * 1e3,
                       kernels * 1e3, all * 1e3, worth, s->g->nlaunches, (double)m.activations * 1e-6);
            fflush(stdout);
        }
        pair_close(&p);
    }
    return rc;
}

static void report(const BenchOptions *o, const Pair *p) {
    double speedup = p->sides == 2 ? p->side[1].step / p->side[0].step : 0;
    for (int i = 0; i < p->sides; i++) report_compile(o, &p->side[i]);
    print_head(o, p);
    for (int i = 0; i < p->sides; i++) report_step(o, p, i, i ? 0 : speedup);
    if (speedup > 0 && !o->json) {
        Memory a = side_memory(&p->side[0]), b = side_memory(&p->side[1]);
        printf("%d tensors compared (loss, moments, weights): the same up to rounding, %s at %.2f of what is allowed\n", p->compared, p->worst,
               p->nearness);
        printf("fused against unfused: %.2fx, activations %.2f of the unfused\n", speedup,
               b.activations ? (double)a.activations / (double)b.activations : 1);
    }
    for (int i = 0; i < p->sides; i++) if (!i || o->json || o->top > 100) report_rows(o, p, i);
}

int bench_model(const BenchOptions *o) {
    const char *fuse = o->fuse ? o->fuse : "all";
    if (!strcmp(fuse, "each")) return each(o);
    bool alone = o->alone || !strcmp(fuse, "none");
    Pair p = {0};
    int rc = run_pair(o, &p, fuse, alone ? NULL : "none");
    if (!rc) report(o, &p);
    if (!rc && o->picture) rc = bench_picture(&p, o->file, o->picture);
    pair_close(&p);
    return rc;
}
