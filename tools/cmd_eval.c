/* cmd_eval.c: `sinter eval`: the loss of a checkpoint on every window of a shard or of text. */
#include <jansson.h>

#include "tools/corpus.h"
#include "tools/generate.h"

typedef struct EvalJob {
    const char *file, *ckpt, *out, *temp, *device;
    StrList defines, data;
    PassOptions passes;
    int64_t draws, eval_seed, threads, limit;
    bool json;
} EvalJob;

static int write_windows(const char *path, const Score *s) {
    char err[256];
    float *v = calloc((size_t)s->windows + 1, sizeof *v);
    for (int64_t i = 0; i < s->windows; i++) v[i] = (float)s->nll[i];
    sn_tensor t = { .name = "nll", .dtype = SN_F32, .rank = 1, .dim = { s->windows }, .data = v, .bytes = 4 * (size_t)s->windows };
    int rc = sn_file_write(path, &t, 1, NULL, err) ? cmd_fail("%s", err) : 0;
    free(v);
    return rc;
}

static int print_score(const EvalJob *j, const Score *s) {
    if (!j->json) {
        printf("%s %.5f +- %.5f nats per token (%lld windows", s->bound ? "NELBO" : "NLL", s->mean, s->se, (long long)s->windows);
        if (s->bound) printf(", %lld draws, other masks +- %.5f", (long long)s->draws, s->mask_se);
        printf("; %.1f s)\n", s->seconds);
        return 0;
    }
    json_t *o = json_pack("{s:s s:s s:f s:f s:f s:I s:I s:I s:f}", "kind", "eval", "measure", s->bound ? "nelbo" : "nll", "loss", s->mean, "se", s->se,
                          "mask_se", s->mask_se, "windows", (json_int_t)s->windows, "draws", (json_int_t)s->draws, "eval_seed", (json_int_t)j->eval_seed,
                          "seconds", s->seconds);
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_PRESERVE_ORDER);
    puts(text);
    free(text);
    json_decref(o);
    return 0;
}

static int evaluate(EvalJob *j) {
    CorpusInfo info;
    CorpusDesc d = { .paths = j->data.v, .npaths = j->data.n, .out = j->temp };
    char err[256];
    Lab lab;
    Score s = {0};
    int rc = corpus_prepare(&d, &info, err) ? cmd_fail("%s", err) : 0;
    if (!rc && j->ckpt && !is_bundle(j->file)) rc = checkpoint_params(j->ckpt, &j->defines);
    if (rc) return rc;
    rc = lab_open(&lab, &(LabOptions){ .file = j->file, .defines = &j->defines, .seed = 1, .threads = (int)j->threads, .passes = j->passes,
                                       .device = j->device });
    if (rc) return rc;
    if (j->ckpt) rc = lab_load(&lab, j->ckpt);
    if (!rc) rc = lab_score(&lab, info.train.path, j->draws, (uint64_t)j->eval_seed, j->limit, &s);
    if (!rc) rc = print_score(j, &s);
    if (!rc && j->out) rc = write_windows(j->out, &s);
    score_free(&s);
    lab_close(&lab);
    return rc;
}

int cmd_eval(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    EvalJob j = { .draws = 8, .eval_seed = 1, .temp = "eval-data" };
    const Opt opts[] = {
        { "ckpt", 0, OPT_TEXT, &j.ckpt, "FILE", "the checkpoint; its params are taken where -D says nothing (default: the initial weights)" },
        { "data", 0, OPT_MANY, &j.data, "PATH...", "one shard, or text" },
        { "define", 'D', OPT_LIST, &j.defines, "K=V", "a param or dim of the file" },
        { "draws", 0, OPT_INT, &j.draws, "N", "masks per window of a masked-diffusion model (default 8)" },
        { "eval-seed", 0, OPT_INT, &j.eval_seed, "N", "of these masks (default 1)" },
        { "limit", 0, OPT_INT, &j.limit, "N", "at most so many windows" },
        { "temp", 0, OPT_TEXT, &j.temp, "DIR", "where shards go when --data is text (default: eval-data)" },
        { "out", 'o', OPT_TEXT, &j.out, "FILE", "the loss of every window, tensor `nll`" },
        { "device", 'd', OPT_TEXT, &j.device, "D", "host, opencl[:N][:gpu], emu[:sm_NN]" },
        { "threads", 0, OPT_INT, &j.threads, "N", "0 = all cores" },
        AUTOCAST_OPTION(&j.passes),
        { "json", 0, OPT_FLAG, &j.json, "", "one JSON object instead" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_pass_options(self, &j.passes);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one model file");
    if (!j.data.n) return cmd_usage(self, "wants --data");
    j.file = pos.v[0];
    return evaluate(&j);
}
