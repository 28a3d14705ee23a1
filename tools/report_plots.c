/* report_plots.c: what a group of a study (report.h) looks like: loss, accuracy and gap along epochs, tokens and FLOPs counted three ways, and
   what each arm's best cost to train and costs to run.

   In:  a group. Out: SVG elements on the page, each also a file of its own, OUT/plots/<group>.<what>.svg; a table.

   FLOPs: 6ND is 6 x weights that a token uses x tokens; the graph's are those of all matrix products of a step, forward, backward, recomputed,
   as if masks left everything; executed are without blocks of attention that masks of indices leave empty, and without rows of the
   vocabulary projection that have no loss. */
#include "tools/chart.h"
#include "tools/report.h"

#include <math.h>

typedef enum { EPOCHS, TOKENS, FLOPS_6ND, FLOPS_GRAPH, FLOPS_EXECUTED, NX } XAxis;
static const char *const x_name[NX] = { "epoch", "tokens", "FLOPs (6ND)", "FLOPs (graph)", "FLOPs (executed)" };
static const char *const x_file[NX] = { "epochs", "tokens", "6nd", "graph", "executed" };

/* -- A chart on the page and in a file ------------------------------------------------------------------------------------- */

static void put_chart(StrBuf *page, const StudyGroups *g, const char *name, const Chart *c) {
    StrBuf b = {0};
    char *folder = text_fmt("%s/plots", g->folder), *path = text_fmt("%s/%s.svg", folder, name);
    chart_svg(&b, c);
    snU_puts(page, b.s);
    if (!make_folder(folder)) write_text(path, b.s, b.n);
    free(path);
    free(folder);
    snU_free_buf(&b);
}

/* The upper half of an overfitting run would flatten everything else. */
static double top_of(const StudyGroups *g, const StudyGroup *v) {
    double low = INFINITY, high = 0;
    for (int k = 0; k < g->narms; k++)
        for (int p = 0; p < v->curve[k].n; p++) low = fmin(low, v->curve[k].val[p]), high = fmax(high, v->curve[k].val[p]);
    return fmin(high * 1.02, low * 1.9);
}

/* -- Curves ----------------------------------------------------------------------------------------------------------------- */

typedef enum { LOSS, ACCURACY, GAP, NY } YAxis;
static const char *const y_name[NY] = { "validation loss", "accuracy", "gap between wrong and right options" };
static const char *const y_unit[NY] = { "nats per token", "share", "nats" };
static const char *const y_file[NY] = { "loss", "accuracy", "gap" };

static int points_of(const Curve *c, YAxis y) { return y == LOSS ? c->n : c->na; }

/* FLOPs are proportional to tokens, all but executed ones, which the evaluations know. */
static double x_of(const Curve *c, YAxis y, XAxis x, int i) {
    double tokens = y == LOSS ? c->tokens[i] : c->a_tokens[i];
    int last = c->n - 1;
    switch (x) {
    case EPOCHS: return y == LOSS ? c->epoch[i] : c->a_epoch[i];
    case TOKENS: return tokens;
    case FLOPS_6ND: return 6 * c->active * tokens;
    case FLOPS_GRAPH: return last < 0 ? NAN : c->flops[last] / c->tokens[last] * tokens;
    default: return last < 0 ? NAN : y == LOSS ? c->executed[i] : c->executed[last] / c->tokens[last] * tokens;
    }
}

