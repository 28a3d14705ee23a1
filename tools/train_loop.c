/* train_loop.c: the steps of a run: feed, run, log, evaluate, save.

   In:  a run that cmd_train.c has set up. Out: its log and checkpoints.

   Step s of a run reads windows (s - 1) * accum * batch and on of an order that depends on the seed alone; random ops are
   keyed by the sample ids or by (seed, step, micro-step). So a run that is stopped and resumed is the run that was not. */
#include "tools/train.h"

#include <math.h>
#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;
static void on_signal(int sig) { (void)sig; interrupted = 1; }

/* -- One optimizer step -------------------------------------------------------------------------------------------- */

static int feed_windows(Train *t) {
    for (int64_t r = 0; r < t->b.rows; r++)
        if (rows_read(&t->rows, t->b, r, t->data, t->window++)) return EXIT_FAILED;
    return lab_feed(&t->lab, t->step_graph, &t->rows);
}

/* The share of the rows' positions that have a loss: of the products over those alone, what is executed. */
static double counted_share(const Train *t) {
    double n = 0, all = (double)(t->b.rows * t->b.window);
    if (t->row_n)
        for (int64_t r = 0; r < t->b.rows; r++) n += t->row_n[r];
    else if (lab_input(t->step_graph, "scored"))
        for (int64_t i = 0; i < t->b.rows * t->b.window; i++) n += t->rows.scored[i] != 0;
    else return 1;
    return n / all;
}

/* Loss by masked fraction, from the outputs row_loss and row_n where the model has them. */
static int add_buckets(Train *t) {
    const char *g = t->step_graph->name;
    if (!t->row_loss) return 0;
    int rc = sn_read(t->lab.s, g, "row_loss", t->row_loss, 4 * (size_t)t->b.rows);
    if (!rc) rc = sn_read(t->lab.s, g, "row_n", t->row_n, 4 * (size_t)t->b.rows);
    if (rc) return lab_error(&t->lab);
    for (int64_t r = 0; r < t->b.rows; r++) {
        int k = (int)((t->row_n[r] - 1) * BUCKETS / (float)t->b.window);
        k = k < 0 ? 0 : k >= BUCKETS ? BUCKETS - 1 : k;
        t->since.bucket[k] += t->row_loss[r];
        t->since.rows[k]++;
    }
    return 0;
}

/* What else a step has as single numbers: its outputs go into the log by name, but those that the loop knows. */
static bool is_logged(const SnGraphPlan *g, int i) {
    static const char *const known[] = { "loss", "grad_norm", "lr_now", "ema_decay" };
    const SnOutput *o = &g->outputs[i];
    const SnTensorDesc *t = &g->buffers[o->buffer].t;
    bool is = i < OUTPUTS && t->rank == 0 && t->dtype == SN_F32;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) is = is && strcmp(o->name, known[k]) != 0;
    return is;
}

static int add_outputs(Train *t) {
    const SnGraphPlan *g = t->step_graph;
    float v;
    for (int i = 0; i < g->noutputs; i++) {
        if (!is_logged(g, i)) continue;
        if (sn_read(t->lab.s, g->name, g->outputs[i].name, &v, sizeof v)) return lab_error(&t->lab);
        t->since.output[i] += v / (double)t->o.accum;
    }
    return 0;
}

static json_t *outputs_json(const Train *t) {
    json_t *o = json_object();
    for (int i = 0; i < t->step_graph->noutputs; i++)
        if (is_logged(t->step_graph, i))
            json_object_set_new(o, t->step_graph->outputs[i].name, json_real(t->since.output[i] / (double)t->since.steps));
    return o;
}

static int read_scalar(Train *t, const SnGraphPlan *g, const char *name, double *out) {
    float v = NAN;
    if (!lab_has_output(g, name)) return 0;
    if (sn_read(t->lab.s, g->name, name, &v, sizeof v)) return lab_error(&t->lab);
    *out = v;
    return 0;
}

