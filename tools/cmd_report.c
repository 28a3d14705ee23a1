/* cmd_report.c: `sinter report DIR`: the runs below DIR as a table, summary.json, curves.

   A folder that `sinter study` made goes to report_groups.c and report_page.c: arms over seeds, report.html.
   In:  what `sinter train` left (report_study.c reads it). Out: a table on standard output, DIR/summary.json, DIR/curves.dat,
   DIR/curves.gp and, where gnuplot is installed, DIR/curves.svg and a small picture in the terminal. */
#include "tools/report.h"

#include <math.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static const char PAPER[] = "same size, schedule and epoch: the first evaluation after which the DLM's validation loss stays below the AR run's";
static const char STRICT[] = "the first evaluation after which the DLM's test loss stays more than two paired standard errors below the best that any "
                             "AR run reached, anneals and input masking included; that best was chosen on the validation text";

static double cfg(const RunRecord *r, const char *key) { return json_number_value(json_object_get(r->config, key)); }

/* -- summary.json -------------------------------------------------------------------------------------------------- */

static json_t *number_or_null(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *point_json(const Study *st, const Point *p, int run) {
    return json_pack("{s:s s:I s:f s:o s:o s:o s:o}", "run", st->run[run].name, "step", (json_int_t)p->step, "epoch", p->epoch, "val",
                     number_or_null(p->val), "val_se", number_or_null(p->val_se), "test", number_or_null(p->test), "test_se",
                     number_or_null(p->test_se));
}

static json_t *arm_json(const Study *st, int arm) {
    const RunRecord *r = &st->run[arm];
    int run = arm;
    const Point *best = study_arm_best(st, arm, &run);
    double flops = r->flops, seconds = r->seconds;
    json_t *anneals = json_array();
    for (int i = 0; i < st->nruns; i++) {
        const RunRecord *a = &st->run[i];
        if (a->parent != arm || !a->npoints) continue;
        flops += a->flops;
        seconds += a->seconds;
        json_array_append_new(anneals, point_json(st, &a->point[a->npoints - 1], i));
    }
    const json_t *data = json_object_get(r->config, "data");
    json_t *o = json_pack("{s:s s:s s:I s:I s:f s:f s:I s:I s:I s:I s:f}", "arm", r->name, "measure",
                          r->bound ? "NELBO, an upper bound, nats per byte" : "exact NLL, nats per byte", "weights", (json_int_t)cfg(r, "weights"),
                          "steps", (json_int_t)r->steps, "epochs", r->npoints ? r->point[r->npoints - 1].epoch : 0.0, "flops", flops, "draws",
                          (json_int_t)(r->bound ? cfg(r, "draws") : 1), "seed", (json_int_t)cfg(r, "seed"), "eval_seed", (json_int_t)cfg(r, "eval_seed"),
                          "unique_bytes", (json_int_t)json_integer_value(json_object_get(data, "unique")), "seconds", seconds);
    json_object_set_new(o, "best", best ? point_json(st, best, run) : json_null());
    json_object_set_new(o, "last", r->npoints ? point_json(st, &r->point[r->npoints - 1], arm) : json_null());
    json_object_set_new(o, "anneals", anneals);
    json_object_set(o, "inputs", json_object_get(r->config, "inputs"));
    return o;
}

static json_t *crossing_json(const Study *st, const Crossing *c, const char *definition) {
    json_t *o = json_pack("{s:s s:b}", "definition", definition, "compared", c->possible);
    json_object_set_new(o, "epoch", c->found ? json_real(c->at.epoch) : json_null());
    json_object_set_new(o, "difference", c->found ? json_real(c->diff.mean) : json_null());
    json_object_set_new(o, "paired_se", c->found ? json_real(c->diff.se) : json_null());
    if (c->possible)
        json_object_set_new(o, "last", json_pack("{s:f s:f s:f s:I}", "epoch", c->last_epoch, "difference", c->last.mean, "paired_se", c->last.se,
                                                 "windows", (json_int_t)c->last.n));
    if (c->run >= 0) json_object_set_new(o, "best_ar", point_json(st, &st->run[c->run].point[c->point], c->run));
    return o;
}

static int write_summary(const Study *st, const Crossing *paper, const Crossing *strict, bool print) {
    json_t *arms = json_array(), *o = json_object();
    for (int i = 0; i < st->nruns; i++)
        if (st->run[i].parent < 0) json_array_append_new(arms, arm_json(st, i));
    json_object_set_new(o, "sinter", json_string(SINTER_VERSION));
    json_object_set_new(o, "arms", arms);
    json_object_set_new(o, "crossover", json_pack("{s:o s:o}", "paper", crossing_json(st, paper, PAPER), "strict", crossing_json(st, strict, STRICT)));
    json_object_set_new(o, "data", json_incref(json_object_get(st->run[0].config, "data")));
    json_object_set_new(o, "limits", json_string("one slice of text, one seed; the AR numbers are exact, the DLM's an upper bound: a bound below settles "
                                                 "the order, a bound above settles nothing"));
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(7) | JSON_PRESERVE_ORDER), *path = text_fmt("%s/summary.json", st->folder);
    int rc = write_text(path, text, strlen(text));
    if (print) puts(text);
    free(path);
    free(text);
    json_decref(o);
    return rc;
}

