/* cmd_bench.c: `sinter bench`: a model's training step, or one family over a list of shapes, fused against unfused.

   In:  a model file, or gemm, rows, attention, xent. Out: a table, or one JSON object a line. */
#include "tools/bench.h"

enum { MAX_STEPS = 1 << 16 };

void bench_row(json_t *row) {
    SN_ASSERT(row, "a row of the benchmark does not pack");
    char *text = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(6) | JSON_PRESERVE_ORDER);
    puts(text);
    fflush(stdout);
    free(text);
    json_decref(row);
}

static int run(const BenchOptions *o) {
    static const struct { const char *name; int (*run)(const BenchOptions *); } families[] = {
        { "gemm", bench_gemm }, { "rows", bench_rows }, { "attention", bench_attention }, { "xent", bench_xent } };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(o->file, families[i].name))
            return o->device && !strcmp(o->device, "null") ? cmd_fail("bench %s: device null computes nothing, so nothing is to be timed", o->file) : families[i].run(o);
    if (o->predict) return bench_predict(o);
    return is_bundle(o->file) ? bench_bundle(o) : bench_model(o);
}

int cmd_bench(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    bool profile = false;
    BenchOptions o = { .top = 24 };
    char *fuse_doc = text_fmt("%s\n%29s  each       the step without each of them in turn: what each is worth", cmd_fuse_doc(), "");
    const Opt opts[] = {
        { "device", 'd', OPT_TEXT, &o.device, "D", "host (default), opencl[:N][:gpu], cuda[:N], emu[:sm_NN], null: see `sinter devices`" },
        { "target", 't', OPT_TEXT, &o.target, "T", "host[:x86-64-v3], opencl[:x4|x8|x16|gpu] (default: what suits the device)" },
        { "json", 0, OPT_FLAG, &o.json, "", "one JSON object a line" },
        { "define", 'D', OPT_LIST, &o.defines, "K=V", "a param or dim of the file" },
        { "set", 0, OPT_LIST, &o.sets, "K=V", "a scalar input" },
        { "fuse", 0, OPT_TEXT, &o.fuse, "LIST", fuse_doc },
        { "sched", 0, OPT_TEXT, &o.sched, "LIST", "tile sizes: gemm:bm=128,bn=256; of `bench gemm` several, each after a slash" },
        PASS_OPTIONS(&o.passes),
        { "alone", 0, OPT_FLAG, &o.alone, "", "only the fused side: nothing to compare with" },
        { "picture", 0, OPT_TEXT, &o.picture, "FILE", "both timelines, the roofline, the regions, as .html or .svg" },
        { "predict", 0, OPT_TEXT, &o.predict, "CARD", "nothing runs: each kernel's time on a100, h100, h200 or rtx4090 by a model, beside its floor" },
        { "counted", 0, OPT_NUM, &o.counted, "X", "--predict: share of the rows that a loss counts (default 1; of a DLM 0.5)" },
        { "shapes", 0, OPT_TEXT, &o.shapes, "LIST", "gemm: MxNxK[ta|tb],...  rows: ROWSxCOLS,...  xent: NxDxV[@share of rows with weight],..." },
        { "dtype", 0, OPT_TEXT, &o.dtype, "f32|bf16", "gemm, attention: of the operands; a product's result is f32" },
        { "seq", 0, OPT_TEXT, &o.seq, "LIST", "attention: lengths (default 2048)" },
        { "dim", 0, OPT_TEXT, &o.dim, "LIST", "attention: head sizes (default 64,128)" },
        { "batch", 0, OPT_INT, &o.batch, "N", "attention: batch (default 1)" },
        { "heads", 0, OPT_INT, &o.heads, "N", "attention: heads (default 12)" },
        { "kv-heads", 0, OPT_INT, &o.kv_heads, "N", "attention: heads of keys and values (default: as many)" },
        { "mask", 0, OPT_TEXT, &o.masks, "LIST", "attention: full causal window:N prefix:N document:N block-diffusion:N dilated:N (default full,causal)" },
        { "dir", 0, OPT_TEXT, &o.dirs, "fwd,bwd", "attention, rows: directions (default both)" },
        { "steps", 0, OPT_INT, &o.steps, "N", "runs of each side (default: 4 seconds of each, of gemm 2, 5 runs at least)" },
        { "profile", 0, OPT_FLAG, &profile, "", "every kernel of both sides, not only the slowest of the first" },
        { "threads", 0, OPT_INT, &o.threads, "N", "0 = all cores" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    free(fuse_doc);
    if (rc < 0) rc = cmd_settings(self, &o.sets, &o.set);
    if (rc < 0 && (!o.fuse || strcmp(o.fuse, "each"))) rc = cmd_fuse(self, o.fuse);
    if (rc < 0) rc = cmd_pass_options(self, &o.passes);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one model file or bundle, or gemm, rows, attention, xent");
    if (o.dtype && strcmp(o.dtype, "f32") && strcmp(o.dtype, "bf16")) return cmd_usage(self, "--dtype is f32 or bf16, not '%s'", o.dtype);
    if (o.steps > MAX_STEPS) return cmd_usage(self, "--steps is at most %d", MAX_STEPS);
    const char *dot = o.picture ? strrchr(o.picture, '.') : NULL;
    if (o.picture && (!dot || (strcmp(dot, ".svg") && strcmp(dot, ".html")))) return cmd_usage(self, "--picture wants a .svg or .html file, not '%s'", o.picture);
    if (profile) o.top = INT32_MAX;
    o.file = pos.v[0];
    if (o.counted < 0 || o.counted > 1) return cmd_usage(self, "--counted is a share, 0 to 1");
    if (o.predict && is_bundle(o.file)) return cmd_usage(self, "--predict wants a model file");
    if (o.sched && is_bundle(o.file)) return cmd_fail("%s is compiled already, --sched cannot change it", o.file);
    return run(&o);
}
