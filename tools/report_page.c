/* report_page.c: a study's groups (report.h) as a table, CSV files, summary.json and one self-contained HTML page.

   Every number over several seeds stands with its 95 % interval; what is of one seed says so. */
#include "tools/chart.h"
#include "tools/report.h"

#include <math.h>

static const char PAPER[] = "same size, schedule and epoch: the first evaluation from which on the DLM's validation loss stays below the AR arm's";
static const char STRICT[] = "the first evaluation from which on the DLM's test loss stays below that of the best any AR run of the same seed reached, "
                             "anneals and noise included, chosen on the validation text";
static const char LIMITS[] = "AR losses are exact; a DLM's is the NELBO, an upper bound: a bound below settles the order, a bound above settles nothing.";

/* -- Numbers with intervals ---------------------------------------------------------------------------------------- */

static const char *put_number(char out[64], double v, int digits) {
    if (isnan(v)) snprintf(out, 64, "-");
    else if (isinf(v)) snprintf(out, 64, "never");
    else snprintf(out, 64, "%.*f", digits, v);
    return out;
}

static const char *put_interval(char out[256], const Interval *v, int digits) {
    char mid[64], lo[64], hi[64];
    put_number(mid, v->mid, digits);
    if (v->n < 2 || (isinf(v->lo) && isinf(v->hi))) snprintf(out, 256, "%s", mid);
    else snprintf(out, 256, "%s [%s, %s]", mid, put_number(lo, v->lo, digits), put_number(hi, v->hi, digits));
    return out;
}

static const char *put_seeds(char out[32], int n) {
    snprintf(out, 32, n == 1 ? "one seed" : "%d seeds", n);
    return out;
}

/* -- The terminal ----------------------------------------------------------------------------------------------------- */

static void print_cross(const Cross *c, const char *title, FILE *f) {
    char epoch[256], last[256], seeds[32];
    if (!c->seeds) { fprintf(f, "  %s: nothing to compare\n", title); return; }
    fprintf(f, "  %s: %s%s; %s minus %s %s at epoch %.1f; in %d of %s by itself\n", title, isfinite(c->epoch.mid) ? "epoch " : "", put_interval(epoch, &c->epoch, 1), c->dlm, c->ar,
            put_interval(last, &c->last, 4), c->last_epoch, c->found, put_seeds(seeds, c->seeds));
}

void groups_print(const StudyGroups *g, FILE *f) {
    for (int i = 0; i < g->n; i++) {
        const StudyGroup *v = &g->v[i];
        fprintf(f, "%s%s\n  %-16s %-6s %-26s %7s %-26s %8s %-10s %s\n", i ? "\n" : "", *v->label ? v->label : "all", "arm", "loss",
                "best validation", "epoch", "test there", "TFLOP", "seeds", "picked");
        for (int k = 0; k < g->narms; k++) {
            const Curve *c = &v->curve[k];
            char best[256], test[256], seeds[32];
            if (!c->seeds) { fprintf(f, "  %-16s not run\n", c->arm); continue; }
            fprintf(f, "  %-16s %-6s %-26s %7.1f %-26s %8.2f %-10s %s\n", c->arm, c->bound ? "NELBO" : "NLL", put_interval(best, &c->best, 4),
                    c->best_epoch, put_interval(test, &c->test, 4), c->total_flops * 1e-12, put_seeds(seeds, c->seeds), c->picked);
        }
        print_cross(&v->paper, "crossover (a), same size and epoch", f);
        print_cross(&v->strict, "crossover (b), below the best AR run", f);
    }
    fprintf(f, "\nNats per byte; [ ] is a 95 %% interval over seeds (bootstrap). %s\n", LIMITS);
    if (g->missing) fprintf(f, "%d runs are missing or were not evaluated yet.\n", g->missing);
    if (g->unfinished) fprintf(f, "%d runs have not ended: curves and crossovers go as far as all seeds of an arm.\n", g->unfinished);
}

/* -- CSV --------------------------------------------------------------------------------------------------------------- */

static int write_file(const StudyGroups *g, const char *name, StrBuf *b) {
    char *path = text_fmt("%s/%s", g->folder, name);
    int rc = write_text(path, b->s ? b->s : "", b->n);
    free(path);
    snU_free_buf(b);
    return rc;
}

static void csv_number(StrBuf *b, double v) {
    if (isfinite(v)) snU_putf(b, ",%.9g", v);
    else snU_puts(b, isinf(v) ? ",inf" : ",");
}

static const char *csv_text(char out[32], double v) {     /* empty where there is no number */
    if (isfinite(v)) snprintf(out, 32, "%.6g", v);
    else out[0] = 0;
    return out;
}

static void csv_interval(StrBuf *b, const Interval *v) {
    csv_number(b, v->mid);
    csv_number(b, v->lo);
    csv_number(b, v->hi);
}

