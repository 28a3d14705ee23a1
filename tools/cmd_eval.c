/* cmd_eval.c: `sinter eval`: what checkpoints are worth.

   In:  a model, checkpoints, held-out text or questions. Out: the loss of every window, likelihoods of options and accuracies; a
   line or a JSON object each. */
#include <jansson.h>

#include "tools/choice.h"
#include "tools/corpus.h"
#include "tools/generate.h"
#include "tools/measure.h"

typedef struct EvalJob {
    const char *file, *ckpt, *out, *temp, *device, *order, *texts, *tokenizer;
    const Tokenizer *tok;
    char shard[1024], fit_shard[1024];
    StrList defines, data, ckpts, tasks, shots_from, fit;
    PassOptions passes;
    ScoreOptions score;
    Questions questions;
    int64_t draws, eval_seed, threads, limit, shots, next_token, continuations, infills, span, options;
    bool json, ema;
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
    return (LabOptions){ .file = j->file, .defines = defines, .seed = 1, .threads = (int)j->threads, .passes = j->passes, .device = j->device, .ema = j->ema };
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
    json_t *o = json_pack("{s:s s:s s:f s:f s:f s:I s:I s:I s:f}", "kind", "eval", "measure", s->bound ? "nelbo" : "nll", "loss", s->mean,
                          "se", s->se, "mask_se", s->mask_se, "windows", (json_int_t)s->windows, "draws", (json_int_t)s->draws, "eval_seed",
                          (json_int_t)j->eval_seed, "seconds", s->seconds);
    put_checkpoint(j, o);
    put_line(o);
}