static int one_step(Train *t) {
    sn_session *s = t->lab.s;
    double loss = NAN, norm = NAN, lr = NAN, t0 = snU_now();
    int64_t step = t->step + 1;
    int rc = sn_set(s, "step", (double)step) ? lab_error(&t->lab) : 0;
    for (int64_t k = 0; k < t->o.accum && !rc; k++) {
        rc = feed_windows(t);
        if (!rc && (sn_step(s, (uint32_t)step, (uint32_t)k) || sn_run(s, t->step_graph->name))) rc = lab_error(&t->lab);
        if (!rc) rc = add_buckets(t);
        if (!rc) rc = add_outputs(t);
        if (!rc) t->since.counted += counted_share(t) / (double)t->o.accum;
    }
    if (!rc && t->apply_graph && sn_run(s, t->apply_graph->name)) rc = lab_error(&t->lab);
    const SnGraphPlan *g = t->apply_graph ? t->apply_graph : t->step_graph;
    if (!rc) rc = read_scalar(t, g, "loss", &loss);
    if (!rc) rc = read_scalar(t, g, "grad_norm", &norm);
    if (!rc) rc = read_scalar(t, g, "lr_now", &lr);
    if (rc) return rc;
    t->step = step;
    t->since.loss += loss;
    t->since.grad_norm += norm;
    t->since.lr = lr;
    t->since.steps++;
    t->since.tokens += t->o.accum * t->b.rows * t->b.window;
    t->since.seconds += snU_now() - t0;
    if (!isfinite(loss) || !isfinite(norm))
        return cmd_fail("the %s is %g at step %lld: lower lr or raise warmup; the last checkpoint is untouched",
                        isfinite(loss) ? "gradient norm" : "loss", isfinite(loss) ? norm : loss, (long long)step);
    return 0;
}

/* -- Log and progress ------------------------------------------------------------------------------------------------ */

static double epoch_of(const Train *t) { return (double)t->window / (double)sn_data_windows(t->data); }

static void log_train(Train *t) {
    Since *a = &t->since;
    if (!a->steps) return;
    json_t *row = json_pack("{s:s s:I s:f s:f s:f s:f s:f}", "kind", "train", "step", (json_int_t)t->step, "epoch", epoch_of(t), "loss",
                            a->loss / (double)a->steps, "grad_norm", a->grad_norm / (double)a->steps, "lr", a->lr, "tokens_per_s",
                            (double)a->tokens / a->seconds);
    if (t->executed.counted > 0) json_object_set_new(row, "counted", json_real(a->counted / (double)a->steps));
    json_t *outputs = outputs_json(t);
    if (json_object_size(outputs)) json_object_set(row, "outputs", outputs);
    json_decref(outputs);
    if (t->row_loss) {
        json_t *by = json_array();
        for (int k = 0; k < BUCKETS; k++)
            json_array_append_new(by, a->rows[k] ? json_real(a->bucket[k] / (double)a->rows[k]) : json_null());
        json_object_set_new(row, "loss_by_masked_tenth", by);
    }
    train_log(t, row);
    *a = (Since){0};
}

static void put_time(char out[32], double s) {
    if (s >= 3600) snprintf(out, 32, "%d:%02d:%02d", (int)(s / 3600), (int)fmod(s / 60, 60), (int)fmod(s, 60));
    else snprintf(out, 32, "%d:%02d", (int)(s / 60), (int)fmod(s, 60));
}

static void progress(Train *t, double loss, double tokens_per_s) {
    bool tty = isatty(STDERR_FILENO);
    double now = snU_now(), done = (double)(t->step - t->first_step);
    int64_t percent = t->end > t->first_step ? 100 * (t->step - t->first_step) / (t->end - t->first_step) : 100;
    bool due = tty ? now - t->last_line > 0.2 : percent / 10 != t->last_percent / 10 || now - t->last_line > 30;
    char left[32], val[32] = "";
    if (t->o.quiet || (!due && t->step < t->end)) return;
    put_time(left, done > 0 ? (now - t->started) / done * (double)(t->end - t->step) : 0);
    if (isfinite(t->last_val)) snprintf(val, sizeof val, "  val %.4f", t->last_val);
    fprintf(stderr, "%sstep %lld/%lld  epoch %.1f  loss %.4f%s  %.0f tokens/s  %.0f GFLOP/s  %s left%s", tty ? "\r\033[K" : "",
            (long long)t->step, (long long)t->end, epoch_of(t), loss, val, tokens_per_s,
            tokens_per_s / (double)(t->o.accum * t->b.rows * t->b.window) * t->flops * 1e-9, left,
            tty && t->step < t->end ? "" : "\n");
    fflush(stderr);
    t->last_line = now;
    t->last_percent = percent;
}

/* -- Evaluation and checkpoints --------------------------------------------------------------------------------------- */