static int write_csv(const StudyGroups *g) {
    StrBuf curves = {0}, arms = {0}, crosses = {0}, sweeps = {0}, measures = {0};
    snU_puts(&sweeps, "group,arm,values,picked,seeds,best_val,best_val_lo,best_val_hi,best_epoch\n");
    snU_puts(&measures, "group,arm,seeds,epoch,tokens,flops_6nd,acc,acc_lo,acc_hi,gap,gap_lo,gap_hi\n");
    snU_puts(&curves, "group,arm,loss,seeds,step,epoch,tokens,flops_graph,flops_6nd,flops_executed,val,val_lo,val_hi\n");
    snU_puts(&arms, "group,arm,loss,seeds,picked,weights,active_weights,flops,best_val,best_val_lo,best_val_hi,best_epoch,test,test_lo,test_hi\n");
    snU_puts(&crosses, "group,definition,ar,dlm,seeds,crossing_seeds,epoch,epoch_lo,epoch_hi,last_epoch,last,last_lo,last_hi\n");
    for (int i = 0; i < g->n; i++) {
        const StudyGroup *v = &g->v[i];
        for (int k = 0; k < g->narms; k++) {
            const Curve *c = &v->curve[k];
            if (!c->seeds) continue;
            const char *loss = c->bound ? "nelbo" : "nll";
            char number[32];
            for (int p = 0; p < c->n; p++)
                snU_putf(&curves, "\"%s\",%s,%s,%d,%.0f,%.6g,%.0f,%.6g,%.6g,%s,%.7g,%.7g,%.7g\n", v->label, c->arm, loss, c->seeds, c->step[p], c->epoch[p],
                         c->tokens[p], c->flops[p], 6 * c->active * c->tokens[p], csv_text(number, c->executed[p]), c->val[p], c->lo[p], c->hi[p]);
            snU_putf(&arms, "\"%s\",%s,%s,%d,\"%s\",%.0f,%.0f,%.6g", v->label, c->arm, loss, c->seeds, c->picked, c->weights, c->active, c->total_flops);
            csv_interval(&arms, &c->best);
            csv_number(&arms, c->best_epoch);
            csv_interval(&arms, &c->test);
            snU_puts(&arms, "\n");
            for (int p = 0; p < c->na; p++) {
                const Interval gap = { c->gap[p], c->gap_lo[p], c->gap_hi[p], c->seeds };
                snU_putf(&measures, "\"%s\",%s,%d,%.6g,%.0f,%.6g,%.6g,%.6g,%.6g", v->label, c->arm, c->seeds, c->a_epoch[p], c->a_tokens[p], 6 * c->active * c->a_tokens[p],
                         c->acc[p], c->acc_lo[p], c->acc_hi[p]);
                csv_interval(&measures, &gap);
                snU_puts(&measures, "\n");
            }
        }
        for (int k = 0; k < v->nsweep; k++) {
            const Sweep *s = &v->sweep[k];
            snU_putf(&sweeps, "\"%s\",%s,\"%s\",%d,%d", v->label, v->curve[s->arm].arm, s->values, s->picked, s->best.n);
            csv_interval(&sweeps, &s->best);
            csv_number(&sweeps, s->best_epoch);
            snU_puts(&sweeps, "\n");
        }
        for (int k = 0; k < 2; k++) {
            const Cross *c = k ? &v->strict : &v->paper;
            if (!c->seeds) continue;
            snU_putf(&crosses, "\"%s\",%s,%s,%s,%d,%d", v->label, k ? "strict" : "paper", c->ar, c->dlm, c->seeds, c->found);
            csv_interval(&crosses, &c->epoch);
            csv_number(&crosses, c->last_epoch);
            csv_interval(&crosses, &c->last);
            snU_puts(&crosses, "\n");
        }
    }
    int rc = write_file(g, "curves.csv", &curves);
    if (!rc) rc = write_file(g, "arms.csv", &arms);
    if (!rc) rc = write_file(g, "sweeps.csv", &sweeps);
    if (!rc) rc = write_file(g, "measures.csv", &measures);
    return rc ? rc : write_file(g, "crossovers.csv", &crosses);
}

/* -- summary.json ---------------------------------------------------------------------------------------------------------- */

