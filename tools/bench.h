/* bench.h: what the benchmarks share. */
#ifndef SN_BENCH_H
#define SN_BENCH_H
#include <jansson.h>

#include "tools/lab.h"

typedef struct BenchOptions {
    const char *file, *fuse, *shapes, *dtype;
    StrList defines, sets;
    PassOptions passes;
    int64_t threads, steps, top;
    bool json, compare;
} BenchOptions;

int bench_gemm(const BenchOptions *o);           /* bench_gemm.c */
void bench_row(json_t *row);                     /* prints one object on one line and frees it */

#endif
