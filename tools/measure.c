/* measure.c: what is measured on windows of text by the graph `logits`.

   In:  a scorer, windows. Out: numbers with their errors. */
#include "tools/measure.h"

#include <math.h>
#include <stdlib.h>

int measure_order(Scorer *s, const Windows *w, OrderResult *out) {
    Passage *p = whole_windows(w);
    int rc = p ? scorer_run(s, p, w->n) : EXIT_FAILED;
    Sum nll = {0};
    double var = 0, T = (double)w->length, W = (double)w->n;
    *out = (OrderResult){ .windows = w->n };
    for (int64_t i = 0; i < w->n && !rc; i++) {
        sum_put(&nll, p[i].nll / T);
        var += p[i].se / T * p[i].se / T;
        out->mixture += p[i].mixture / T / W;
    }
    out->nll = sum_mean(&nll);
    out->order_se = sqrt(var) / W;
    free(p);
    return rc;
}

/* -- The next token ------------------------------------------------------------------------------------------------- */

typedef struct Places {
    int64_t *at, per_window, length;
    double *hits, *nll;              /* sums of a window */
    const Passage *first;
    bool whole;                      /* passages are windows, of which the places count; else each passage is a place */
} Places;

static bool is_place(const Places *x, const Seen *seen) {
    const int64_t *at = x->at + (seen->p - x->first) * x->per_window;
    for (int64_t k = 0; k < x->per_window; k++)
        if (at[k] == seen->at) return true;
    return false;
}

static void see_place(void *user, const Seen *seen) {
    Places *x = user;
    if (x->whole && !is_place(x, seen)) return;
    int64_t best = -1, window = (seen->p - x->first) / (x->whole ? 1 : x->per_window);
    for (int64_t i = 0; i < seen->vocab; i++)
        if (i != seen->mask && (best < 0 || seen->logits[i] > seen->logits[best])) best = i;
    x->hits[window] += best == seen->p->v[seen->at];
    x->nll[window] += seen->nll;
}

/* One place at random in each of as many stretches of a window, of equal length. */
static void choose_places(const Scorer *s, Places *x, int64_t windows) {
    for (int64_t i = 0; i < windows; i++)
        for (int64_t k = 0; k < x->per_window; k++) {
            int64_t from = k * x->length / x->per_window, to = (k + 1) * x->length / x->per_window;
            x->at[i * x->per_window + k] = from + random_below(random_word(s->o.seed, (uint64_t)i, 0x4eu, (uint32_t)k), to - from);
        }
}

static int run_places(Scorer *s, Places *x, const Windows *w) {
    int64_t n = x->whole ? w->n : w->n * x->per_window;
    Passage *p = x->whole ? whole_windows(w) : calloc((size_t)n, sizeof *p);
    Order order = s->o.order;
    if (!p) return cmd_fail("out of memory");
    for (int64_t i = 0; i < n && !x->whole; i++)
        p[i] = (Passage){ .v = w->v + i / x->per_window * w->length, .n = w->length, .from = x->at[i], .to = w->length, .steps = 1 };
    x->first = p;
    s->o.order = ORDER_LEFT;
    s->see = see_place;
    s->user = x;
    int rc = scorer_run(s, p, n);
    s->see = NULL;
    s->o.order = order;
    free(p);
    return rc;
}

int measure_next_token(Scorer *s, const Windows *w, int64_t places, NextToken *out) {
    if (places < 1 || places > w->length) places = w->length;
    size_t W = (size_t)w->n;
    Places x = { .at = malloc(sizeof *x.at * W * (size_t)places), .hits = calloc(W, sizeof *x.hits), .nll = calloc(W, sizeof *x.nll),
                 .per_window = places, .length = w->length, .whole = s->ar };
    int rc = x.at && x.hits && x.nll ? 0 : cmd_fail("out of memory");
    if (!rc) choose_places(s, &x, w->n);
    if (!rc) rc = run_places(s, &x, w);
    Sum hits = {0}, nll = {0};
    for (int64_t i = 0; i < w->n && !rc; i++) sum_put(&hits, x.hits[i] / (double)places), sum_put(&nll, x.nll[i] / (double)places);
    *out = (NextToken){ sum_mean(&hits), sum_mean(&nll), w->n, places };
    free(x.at);
    free(x.hits);
    free(x.nll);
    return rc;
}