static json_t *number_json(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *interval_json(const Interval *v) {
    return json_pack("{s:o s:o s:o s:i}", "mean", number_json(v->mid), "lo", number_json(v->lo), "hi", number_json(v->hi), "seeds", v->n);
}

static json_t *cross_json(const Cross *c, const char *definition) {
    return json_pack("{s:s s:i s:i s:o s:f s:o}", "definition", definition, "seeds", c->seeds, "crossing_seeds", c->found, "epoch",
                     interval_json(&c->epoch), "last_epoch", c->last_epoch, "last_difference", interval_json(&c->last));
}

json_t *groups_json(const StudyGroups *g) {
    json_t *groups = json_array();
    for (int i = 0; i < g->n; i++) {
        const StudyGroup *v = &g->v[i];
        json_t *arms = json_array();
        for (int k = 0; k < g->narms; k++) {
            const Curve *c = &v->curve[k];
            if (c->seeds)
                json_array_append_new(arms, json_pack("{s:s s:s s:s s:o s:f s:o s:f s:f s:f}", "arm", c->arm, "loss", c->bound ? "nelbo" : "nll", "picked", c->picked,
                                                      "best", interval_json(&c->best), "best_epoch", c->best_epoch, "test", interval_json(&c->test), "weights",
                                                      c->weights, "active_weights", c->active, "flops", c->total_flops));
        }
        json_array_append_new(groups, json_pack("{s:s s:o s:{s:o s:o}}", "group", v->label, "arms", arms, "crossover", "paper", cross_json(&v->paper, PAPER),
                                                "strict", cross_json(&v->strict, STRICT)));
    }
    return json_pack("{s:s s:o s:s}", "sinter", SINTER_VERSION, "groups", groups, "limits", LIMITS);
}

static int write_summary(const StudyGroups *g) {
    StrBuf b = {0};
    json_t *o = groups_json(g);
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(7) | JSON_PRESERVE_ORDER);
    snU_putf(&b, "%s\n", text);
    free(text);
    json_decref(o);
    return write_file(g, "summary.json", &b);
}

/* -- The page ----------------------------------------------------------------------------------------------------------------- */

static void cell(StrBuf *b, const char *text) {
    snU_puts(b, "<td>");
    chart_escape(b, text);
    snU_puts(b, "</td>");
}

static void put_arms(StrBuf *b, const StudyGroups *g, const StudyGroup *v) {
    snU_puts(b, "<table><tr><th>arm</th><th>loss</th><th>best validation</th><th>epoch</th><th>test there</th><th>weights</th><th>active</th><th>TFLOP (graph)</th><th>picked</th><th>seeds</th></tr>\n");
    for (int k = 0; k < g->narms; k++) {
        const Curve *c = &v->curve[k];
        char text[256], seeds[32];
        if (!c->seeds) continue;
        snU_puts(b, "<tr>");
        cell(b, c->arm);
        cell(b, c->bound ? "NELBO" : "NLL");
        cell(b, put_interval(text, &c->best, 4));
        cell(b, put_number(text, c->best_epoch, 1));
        cell(b, put_interval(text, &c->test, 4));
        cell(b, put_number(text, c->weights, 0));
        cell(b, put_number(text, c->active, 0));
        cell(b, put_number(text, c->total_flops * 1e-12, 2));
        cell(b, c->picked);
        cell(b, put_seeds(seeds, c->seeds));
        snU_puts(b, "</tr>\n");
    }
    snU_puts(b, "</table>\n");
}

static void put_cross(StrBuf *b, const Cross *c, const char *name, const char *definition) {
    char epoch[256], last[256], seeds[32];
    snU_puts(b, "<p><b>");
    chart_escape(b, name);
    snU_puts(b, "</b> ");
    if (!c->seeds) snU_puts(b, "nothing to compare");
    else {
        snU_putf(b, "%s%s; ", isfinite(c->epoch.mid) ? "epoch " : "", put_interval(epoch, &c->epoch, 1));
        chart_escape(b, c->dlm);
        snU_puts(b, " minus ");
        chart_escape(b, c->ar);
        snU_putf(b, " %s nats at the last evaluation compared, epoch %.1f; in %d of %s by itself", put_interval(last, &c->last, 4), c->last_epoch, c->found,
                 put_seeds(seeds, c->seeds));
    }
    snU_puts(b, ".<br/><small>");
    chart_escape(b, definition);
    snU_puts(b, "</small></p>\n");
}

