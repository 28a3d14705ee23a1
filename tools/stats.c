/* stats.c: see stats.h. */
#include "tools/stats.h"

#include <math.h>

Share share_of(int64_t hits, int64_t n) {
    const double z = 1.959963984540054;
    double N = (double)n, p = n ? (double)hits / N : 0, d = 1 + z * z / N, mid = (p + z * z / (2 * N)) / d;
    double half = z / d * sqrt(p * (1 - p) / N + z * z / (4 * N * N));
    return n ? (Share){ p, fmax(0, mid - half), fmin(1, mid + half), n > 1 ? sqrt(p * (1 - p) / (N - 1)) : 0, n } : (Share){0};
}

void sum_put(Sum *s, double v) { s->sum += v, s->square += v * v, s->n++; }

Mean sum_mean(const Sum *s) {
    double n = (double)s->n, m = s->n ? s->sum / n : 0;
    return (Mean){ m, s->n > 1 ? sqrt(fmax(0, s->square - s->sum * m) / (n - 1) / n) : 0 };
}