/* -- The table ---------------------------------------------------------------------------------------------------------- */

static void print_run(const Study *st, int i) {
    const RunRecord *r = &st->run[i];
    if (r->best < 0) { printf("%-16s nothing was evaluated\n", r->name); return; }
    const Point *b = &r->point[r->best], *l = &r->point[r->npoints - 1];
    printf("%-16s %-6s %8.4f +- %.4f %8.1f", r->name, r->bound ? "NELBO" : "NLL", b->val, b->val_se, b->epoch);
    if (b->has_test) printf(" %8.4f +- %.4f", b->test, b->test_se);
    else printf(" %18s", "");
    printf(" %8.4f %7.1f %8.2f %7.0f\n", l->val, l->epoch, r->flops * 1e-12, r->seconds);
}

static void print_table(const Study *st) {
    printf("%-16s %-6s %18s %8s %18s %8s %7s %8s %7s\n", "run", "loss", "best validation", "epoch", "test there", "last", "epoch", "TFLOP", "s");
    for (int i = 0; i < st->nruns; i++) {
        if (st->run[i].parent >= 0) continue;
        print_run(st, i);
        for (int k = 0; k < st->nruns; k++)
            if (st->run[k].parent == i) print_run(st, k);
    }
}

static void print_crossing(const Study *st, const Crossing *c, const char *title) {
    printf("\n%s: ", title);
    if (!c->possible) { printf("nothing to compare: it needs an AR and a DLM run, evaluated at the same steps (strict: with --score-test)\n"); return; }
    if (c->found) printf("epoch %.1f, DLM minus AR %+.4f +- %.4f there", c->at.epoch, c->diff.mean, c->diff.se);
    else printf("none");
    printf("; at the last evaluation compared (epoch %.1f) %+.4f +- %.4f\n", c->last_epoch, c->last.mean, c->last.se);
    if (c->run >= 0) {
        const Point *p = &st->run[c->run].point[c->point];
        printf("    best of any AR run: %s at epoch %.1f, validation %.4f, test %.4f\n", st->run[c->run].name, p->epoch, p->val, p->test);
    }
}

static void print_what(const Study *st) {
    const json_t *data = json_object_get(st->run[0].config, "data"), *val = json_object_get(data, "val"), *test = json_object_get(data, "test");
    printf("\nCompared: %lld unique training bytes (one slice, one seed), %lld validation and %lld test bytes of other files, nats per byte.\n"
           "AR losses are exact, the DLM's are an upper bound (Monte Carlo NELBO, stratified, fixed seed). +- is one standard error over\n"
           "windows; differences are paired by window. 50-byte strings of the validation text found in training: %.1f %%.\n",
           (long long)json_integer_value(json_object_get(data, "unique")), (long long)json_integer_value(json_object_get(val, "bytes")),
           (long long)json_integer_value(json_object_get(test, "bytes")), 100 * json_number_value(json_object_get(val, "overlap_with_train")));
}

/* -- Curves -------------------------------------------------------------------------------------------------------------- */

static int write_data(const Study *st) {
    StrBuf b = {0};
    for (int i = 0; i < st->nruns; i++) {
        snU_putf(&b, "# %s\n# epoch validation standard_error\n", st->run[i].name);
        for (int k = 0; k < st->run[i].npoints; k++)
            snU_putf(&b, "%.4f %.5f %.5f\n", st->run[i].point[k].epoch, st->run[i].point[k].val, st->run[i].point[k].val_se);
        snU_puts(&b, "\n\n");
    }
    char *path = text_fmt("%s/curves.dat", st->folder);
    int rc = write_text(path, b.s, b.n);
    free(path);
    snU_free_buf(&b);
    return rc;
}

