/* measure_temperature.c: a temperature fitted on one text, the loss of another with it.

   In:  a scorer, windows of two texts. Out: the temperature, losses before and after.

   With b = 1 / temperature the loss lse(b l) - b l_y is convex in b. Its slope E[l] - l_y, the mean under softmax(b l), is summed over the text to
   fit on for all b of a grid, in one pass of the model; between the two where it changes its sign it is taken for linear in ln b. */
#include "tools/measure.h"

#include <math.h>
#include <stdlib.h>

enum { GRID = 41 };                  /* b from 1/4 to 4 */

typedef struct Fit { double b[GRID], slope[GRID]; } Fit;

/* Sums over the vocabulary of e = exp(b (l - top)) and of e (l - top). */
static void sums(const Seen *seen, double top, double b, double *e, double *el) {
    *e = *el = 0;
    for (int64_t i = 0; i < seen->vocab; i++) {
        double x = seen->logits[i] - top, v = exp(b * x);
        *e += v;
        *el += v > 0 ? v * x : 0;
    }
}

static double top_of(const Seen *seen) {
    double top = seen->logits[0];
    for (int64_t i = 1; i < seen->vocab; i++) top = fmax(top, seen->logits[i]);
    return top;
}

static void see_slope(void *user, const Seen *seen) {
    Fit *f = user;
    double top = top_of(seen), mine = seen->logits[seen->p->v[seen->at]] - top, e, el;
    for (int k = 0; k < GRID; k++) {
        sums(seen, top, f->b[k], &e, &el);
        f->slope[k] += seen->weight * (el / e - mine);
    }
}

static double best_b(const Fit *f, bool *at_edge) {
    int k = 0;
    while (k < GRID && f->slope[k] < 0) k++;
    *at_edge = k == 0 || k == GRID;
    if (*at_edge) return f->b[k == 0 ? 0 : GRID - 1];
    double low = f->slope[k - 1], high = f->slope[k], at = low / (low - high);
    return f->b[k - 1] * pow(f->b[k] / f->b[k - 1], at);
}

typedef struct Rescore { double b, *nats; const Passage *first; } Rescore;

static void see_scaled(void *user, const Seen *seen) {
    Rescore *r = user;
    double top = top_of(seen), e, el;
    sums(seen, top, r->b, &e, &el);
    r->nats[seen->p - r->first] += seen->weight * (log(e) - r->b * (seen->logits[seen->p->v[seen->at]] - top));
}

static int run_seen(Scorer *s, Passage *p, int64_t n, void (*see)(void *, const Seen *), void *user) {
    s->see = see;
    s->user = user;
    int rc = scorer_run(s, p, n);
    s->see = NULL;
    return rc;
}

static void compare(const Scorer *s, const Windows *w, const Passage *p, const double *nats, Temperature *out) {
    double T = (double)w->length, draws = (double)passage_draws(s, &p[0]);
    Sum raw = {0}, scaled = {0}, gain = {0};
    for (int64_t i = 0; i < w->n; i++) {
        sum_put(&raw, p[i].nll / T);
        sum_put(&scaled, nats[i] / draws / T);
        sum_put(&gain, (p[i].nll - nats[i] / draws) / T);
    }
    out->raw = sum_mean(&raw);
    out->scaled = sum_mean(&scaled);
    out->gain = sum_mean(&gain);
}

int measure_temperature(Scorer *s, const Windows *fit, const Windows *test, Temperature *out) {
    Fit f = {0};
    Passage *p = whole_windows(fit), *q = whole_windows(test);
    double *nats = calloc((size_t)test->n, sizeof *nats);
    int rc = p && q && nats ? 0 : cmd_fail("out of memory");
    *out = (Temperature){ .fit_windows = fit->n, .windows = test->n };
    for (int k = 0; k < GRID; k++) f.b[k] = 0.25 * pow(16, (double)k / (GRID - 1));
    if (!rc) rc = run_seen(s, p, fit->n, see_slope, &f);
    Rescore r = { best_b(&f, &out->at_edge), nats, q };
    out->temperature = 1 / r.b;
    if (!rc) rc = run_seen(s, q, test->n, see_scaled, &r);
    if (!rc) compare(s, test, q, nats, out);
    free(nats);
    free(p);
    free(q);
    return rc;
}
