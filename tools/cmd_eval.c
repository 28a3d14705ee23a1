/* cmd_eval.c: `sinter eval`: what checkpoints are worth.

   In:  a model, checkpoints, held-out text or questions. Out: the loss of every window, likelihoods of options and accuracies; a
   line or a JSON object each. */
#include <jansson.h>

#include "tools/choice.h"
#include "tools/corpus.h"
#include "tools/generate.h"

typedef struct EvalJob {
    const char *file, *ckpt, *out, *temp, *device, *order, *shard;
    StrList defines, data, ckpts, tasks, shots_from;
    PassOptions passes;
    ScoreOptions score;
    Questions questions;
    int64_t draws, eval_seed, threads, limit, shots;
    bool json;
} EvalJob;

/* -- Checkpoints --------------------------------------------------------------------------------------------------- */

/* The step that a checkpoint was saved at; -1: it does not say. */
static int64_t step_of(const char *ckpt) {
    char err[256];
    sn_file *f = ckpt ? sn_file_open(ckpt, err) : NULL;
    const char *text = f ? sn_file_meta(f, "sinter") : NULL;
    json_t *meta = text ? json_loads(text, 0, NULL) : NULL, *step = json_object_get(meta, "step");
    int64_t n = json_is_integer(step) ? json_integer_value(step) : -1;
    json_decref(meta);
    if (f) sn_file_close(f);
    return n;
}

/* The members that say whose result it is. */
static void put_checkpoint(const EvalJob *j, json_t *o) {
    int64_t step = step_of(j->ckpt);
    json_object_set_new(o, "ckpt", j->ckpt ? json_bytes(j->ckpt, strlen(j->ckpt)) : json_null());
    json_object_set_new(o, "step", step < 0 ? json_null() : json_integer(step));
}

/* In front of a line, where there are several checkpoints. */
static char *line_prefix(const EvalJob *j) {
    int64_t step = step_of(j->ckpt);
    if (j->ckpts.n < 2) return text_fmt("%s", "");
    return step < 0 ? text_fmt("%s: ", j->ckpt) : text_fmt("%s (step %lld): ", j->ckpt, (long long)step);
}

static void put_line(json_t *o) {
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_PRESERVE_ORDER);
    puts(text ? text : "");
    free(text);
    json_decref(o);
}

static LabOptions lab_options(EvalJob *j, const StrList *defines) {
    return (LabOptions){ .file = j->file, .defines = defines, .seed = 1, .threads = (int)j->threads, .passes = j->passes, .device = j->device };
}

/* -- Windows of text ------------------------------------------------------------------------------------------------ */

static int write_windows(const char *path, const Score *s) {
    char err[256];
    float *v = calloc((size_t)s->windows + 1, sizeof *v);
    for (int64_t i = 0; i < s->windows; i++) v[i] = (float)s->nll[i];
    sn_tensor t = { .name = "nll", .dtype = SN_F32, .rank = 1, .dim = { s->windows }, .data = v, .bytes = 4 * (size_t)s->windows };
    int rc = sn_file_write(path, &t, 1, NULL, err) ? cmd_fail("%s", err) : 0;
    free(v);
    return rc;
}

static void print_score(const EvalJob *j, const Score *s) {
    if (!j->json) {
        char *prefix = line_prefix(j);
        printf("%s%s %.5f +- %.5f nats per token (%lld windows", prefix, s->bound ? "NELBO" : "NLL", s->mean, s->se, (long long)s->windows);
        if (s->bound) printf(", %lld draws, other masks +- %.5f", (long long)s->draws, s->mask_se);
        printf("; %.1f s)\n", s->seconds);
        free(prefix);
        return;
    }
    json_t *o = json_pack("{s:s s:s s:f s:f s:f s:I s:I s:I s:f}", "kind", "eval", "measure", s->bound ? "nelbo" : "nll", "loss", s->mean, "se", s->se,
                          "mask_se", s->mask_se, "windows", (json_int_t)s->windows, "draws", (json_int_t)s->draws, "eval_seed",
                          (json_int_t)j->eval_seed, "seconds", s->seconds);
    put_checkpoint(j, o);
    put_line(o);
}

