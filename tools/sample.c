/* sample.c: tokens from logits. In: logits of one position, a rule, where in the random numbers. Out: a token and how sure it is. */
#include "tools/sample.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/sn_rt.h"

double draw_uniform(Draw d, uint64_t index) {
    uint32_t key[2] = { (uint32_t)d.seed, (uint32_t)(d.seed >> 32) }, w[4];
    uint32_t ctr[4] = { (uint32_t)index, (uint32_t)(index >> 32), d.step, d.text };
    sn_philox(key, ctr, w);
    return ((double)(((uint64_t)w[1] << 32 | w[0]) >> 11) + 0.5) * 0x1p-53;
}

static int64_t largest(const float *v, int64_t n) {
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
        if (v[i] > v[at]) at = i;
    return at;
}

double log_sum_exp(const float *logits, int64_t n) {
    double top = logits[largest(logits, n)], sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)logits[i] - top);
    return top + log(sum);
}

typedef struct Choice { double p; int32_t token; } Choice;

static int likelier(const void *a, const void *b) {
    const Choice *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : x->token - y->token;
}

int32_t sample_token(const SampleRule *rule, const float *logits, int64_t n, Draw d) {
    int64_t top = largest(logits, n), kept = 0;
    Choice *c = rule->temperature > 0 ? malloc(sizeof *c * (size_t)n) : NULL;
    if (!c) return (int32_t)top;
    double all = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        c[i] = (Choice){ exp(((double)logits[i] - logits[top]) / rule->temperature), (int32_t)i };
        all += c[i].p;
    }
    qsort(c, (size_t)n, sizeof *c, likelier);
    int64_t most = rule->top_k && rule->top_k < n ? rule->top_k : n;
    if (most < n) {
        all = 0;
        for (int64_t i = 0; i < most; i++) all += c[i].p;
    }
    while (kept < most && (!kept || sum < rule->top_p * all)) sum += c[kept++].p;
    double u = draw_uniform(d, 0) * sum;
    int64_t at = 0;
    while (at < kept - 1 && u >= c[at].p) u -= c[at++].p;
    int32_t token = c[at].token;
    free(c);
    return token;
}

Guess sample_guess(const float *logits, int64_t n, int32_t never, double temperature, Remask by, Draw d, uint64_t position) {
    Guess g = { -1, 0 };
    double best = 0, first = -INFINITY, second = -INFINITY, sum = 0, mean = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == never) continue;
        double l = logits[i], v = temperature > 0 ? l - temperature * log(-log(draw_uniform(d, position * (uint64_t)n + (uint64_t)i))) : l;
        if (g.token < 0 || v > best) best = v, g.token = (int32_t)i;
        if (l > first) second = first, first = l;
        else if (l > second) second = l;
    }
    for (int64_t i = 0; i < n; i++) {
        double e = i == never ? 0 : exp((double)logits[i] - first);
        sum += e;
        mean += e > 0 ? e * ((double)logits[i] - first) : 0;
    }
    switch (by) {
    case REMASK_RANDOM: g.sure = draw_uniform((Draw){ ~d.seed, d.text, d.step }, position); break;
    case REMASK_CONFIDENCE:
    case REMASK_THRESHOLD: g.sure = exp((double)logits[g.token] - first) / sum; break;
    case REMASK_MARGIN: g.sure = (1 - exp(second - first)) / sum; break;
    case REMASK_ENTROPY: g.sure = mean / sum - log(sum); break;
    }
    return g;
}

void sample_posterior(const float *logits, int64_t n, int32_t z, double alpha, double alpha_next, double temperature, double *p) {
    int64_t top = largest(logits, n);
    double a = alpha / alpha_next, sum = 0, all = 0;
    for (int64_t j = 0; j < n; j++) {
        p[j] = temperature > 0 ? exp(((double)logits[j] - logits[top]) / temperature) : j == top;
        sum += p[j];
    }
    for (int64_t j = 0; j < n; j++) {
        p[j] = ((j == z ? a : 0) + (1 - a) / (double)n) * (alpha_next * p[j] / sum + (1 - alpha_next) / (double)n);
        all += p[j];
    }
    for (int64_t j = 0; j < n; j++) p[j] /= all;
}

int32_t sample_from(const double *p, int64_t n, double u) {
    int64_t at = 0, last = 0;                                    /* rounding may leave some of u behind: the last token that can come */
    for (; at < n; u -= p[at++]) {
        if (p[at] > 0) last = at;
        if (u < p[at]) return (int32_t)at;
    }
    return (int32_t)last;
}

void sample_guide(float *cond, const float *un, int64_t n, double scale) {
    for (int64_t i = 0; i < n; i++) cond[i] = (float)(un[i] + (scale + 1) * ((double)cond[i] - un[i]));
}