/* Crossover epochs, and every arm's best loss, along an axis whose values are numbers. */
static void put_sweep(StrBuf *b, const StudyGroups *g, int axis) {
    int n = g->n;
    double *block = calloc((size_t)(g->narms + 3) * 3 * (size_t)n + (size_t)n, sizeof *block), *x = block;
    Series *s = calloc((size_t)g->narms + 2, sizeof *s);
    if (!block || !s) abort();
    for (int i = 0; i < n; i++) x[i] = g->v[i].axis_value[axis];
    double *at = block + n;
    for (int k = 0; k < g->narms; k++, at += 3 * n) {
        for (int i = 0; i < n; i++) at[i] = g->v[i].curve[k].best.mid, at[n + i] = g->v[i].curve[k].best.lo, at[2 * n + i] = g->v[i].curve[k].best.hi;
        int parent = g->v[0].curve[k].parent;
        s[k] = (Series){ g->v[0].curve[k].arm, parent < 0 ? k : parent, parent >= 0, n, x, at, g->nseeds > 1 ? at + n : NULL, g->nseeds > 1 ? at + 2 * n : NULL };
    }
    char *title = text_fmt("best validation loss against %s", g->axis[axis]);
    chart_svg(b, &(Chart){ title, g->axis[axis], "nats per byte", s, g->narms, .log_x = true });
    free(title);
    for (int k = 0; k < 2; k++, at += 3 * n) {
        for (int i = 0; i < n; i++) {
            const Interval *e = k ? &g->v[i].strict.epoch : &g->v[i].paper.epoch;
            at[i] = e->mid, at[n + i] = e->lo, at[2 * n + i] = isfinite(e->hi) ? e->hi : e->mid;
        }
        s[k] = (Series){ k ? "(b) below the best AR run" : "(a) same size and epoch", k, false, n, x, at, g->nseeds > 1 ? at + n : NULL, g->nseeds > 1 ? at + 2 * n : NULL };
    }
    title = text_fmt("crossover against %s", g->axis[axis]);
    chart_svg(b, &(Chart){ title, g->axis[axis], "epoch", s, 2, .log_x = true });
    free(title);
    free(s);
    free(block);
}

/* Every value of the axes that are picked, for every arm: what was tuned, and how much it mattered. */
static void put_sweeps(StrBuf *b, const StudyGroup *v) {
    snU_puts(b, "<table><tr><th>arm</th><th>values</th><th>best validation</th><th>epoch</th><th>seeds</th></tr>\n");
    for (int i = 0; i < v->nsweep; i++) {
        const Sweep *s = &v->sweep[i];
        char text[256], seeds[32];
        snU_puts(b, s->picked ? "<tr style=\"font-weight:bold\">" : "<tr>");
        cell(b, v->curve[s->arm].arm);
        cell(b, s->values);
        cell(b, put_interval(text, &s->best, 4));
        cell(b, put_number(text, s->best_epoch, 1));
        cell(b, put_seeds(seeds, s->best.n));
        snU_puts(b, "</tr>\n");
    }
    snU_puts(b, "</table>\n");
}

static int write_page(const StudyGroups *g) {
    StrBuf b = {0};
    const char *name = json_string_value(json_object_get(g->manifest, "study"));
    snU_puts(&b, "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/><title>");
    chart_escape(&b, name ? name : "study");
    snU_puts(&b, "</title><style>body{font-family:sans-serif;max-width:1500px;margin:2em auto;padding:0 1em}table{border-collapse:collapse;margin:1em 0}"
                 "td,th{padding:3px 10px;border-bottom:1px solid #ddd;text-align:left;font-size:13px}svg{margin:4px}small{color:#666}</style></head><body>\n<h1>");
    chart_escape(&b, name ? name : "study");
    snU_putf(&b, "</h1>\n<p>%d combinations, %d arms, %s. Numbers in [ ] are 95 %% intervals over seeds by the bootstrap (2000 draws). ", g->n, g->narms,
             g->nseeds == 1 ? "<b>one seed: no interval, nothing here is a finding</b>" : "several seeds, each with weights, text and held-out text of its own");
    chart_escape(&b, LIMITS);
    snU_puts(&b, "</p>\n");
    if (g->missing) snU_putf(&b, "<p><b>%d runs are missing or were not evaluated yet.</b></p>\n", g->missing);
    if (g->unfinished) snU_putf(&b, "<p><b>%d runs have not ended: curves and crossovers go as far as all seeds of an arm.</b></p>\n", g->unfinished);
    for (int axis = 0; axis < g->naxes; axis++)
        if (g->naxes == 1 && g->n > 1 && isfinite(g->v[0].axis_value[axis])) put_sweep(&b, g, axis);
    for (int i = 0; i < g->n; i++) {
        const StudyGroup *v = &g->v[i];
        snU_puts(&b, "<h2>");
        chart_escape(&b, *v->label ? v->label : "all runs");
        snU_puts(&b, "</h2>\n");
        put_arms(&b, g, v);
        put_cross(&b, &v->paper, "Crossover (a), the paper's:", PAPER);
        put_cross(&b, &v->strict, "Crossover (b), strict:", STRICT);
        if (v->nsweep) put_sweeps(&b, v);
        plots_put(&b, g, v);
    }
    snU_puts(&b, "</body></html>\n");
    return write_file(g, "report.html", &b);
}

int groups_write(const StudyGroups *g) {
    int rc = write_csv(g);
    if (!rc) rc = write_summary(g);
    return rc ? rc : write_page(g);
}
