/* stats.h: shares and means with what they may be off by. */
#ifndef SN_STATS_H
#define SN_STATS_H
#include <stdint.h>

/* A share of n with Wilson's 95 % interval; se as lm-evaluation-harness gives it: sqrt(p (1 - p) / (n - 1)). */
typedef struct Share { double p, low, high, se; int64_t n; } Share;
Share share_of(int64_t hits, int64_t n);

typedef struct Mean { double mean, se; } Mean;               /* se: standard error, 0 of fewer than two */
typedef struct Sum { double sum, square; int64_t n; } Sum;
void sum_put(Sum *s, double v);
Mean sum_mean(const Sum *s);

#endif