static int eval_windows(EvalJob *j) {
    Lab lab;
    Score s = {0};
    StrList defines = {0};
    for (int i = 0; i < j->defines.n; i++) list_add(&defines, j->defines.v[i]);
    int rc = j->ckpt && !is_bundle(j->file) ? checkpoint_params(j->ckpt, &defines) : 0;
    LabOptions lo = lab_options(j, &defines);
    if (!rc) rc = lab_open(&lab, &lo);
    if (rc) return rc;
    if (j->ckpt) rc = lab_load(&lab, j->ckpt);
    if (!rc) rc = lab_score(&lab, j->shard, j->draws ? j->draws : 8, (uint64_t)j->eval_seed, j->limit, &s);
    if (!rc) print_score(j, &s);
    if (!rc && j->out) rc = write_windows(j->out, &s);
    score_free(&s);
    lab_close(&lab);
    free(defines.v);
    return rc;
}

/* -- Questions ------------------------------------------------------------------------------------------------------- */

static int read_questions(EvalJob *j) {
    Questions shots = {0};
    int rc = 0;
    for (int i = 0; i < j->tasks.n && !rc; i++) rc = questions_read(&j->questions, j->tasks.v[i]);
    for (int i = 0; i < j->shots_from.n && !rc; i++) rc = questions_read(&shots, j->shots_from.v[i]);
    if (!rc && j->limit && j->questions.q.n > j->limit) j->questions.q.n = (uint32_t)j->limit;
    if (!rc) rc = questions_add_shots(&j->questions, &shots, j->shots);
    questions_free(&shots);
    return rc;
}

static json_t *score_json(const EvalJob *j, const Scorer *s, double seconds) {
    json_t *o = json_object();
    put_checkpoint(j, o);
    json_t *m = json_pack("{s:s s:s s:I s:f s:I s:I s:I s:I s:f}", "arm", s->ar ? "ar" : "dlm", "order", s->ar ? "left" : j->order, "draws",
                          (json_int_t)(s->ar ? 1 : s->o.draws), "guidance", s->o.guidance, "eval_seed", (json_int_t)j->eval_seed, "window",
                          (json_int_t)s->window, "shots", (json_int_t)j->shots, "passes", (json_int_t)s->passes, "seconds", seconds);
    json_object_update(o, m);
    json_decref(m);
    return o;
}

static int eval_questions(EvalJob *j) {
    Scorer s;
    double t0 = snU_now();
    LabOptions lo = lab_options(j, &j->defines);
    int rc = scorer_open(&s, &lo, j->ckpt, &BYTE_TOKENIZER, &j->score);
    s.show = true;
    if (!rc) rc = questions_score(&j->questions, &s);
    if (!rc) {
        char *prefix = line_prefix(j);
        choice_print(&j->questions, j->json, score_json(j, &s, snU_now() - t0), prefix);
        free(prefix);
    }
    if (!rc && j->out) rc = choice_write(&j->questions, j->out);
    scorer_close(&s);
    return rc;
}

/* -- The command ------------------------------------------------------------------------------------------------------ */

static int evaluate(EvalJob *j) {
    CorpusInfo info;
    CorpusDesc d = { .paths = j->data.v, .npaths = j->data.n, .out = j->temp };
    char err[256];
    int rc = j->tasks.n ? read_questions(j) : 0;
    if (!rc && j->data.n && corpus_prepare(&d, &info, err)) rc = cmd_fail("%s", err);
    j->shard = info.train.path;
    for (int i = 0; i < (j->ckpts.n ? j->ckpts.n : 1) && !rc; i++) {
        j->ckpt = j->ckpts.n ? j->ckpts.v[i] : NULL;
        if (j->data.n) rc = eval_windows(j);
        if (!rc && j->tasks.n) rc = eval_questions(j);
        fflush(stdout);
    }
    questions_free(&j->questions);
    return rc;
}