static int eval_windows(EvalJob *j) {
    Lab lab;
    Score s = {0};
    StrList defines = {0};
    for (int i = 0; i < j->defines.n; i++) list_add(&defines, j->defines.v[i]);
    int rc = j->ckpt && !is_bundle(j->file) ? checkpoint_params(j->ckpt, j->file, &defines) : 0;
    LabOptions lo = lab_options(j, &defines);
    if (!rc) rc = lab_open(&lab, &lo);
    if (rc) return rc;
    if (j->ckpt && lab.bundle) rc = checkpoint_of(j->ckpt, j->file, &lab);
    if (!rc && j->ckpt) rc = lab_load(&lab, j->ckpt);
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
    int rc = scorer_open(&s, &lo, j->ckpt, j->tok, &j->score);
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

/* -- Measures of text by the graph `logits` ------------------------------------------------------------------------- */

/* A line for people or, of the same result, an object: what it is, whose, and its numbers. */
static void report(const EvalJob *j, const Scorer *s, const char *kind, const char *line, json_t *numbers) {
    if (j->json) {
        json_t *o = json_pack("{s:s s:s}", "kind", kind, "arm", s->ar ? "ar" : "dlm");
        put_checkpoint(j, o);
        json_object_update(o, numbers);
        json_object_set_new(o, "eval_seed", json_integer(j->eval_seed));
        json_object_set_new(o, "window", json_integer(s->window));
        put_line(o);
    } else {
        char *prefix = line_prefix(j);
        printf("%s%s\n", prefix, line);
        free(prefix);
    }
    json_decref(numbers);
}

static int eval_order(EvalJob *j, Scorer *s, const Windows *w) {
    OrderResult r;
    int rc = measure_order(s, w, &r);
    if (rc) return rc;
    int64_t draws = s->o.order == ORDER_RANDOM ? s->o.draws : 1;
    char *line = text_fmt("order %s: %.5f +- %.5f nats per token (%lld windows, %lld orders, others +- %.5f; of all as one model %.5f)",
                          j->order, r.nll.mean, r.nll.se, (long long)r.windows, (long long)draws, r.order_se, r.mixture);
    report(j, s, "order", line, json_pack("{s:s s:f s:f s:f s:f s:I s:I}", "order", j->order, "nll", r.nll.mean, "se", r.nll.se,
                                          "order_se", r.order_se, "mixture", r.mixture, "windows", (json_int_t)r.windows, "draws", (json_int_t)draws));
    free(line);
    return 0;
}

static int eval_next_token(EvalJob *j, Scorer *s, const Windows *w) {
    NextToken r;
    int rc = measure_next_token(s, w, j->next_token, &r);
    if (rc) return rc;
    char *line = text_fmt("next token: acc %.4f +- %.4f, %.5f +- %.5f nats (%lld places in each of %lld windows)", r.acc.mean,
                          r.acc.se, r.nll.mean, r.nll.se, (long long)r.places, (long long)r.windows);
    report(j, s, "next_token", line, json_pack("{s:f s:f s:f s:f s:I s:I}", "acc", r.acc.mean, "acc_se", r.acc.se, "nll", r.nll.mean,
                                               "nll_se", r.nll.se, "places", (json_int_t)r.places, "windows", (json_int_t)r.windows));
    free(line);
    return 0;
}

static int eval_temperature(EvalJob *j, Scorer *s, const Windows *w) {
    Windows fit;
    Temperature r;
    int rc = windows_read(&fit, j->fit_shard, s->window, j->limit);
    if (!rc) rc = measure_temperature(s, &fit, w, &r);
    free(fit.v);
    if (rc) return rc;
    const char *edge = r.at_edge ? " (the last that was tried)" : "", *what = s->ar || s->o.order != ORDER_MASKS ? "NLL" : "NELBO";
    char *line = text_fmt("%s %.5f +- %.5f nats per token; %.5f +- %.5f at the temperature %.4f%s fitted on %lld windows, "
                          "a gain of %.5f +- %.5f (%lld windows)", what, r.raw.mean, r.raw.se, r.scaled.mean, r.scaled.se, r.temperature, edge,
                          (long long)r.fit_windows, r.gain.mean, r.gain.se, (long long)r.windows);
    report(j, s, "temperature", line, json_pack("{s:s s:f s:b s:f s:f s:f s:f s:f s:f s:I s:I s:I}", "order", s->ar ? "left" : j->order,
                                                "temperature", r.temperature, "at_edge", r.at_edge, "loss",
                                                r.raw.mean, "se", r.raw.se, "scaled", r.scaled.mean, "scaled_se", r.scaled.se, "gain", r.gain.mean,
                                                "gain_se", r.gain.se, "fit_windows", (json_int_t)r.fit_windows, "windows", (json_int_t)r.windows,
                                                "draws", (json_int_t)(s->ar ? 1 : s->o.draws)));
    free(line);
    return 0;
}

static int eval_made(EvalJob *j, Scorer *s, const Windows *w, int64_t n, bool infill) {
    Questions qs = {0};
    double t0 = snU_now();
    int64_t had = s->passes;
    int64_t span = j->span ? j->span : w->length / 8 ? w->length / 8 : 1;
    MakeOptions o = { .n = n, .span = span, .options = j->options, .infill = infill, .seed = (uint64_t)j->eval_seed };
    int rc = questions_make(&qs, w, &o);
    if (!rc) rc = questions_score(&qs, s);
    if (!rc) {
        char *prefix = line_prefix(j);
        json_t *more = score_json(j, s, snU_now() - t0);
        json_object_set_new(more, "span", json_integer(o.span));
        json_object_set_new(more, "passes", json_integer(s->passes - had));
        choice_print(&qs, j->json, more, prefix);
        free(prefix);
    }
    if (!rc && j->out) rc = choice_write(&qs, j->out);
    questions_free(&qs);
    return rc;
}

static int eval_texts(EvalJob *j, Scorer *s) {
    TextsResult r;
    int rc = measure_texts(s, j->texts, &r);
    if (rc) return rc;
    char *line = text_fmt("texts: perplexity %.4f [%.4f, %.4f] per token%s, entropy of their tokens %.4f +- %.4f nats "
                          "(%lld texts, %lld tokens%s)", r.perplexity, r.low, r.high, s->ar ? "" : " at most", r.entropy.mean, r.entropy.se,
                          (long long)r.texts, (long long)r.tokens,
                          r.empty ? "; empty ones left out" : "");
    report(j, s, "texts", line, json_pack("{s:f s:f s:f s:f s:f s:f s:f s:I s:I s:I}", "perplexity", r.perplexity, "low", r.low, "high", r.high,
                                          "nll", r.nll, "se", r.se, "entropy", r.entropy.mean, "entropy_se", r.entropy.se, "texts", (json_int_t)r.texts, "tokens",
                                          (json_int_t)r.tokens, "empty", (json_int_t)r.empty));
    free(line);
    return 0;
}

static bool measures(const EvalJob *j) { return j->score.order != ORDER_MASKS || j->next_token || j->fit.n || j->continuations || j->infills; }

static int eval_measures(EvalJob *j) {
    Scorer s;
    Windows w = {0};
    LabOptions lo = lab_options(j, &j->defines);
    ScoreOptions o = j->score;
    if (!o.draws) o.draws = 8;
    int rc = scorer_open(&s, &lo, j->ckpt, j->texts ? j->tok : NULL, &o);
    s.show = true;
    if (!rc && j->data.n && measures(j)) rc = windows_read(&w, j->shard, s.window, j->limit);
    if (!rc && j->data.n && o.order != ORDER_MASKS) rc = eval_order(j, &s, &w);
    if (!rc && j->next_token) rc = eval_next_token(j, &s, &w);
    if (!rc && j->fit.n) rc = eval_temperature(j, &s, &w);
    if (!rc && j->texts) rc = eval_texts(j, &s);
    s.o.draws = j->score.draws ? j->score.draws : 128;
    if (!rc && j->continuations) rc = eval_made(j, &s, &w, j->continuations, false);
    if (!rc && j->infills) rc = eval_made(j, &s, &w, j->infills, true);
    free(w.v);
    scorer_close(&s);
    return rc;
}

/* -- The command ------------------------------------------------------------------------------------------------------ */

/* A shard as it is, or text made into one below `folder`. */
static int prepare_shard(const EvalJob *j, const StrList *paths, const char *folder, char out[1024]) {
    CorpusInfo info;
    CorpusDesc d = { .paths = paths->v, .npaths = paths->n, .out = folder, .tok = j->tok->path ? j->tok : NULL };
    char err[256];
    if (!paths->n) return 0;
    if (corpus_prepare(&d, &info, err)) return cmd_fail("%s", err);
    snprintf(out, 1024, "%s", info.train.path);
    return 0;
}

static int evaluate(EvalJob *j) {
    char *fit = text_fmt("%s/fit", j->temp);
    int rc = j->tasks.n ? read_questions(j) : 0;
    if (!rc && !(j->tok = checkpoint_tokenizer(j->tokenizer, j->ckpts.n ? j->ckpts.v[0] : NULL))) rc = EXIT_FAILED;
    if (!rc) rc = prepare_shard(j, &j->data, j->temp, j->shard);
    if (!rc) rc = prepare_shard(j, &j->fit, fit, j->fit_shard);
    for (int i = 0; i < (j->ckpts.n ? j->ckpts.n : 1) && !rc; i++) {
        j->ckpt = j->ckpts.n ? j->ckpts.v[i] : NULL;
        if (j->data.n && !measures(j)) rc = eval_windows(j);
        if (!rc && ((j->data.n && measures(j)) || j->texts)) rc = eval_measures(j);
        if (!rc && j->tasks.n) rc = eval_questions(j);
        fflush(stdout);
    }
    tokenizer_close(j->tok);
    questions_free(&j->questions);
    free(fit);
    return rc;
}

static const char *const ORDERS[] = { "masks", "random", "left", "right" };

static int check_files(const Command *self, const EvalJob *j) {
    int outs = (j->data.n && !measures(j)) + (j->tasks.n > 0) + (j->continuations > 0) + (j->infills > 0);
    if (!j->data.n && !j->tasks.n && !j->texts) return cmd_usage(self, "wants --data, --tasks or --texts");
    if (!j->data.n && (j->next_token || j->fit.n || j->continuations || j->infills)) return cmd_usage(self, "what is measured on text wants --data");
    if (j->out && j->ckpts.n > 1) return cmd_usage(self, "--out is the file of one checkpoint, there are %d", j->ckpts.n);
    if (j->out && outs != 1)
        return cmd_usage(self, "--out takes the losses of --data alone, or the options of one of --tasks, --continuations, --infills");
    if (j->shots && !j->shots_from.n) return cmd_usage(self, "--shots wants --shots-from FILE");
    return -1;
}

static int check_options(const Command *self, EvalJob *j) {
    int order = 0;
    while (order < 4 && strcmp(ORDERS[order], j->order)) order++;
    if (order == 4) return cmd_usage(self, "--order is masks, random, left or right, not '%s'", j->order);
    if (!(j->score.guidance >= 0 && j->score.guidance < 1e6)) return cmd_usage(self, "--guidance is a number that is not negative");
    if (j->draws > 1 << 20) return cmd_usage(self, "--draws is at most 1M");
    if (j->score.window > 1 << 20) return cmd_usage(self, "--window is at most 1M");
    if (j->continuations > 1 << 24 || j->infills > 1 << 24) return cmd_usage(self, "at most 16M questions are made");
    j->score.order = (Order)order;
    j->score.seed = (uint64_t)j->eval_seed;
    j->score.draws = j->draws;
    return check_files(self, j);
}

int cmd_eval(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    EvalJob j = { .eval_seed = 1, .temp = "eval-data", .order = "masks", .options = 4 };
    const Opt opts[] = {
        { "ckpt", 0, OPT_MANY, &j.ckpts, "FILE...", "checkpoints, one after the other; params are theirs where -D says nothing (default: initial weights)" },
        { "ema", 0, OPT_FLAG, &j.ema, "", "their averaged weights (training with -D ema=0.999)" },
        { "data", 0, OPT_MANY, &j.data, "PATH...", "one shard or token file, or text: the loss of its windows; with the options below, these measures instead" },
        { "next-token", 0, OPT_INT, &j.next_token, "N", "accuracy of the next token, at N places a window" },
        { "fit", 0, OPT_MANY, &j.fit, "PATH...", "other held-out text: the loss of --data at the temperature that is best for this" },
        { "continuations", 0, OPT_INT, &j.continuations, "N", "multiple choice made of --data: N times, which span ends the window?" },
        { "infills", 0, OPT_INT, &j.infills, "N", "the same, which span is its middle?" },
        { "span", 0, OPT_INT, &j.span, "N", "tokens of such a span (default: an eighth of the window)" },
        { "options", 0, OPT_INT, &j.options, "N", "spans to choose from (default 4)" },
        { "texts", 0, OPT_TEXT, &j.texts, "FILE", "JSON lines with text or completion: perplexity before this model, entropy of their tokens" },
        { "tasks", 0, OPT_MANY, &j.tasks, "FILE...", "multiple choice: JSON lines of HellaSwag, MMLU or any, MMLU's .csv; docs/evaluation.md" },
        { "shots", 0, OPT_INT, &j.shots, "N", "answered questions before each of --tasks (default 0)" },
        { "shots-from", 0, OPT_MANY, &j.shots_from, "FILE...", "where they are: the first N, for MMLU of the same subject (its dev files)" },
        { "draws", 0, OPT_INT, &j.draws, "N", "DLM: masks or orders per window (default 8), per option (default 128; one token needs one)" },
        { "order", 0, OPT_TEXT, &j.order, "HOW", "DLM: likelihood by masks (LLaDA's, default), or token after token: random, left, right" },
        { "guidance", 0, OPT_NUM, &j.score.guidance, "S", "DLM: logits away from those without the context (0 = off)" },
        { "window", 0, OPT_INT, &j.score.window, "N", "tokens that the model reads at most; contexts lose their start (default: the model's seq)" },
        { "eval-seed", 0, OPT_INT, &j.eval_seed, "N", "of all masks (default 1)" },
        { "limit", 0, OPT_INT, &j.limit, "N", "at most so many windows, or questions" },
        { "temp", 0, OPT_TEXT, &j.temp, "DIR", "where shards go when --data is text (default: eval-data)" },
        { "out", 'o', OPT_TEXT, &j.out, "FILE", "the loss of every window, tensor `nll`; or JSON lines, the NLL of every option" },
        { "tokenizer", 0, OPT_TEXT, &j.tokenizer, "FILE", "tokenizer.json, merges.txt ... (default: the first checkpoint's, else bytes); docs/data.md" },
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
