/* measure_texts.c: generated texts before a judge (generative perplexity), with the entropy of their tokens.

   In:  JSON lines. Out: perplexity and entropy. */
#include "tools/measure.h"

#include <math.h>
#include <stdlib.h>

typedef struct Texts { Scorer *s; Arena a; VEC(Tokens) t; int64_t empty; } Texts;

static int read_text_line(void *user, const char *path, int line, const json_t *o) {
    Texts *x = user;
    size_t n = 0;
    Tokens t;
    const char *text = json_text(path, line, o, json_object_get(o, "completion") ? "completion" : "text", &n);
    if (!text || x->s->tok->encode(x->s->tok, text, n, &t)) return EXIT_FAILED;
    if (t.n) PUSH(&x->a, x->t, ((Tokens){ snU_copy(&x->a, t.v, sizeof *t.v * (size_t)t.n), t.n }));
    else x->empty++;
    free(t.v);
    return 0;
}

static int by_value(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static double entropy(Arena *a, const Tokens *t) {
    int32_t *v = snU_copy(a, t->v, sizeof *v * (size_t)t->n);
    double sum = 0;
    qsort(v, (size_t)t->n, sizeof *v, by_value);
    for (int64_t i = 0, k; i < t->n; i = k) {
        for (k = i; k < t->n && v[k] == v[i]; ) k++;
        double p = (double)(k - i) / (double)t->n;
        sum -= p * log(p);
    }
    return sum;
}

/* The pieces of all texts, and of which text each is. */
typedef struct Pieces { VEC(Passage) p; VEC(uint32_t) of; } Pieces;

static void cut(Texts *x, Pieces *pieces) {
    for (uint32_t i = 0; i < x->t.n; i++)
        for (int64_t from = 0, window = x->s->window; from < x->t.v[i].n; from += window) {
            int64_t n = x->t.v[i].n - from < window ? x->t.v[i].n - from : window;
            PUSH(&x->a, pieces->p, ((Passage){ .v = x->t.v[i].v + from, .n = n, .from = 0, .to = n, .number = pieces->p.n }));
            PUSH(&x->a, pieces->of, i);
        }
}

/* The mean per token is a ratio of sums over texts; its error that of a ratio. */
static void summarise(Texts *x, const double *nats, TextsResult *out) {
    double sum = 0, square = 0, n = (double)x->t.n;
    Sum h = {0};
    for (uint32_t i = 0; i < x->t.n; i++) {
        sum += nats[i];
        out->tokens += x->t.v[i].n;
        sum_put(&h, entropy(&x->a, &x->t.v[i]));
    }
    out->texts = x->t.n;
    out->empty = x->empty;
    out->nll = sum / (double)out->tokens;
    for (uint32_t i = 0; i < x->t.n; i++) {
        double rest = nats[i] - out->nll * (double)x->t.v[i].n;
        square += rest * rest;
    }
    out->se = n > 1 ? sqrt(square * n / (n - 1)) / (double)out->tokens : 0;
    out->perplexity = exp(out->nll);
    out->low = exp(out->nll - 1.959963984540054 * out->se);
    out->high = exp(out->nll + 1.959963984540054 * out->se);
    out->entropy = sum_mean(&h);
}

int measure_texts(Scorer *s, const char *path, TextsResult *out) {
    Texts x = { .s = s };
    Pieces pieces = {0};
    *out = (TextsResult){0};
    int rc = json_lines(path, read_text_line, &x);
    if (!rc && !x.t.n) rc = cmd_fail("%s has no texts", path);
    cut(&x, &pieces);
    if (!rc) rc = scorer_run(s, pieces.p.v, pieces.p.n);
    double *nats = NEWN(&x.a, double, x.t.n + 1);
    for (uint32_t i = 0; i < pieces.p.n; i++) nats[pieces.of.v[i]] += pieces.p.v[i].nll;
    if (!rc) summarise(&x, nats, out);
    snU_free_arena(&x.a);
    return rc;
}