static int score_texts(Train *t, Score *val, Score *test) {
    int rc = lab_score(&t->lab, t->corpus.val.path, t->o.draws, (uint64_t)t->o.eval_seed, 0, val);
    if (!rc && t->o.score_test && t->corpus.test.path[0])
        rc = lab_score(&t->lab, t->corpus.test.path, t->o.draws, (uint64_t)t->o.eval_seed, 0, test);
    return rc;
}

/* The same texts by the averaged weights (-D ema=0.999); the others are back afterwards. */
static int score_averages(Train *t, json_t *row) {
    Score val = {0}, test = {0};
    if (!lab_has_averages(&t->lab)) return 0;
    int rc = lab_swap_averages(&t->lab);
    if (!rc) rc = score_texts(t, &val, &test);
    if (!rc) rc = lab_swap_averages(&t->lab);
    if (!rc) json_object_set_new(row, "val_ema", json_real(val.mean));
    if (!rc && test.windows) json_object_set_new(row, "test_ema", json_real(test.mean));
    score_free(&val);
    score_free(&test);
    return rc;
}

static int evaluate(Train *t) {
    Score val = {0}, test = {0};
    if (!t->corpus.val.path[0]) return 0;
    int rc = score_texts(t, &val, &test);
    if (!rc) {
        json_t *row = json_pack("{s:s s:I s:f s:f s:f s:f s:I s:I s:b s:f}", "kind", "val", "step", (json_int_t)t->step, "epoch", epoch_of(t),
                                "val", val.mean, "val_se", val.se, "val_mask_se", val.mask_se, "windows", (json_int_t)val.windows, "draws", (json_int_t)val.draws,
                                "bound", val.bound, "seconds", val.seconds + test.seconds);
        if (test.windows) json_object_set_new(row, "test", json_real(test.mean)), json_object_set_new(row, "test_se", json_real(test.se));
        rc = score_averages(t, row);
        train_log(t, row);
        if (!rc) rc = train_save_windows(t, &val, &test);
    }
    t->last_val = val.mean;
    if (!rc && !(val.mean >= t->best)) {
        t->best = val.mean;
        t->best_step = t->step;
        rc = train_save(t, "best");
    }
    score_free(&val);
    score_free(&test);
    return rc;
}

static int save_when_due(Train *t, bool last) {
    char name[64];
    bool every = t->o.save_every && t->step % t->o.save_every == 0;
    if (!last && !every && t->step % t->o.eval_every) return 0;
    int rc = train_save(t, "last");
    snprintf(name, sizeof name, "step-%08lld", (long long)t->step);
    return rc || !every || t->o.no_keep ? rc : train_save(t, name);
}

static int after_step(Train *t) {
    double loss = t->since.loss / (double)t->since.steps, rate = (double)t->since.tokens / t->since.seconds;
    bool last = t->step >= t->end || interrupted, eval = t->step % t->o.eval_every == 0 || t->step >= t->end;
    int rc = 0;
    t->tokens_seen += t->o.accum * t->b.rows * t->b.window;
    if (t->step % t->o.log_every == 0 || eval || last) log_train(t);
    if (eval) rc = evaluate(t);
    if (!rc) rc = save_when_due(t, last);
    if (!rc) progress(t, loss, rate);
    return rc;
}

int train_loop(Train *t) {
    int rc = 0;
    t->started = t->last_line = snU_now();
    t->first_step = t->step;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    while (t->step < t->end && !rc && !interrupted) {
        rc = one_step(t);
        if (!rc) rc = after_step(t);
    }
    if (rc) return rc;
    if (interrupted) {
        fprintf(stderr, "\nstopped at step %lld; --resume goes on from there\n", (long long)t->step);
        return EXIT_FAILED;
    }
    double seconds = snU_now() - t->started;
    json_t *row = json_pack("{s:s s:I s:f s:f s:f s:I}", "kind", "end", "step", (json_int_t)t->step, "epoch", epoch_of(t), "seconds", seconds,
                            "flops", t->flops * (double)(t->step - (t->from_step > 0 ? t->from_step : 0)), "tokens", (json_int_t)(t->step * t->o.accum * t->b.rows * t->b.window));
    if (isfinite(t->best)) json_object_set_new(row, "best", json_real(t->best)), json_object_set_new(row, "best_step", json_integer(t->best_step));
    train_log(t, row);
    return 0;
}