/* An anneal has its arm's colour, dashed. */
static void put_curves(StrBuf *page, const StudyGroups *g, const StudyGroup *v, YAxis y, XAxis x) {
    Series *s = calloc((size_t)g->narms + 1, sizeof *s);
    double **made = calloc((size_t)g->narms + 1, sizeof *made);
    int n = 0;
    bool any = false;
    if (!s || !made) abort();
    for (int k = 0; k < g->narms; k++) {
        const Curve *c = &v->curve[k];
        int np = points_of(c, y);
        if (!np) continue;
        made[k] = calloc((size_t)np, sizeof **made);
        if (!made[k]) abort();
        for (int p = 0; p < np; p++) made[k][p] = x_of(c, y, x, p);
        const double *mid[NY] = { c->val, c->acc, c->gap }, *lo[NY] = { c->lo, c->acc_lo, c->gap_lo }, *hi[NY] = { c->hi, c->acc_hi, c->gap_hi };
        s[n++] = (Series){ c->arm, c->parent < 0 ? k : c->parent, c->parent >= 0, np, made[k], mid[y], c->seeds > 1 ? lo[y] : NULL, c->seeds > 1 ? hi[y] : NULL };
        any |= isfinite(made[k][np - 1]) && isfinite(mid[y][np - 1]);
    }
    char *title = text_fmt("%s%s%s against %s", v->label, *v->label ? ": " : "", y_name[y], x_name[x]);
    char *name = text_fmt("%s.%s-%s", *v->label ? v->label : "all", y_file[y], x_file[x]);
    if (any) put_chart(page, g, name, &(Chart){ title, x_name[x], y_unit[y], s, n, .log_x = x != EPOCHS, .top = y == LOSS ? top_of(g, v) : 0 });
    free(title);
    free(name);
    for (int k = 0; k < g->narms; k++) free(made[k]);
    free(made);
    free(s);
}

/* -- What it costs ------------------------------------------------------------------------------------------------------------ */

static void put_cell(StrBuf *b, const char *fmt, double v) {
    snU_puts(b, "<td>");
    if (isfinite(v)) snU_putf(b, fmt, v);
    else snU_puts(b, "-");
    snU_puts(b, "</td>");
}

Cost cost_at_best(const Curve *c) {
    Cost k = { NAN, NAN, NAN, NAN };
    int last = c->n - 1;
    if (last < 0 || !(c->epoch[last] > 0)) return k;
    k.tokens = c->best_epoch * c->tokens[last] / c->epoch[last];
    k.nd = 6 * c->active * k.tokens;
    k.graph = c->flops[last] / c->tokens[last] * k.tokens;
    k.executed = c->executed[last] / c->tokens[last] * k.tokens;
    return k;
}

/* Training: up to the best evaluation. Running: S forward passes over all T tokens, against T over one token each with a cache of keys and values. */
static void put_cost(StrBuf *b, const StudyGroups *g, const StudyGroup *v) {
    Cost first = { NAN, NAN, NAN, NAN };
    snU_puts(b, "<table><tr><th>arm</th><th>tokens to its best</th><th>FLOPs 6ND</th><th>graph</th><th>executed</th><th>executed, over the first arm's</th>"
                "<th>to generate T tokens</th></tr>\n");
    for (int k = 0; k < g->narms; k++) {
        const Curve *c = &v->curve[k];
        if (!c->seeds) continue;
        Cost cost = cost_at_best(c);
        if (isnan(first.nd)) first = cost;
        snU_puts(b, "<tr><td>");
        chart_escape(b, c->arm);
        snU_puts(b, "</td>");
        put_cell(b, "%.3g", cost.tokens);
        put_cell(b, "%.3g", cost.nd);
        put_cell(b, "%.3g", cost.graph);
        put_cell(b, "%.3g", cost.executed);
        put_cell(b, "%.3g", isfinite(cost.executed) ? cost.executed / first.executed : cost.graph / first.graph);
        if (c->bound) snU_putf(b, "<td>2ND S T: %.3g with S = T = %.0f steps, %.0f times AR with a cache; S = T/4: %.0f times</td></tr>\n", 2 * c->active * c->window * c->window,
                               c->window, c->window, c->window / 4);
        else snU_putf(b, "<td>2ND T: %.3g with a cache of keys and values, T = %.0f</td></tr>\n", 2 * c->active * c->window, c->window);
    }
    snU_puts(b, "</table>\n<p><small>Compute: 6ND, 6 x active weights x tokens; graph, all matrix products of a step as if masks left everything; executed, without "
                "blocks that masks of indices leave empty and without rows of the vocabulary projection that have no loss. Attention's own products are not in 2ND.</small></p>\n");
}

void plots_put(StrBuf *page, const StudyGroups *g, const StudyGroup *v) {
    put_cost(page, g, v);
    for (int x = 0; x < NX; x++) put_curves(page, g, v, LOSS, (XAxis)x);
    for (int x = 0; x < NX; x++) put_curves(page, g, v, ACCURACY, (XAxis)x);
    put_curves(page, g, v, GAP, EPOCHS);
}