/* One line per run; an anneal has the colour of its arm, dashed. The terminal draws lines by letters alone: no points. */
static void plot_lines(StrBuf *b, const Study *st, bool terminal) {
    const char *main_style = terminal ? "lines" : "linespoints pt 7 ps 0.4", *anneal_style = terminal ? "lines" : "linespoints dt 2 pt 6 ps 0.6";
    int colour = 0;
    const char *sep = "plot ";
    for (int i = 0; i < st->nruns; i++) {
        if (st->run[i].parent >= 0 || !st->run[i].npoints) continue;
        colour++;
        snU_putf(b, "%sdata index %d using 1:2 with %s lc %d title '%s'", sep, i, main_style, colour, st->run[i].name);
        sep = ", ";
        for (int k = 0; k < st->nruns; k++)
            if (st->run[k].parent == i && st->run[k].npoints)
                snU_putf(b, ", data index %d using 1:2 with %s lc %d title '%s'", k, anneal_style, colour, st->run[k].name);
    }
    snU_puts(b, "\n");
}

/* The upper half of an overfitting run would flatten everything else. */
static double top_of(const Study *st) {
    double low = INFINITY, high = 0;
    for (int i = 0; i < st->nruns; i++)
        for (int k = 0; k < st->run[i].npoints; k++) low = fmin(low, st->run[i].point[k].val), high = fmax(high, st->run[i].point[k].val);
    return fmin(high * 1.02, low * 1.9);
}

static int write_script(const Study *st) {
    StrBuf b = {0};
    snU_putf(&b, "data = '%s/curves.dat'\nset xlabel 'epoch'\nset ylabel 'validation loss, nats per byte'\nset yrange [*:%.3f]\nset grid\nset key top right\n",
             st->folder, top_of(st));
    snU_putf(&b, "set term svg size 900,540 dynamic enhanced background rgb 'white'\nset output '%s/curves.svg'\nset termoption noenhanced\n", st->folder);
    plot_lines(&b, st, false);
    snU_puts(&b, "set output\nset term dumb size 100,28 noenhanced\nset ylabel\nunset grid\n");
    plot_lines(&b, st, true);
    char *path = text_fmt("%s/curves.gp", st->folder);
    int rc = write_text(path, b.s, b.n);
    free(path);
    snU_free_buf(&b);
    return rc;
}

static void run_gnuplot(const Study *st) {
    char *script = text_fmt("%s/curves.gp", st->folder), *argv[] = { "gnuplot", script, NULL };
    pid_t pid;
    int status = 0;
    fflush(stdout);
    if (posix_spawnp(&pid, "gnuplot", NULL, NULL, argv, environ)) printf("\ngnuplot is not installed: no picture; %s/curves.gp would draw it\n", st->folder);
    else if (waitpid(pid, &status, 0) < 0 || status) printf("\ngnuplot failed on %s\n", script);
    else printf("\ncurves: %s/curves.svg\n", st->folder);
    free(script);
}

/* Runs of `sinter study`: over seeds, with intervals. */
static int report_groups(const char *folder, bool json) {
    StudyGroups g;
    int rc = groups_read(&g, folder);
    if (rc) return rc;
    if (json) {
        json_t *o = groups_json(&g);
        char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(7) | JSON_PRESERVE_ORDER);
        puts(text);
        free(text);
        json_decref(o);
    } else groups_print(&g, stdout);
    rc = groups_write(&g);
    if (!rc && !json) printf("page: %s/report.html; curves.csv, arms.csv, crossovers.csv and summary.json beside it\n", folder);
    return rc;
}

int cmd_report(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    bool json = false, no_plot = false;
    const Opt opts[] = {
        { "json", 0, OPT_FLAG, &json, "", "print summary.json instead of the table" },
        { "no-plot", 0, OPT_FLAG, &no_plot, "", "do not call gnuplot, which draws runs that are no study's" },
        { 0 }
    };
    Study st;
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one folder");
    if (groups_there(pos.v[0])) return report_groups(pos.v[0], json);
    if ((rc = study_read(&st, pos.v[0]))) return rc;
    Crossing paper = crossing_paper(&st), strict = crossing_strict(&st);
    if (!json) {
        print_table(&st);
        print_crossing(&st, &paper, "crossover (a), the paper's: same size, schedule and epoch");
        print_crossing(&st, &strict, "crossover (b), strict: below the best of any AR run by two standard errors, on the test text");
        print_what(&st);
    }
    rc = write_summary(&st, &paper, &strict, json);
    if (!rc) rc = write_data(&st);
    if (!rc) rc = write_script(&st);
    if (!rc && !no_plot && !json) run_gnuplot(&st);
    if (!rc && !json) printf("summary: %s/summary.json\n", st.folder);
    study_free(&st);
    return rc;
}