static const char *const ORDERS[] = { "masks", "random", "left", "right" };

static int check_options(const Command *self, EvalJob *j) {
    int order = 0;
    while (order < 4 && strcmp(ORDERS[order], j->order)) order++;
    if (order == 4) return cmd_usage(self, "--order is masks, random, left or right, not '%s'", j->order);
    if (!j->data.n && !j->tasks.n) return cmd_usage(self, "wants --data or --tasks");
    if (j->out && j->ckpts.n > 1) return cmd_usage(self, "--out is the file of one checkpoint, there are %d", j->ckpts.n);
    if (j->out && j->data.n && j->tasks.n) return cmd_usage(self, "--out is the file of --data or of --tasks, not of both");
    if (!(j->score.guidance >= 0 && j->score.guidance < 1e6)) return cmd_usage(self, "--guidance is a number that is not negative");
    if (j->shots && !j->shots_from.n) return cmd_usage(self, "--shots wants --shots-from FILE");
    if (j->draws > 1 << 20) return cmd_usage(self, "--draws is at most 1M");
    j->score.order = (Order)order;
    j->score.seed = (uint64_t)j->eval_seed;
    j->score.draws = j->draws;
    return -1;
}

int cmd_eval(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    EvalJob j = { .eval_seed = 1, .temp = "eval-data", .order = "masks" };
    const Opt opts[] = {
        { "ckpt", 0, OPT_MANY, &j.ckpts, "FILE...", "checkpoints, one after the other; params are theirs where -D says nothing (default: initial weights)" },
        { "data", 0, OPT_MANY, &j.data, "PATH...", "one shard, or text: the loss of its windows" },
        { "tasks", 0, OPT_MANY, &j.tasks, "FILE...", "multiple choice: JSON lines of HellaSwag, MMLU or any, MMLU's .csv; docs/evaluation.md" },
        { "shots", 0, OPT_INT, &j.shots, "N", "answered questions before each of --tasks (default 0)" },
        { "shots-from", 0, OPT_MANY, &j.shots_from, "FILE...", "where they are: the first N, for MMLU of the same subject (its dev files)" },
        { "draws", 0, OPT_INT, &j.draws, "N", "DLM: masks per window (default 8), per option (default 128; an option of one token needs one)" },
        { "order", 0, OPT_TEXT, &j.order, "HOW", "DLM: an option's tokens by masks (LLaDA's likelihood, default), or one by one: random, left, right" },
        { "guidance", 0, OPT_NUM, &j.score.guidance, "S", "DLM: logits away from those without the context (0 = off)" },
        { "window", 0, OPT_INT, &j.score.window, "N", "tokens of a question and an option at most; contexts lose their start (default: the model's seq)" },
        { "eval-seed", 0, OPT_INT, &j.eval_seed, "N", "of all masks (default 1)" },
        { "limit", 0, OPT_INT, &j.limit, "N", "at most so many windows, or questions" },
        { "temp", 0, OPT_TEXT, &j.temp, "DIR", "where shards go when --data is text (default: eval-data)" },
        { "out", 'o', OPT_TEXT, &j.out, "FILE", "the loss of every window, tensor `nll`; or JSON lines, the NLL of every option" },
        { "define", 'D', OPT_LIST, &j.defines, "K=V", "a param or dim of the file" },
        { "device", 'd', OPT_TEXT, &j.device, "D", "host, opencl[:N][:gpu], cuda[:N], emu[:sm_NN], null" },
        { "threads", 0, OPT_INT, &j.threads, "N", "0 = all cores" },
        AUTOCAST_OPTION(&j.passes),
        { "json", 0, OPT_FLAG, &j.json, "", "JSON objects instead, one a line" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_pass_options(self, &j.passes);
    if (rc < 0) rc = check_options(self, &j);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one model file");
    j.file = pos.v[0];
    return evaluate(&j);
}
