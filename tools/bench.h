/* bench.h: what the benchmarks share: a graph built and run twice, fused and unfused, timed in turn and compared. */
#ifndef SN_BENCH_H
#define SN_BENCH_H
#include <jansson.h>

#include "tools/lab.h"

typedef struct BenchOptions {
    const char *file, *fuse, *shapes, *masks, *dirs, *seq, *dim, *picture, *predict, *dtype, *device, *target, *sched;
    StrList defines, sets;
    Settings set;
    PassOptions passes;
    int64_t threads, steps, top, heads, kv_heads, batch;
    double counted;                  /* share of the rows that a device counts, for a prediction; 0 = all */
    bool json, alone;
} BenchOptions;

int bench_gemm(const BenchOptions *o);
int bench_model(const BenchOptions *o);
int bench_rows(const BenchOptions *o);
int bench_attention(const BenchOptions *o);
int bench_xent(const BenchOptions *o);
int bench_bundle(const BenchOptions *o);
int bench_predict(const BenchOptions *o);

static inline const char *bench_dtype(const BenchOptions *o) { return o->dtype ? o->dtype : o->passes.autocast ? o->passes.autocast : "f32"; }
void bench_row(json_t *row);                     /* prints one object on one line and frees it */

/* -- bench_pair.c: one graph, two builds ---------------------------------------------------------------- */

typedef struct Side {
    const char *fuse;
    Lab lab;
    BuildTrace trace;
    const BuiltGraph *built;
    const SnGraphPlan *g;
    sn_kernel_time *now;             /* per launch, of the last run */
    double *best;                    /* per launch, seconds */
    double step;                     /* the best whole run, seconds */
} Side;

typedef int (*FeedFn)(Lab *lab, const SnGraphPlan *g, void *user);   /* binds the inputs of a side; 0 or 1 after a line */

typedef struct PairOptions {
    const char *file, *text, *order; /* as LabOptions; order NULL: a training step */
    const char *graph;               /* "train" */
    PassOptions passes;              /* autocast, recompute */
    const char *fuse[2];             /* of the two sides; [1] NULL: one side only */
    const StrList *defines;
    const Settings *set;
    FeedFn feed;
    void *user;
    int threads;
    const char *device, *target, *sched;   /* as in LabOptions */
    bool bf16;                       /* the peak of products is that of bf16, though nothing is cast; autocast says so too */
} PairOptions;

typedef struct Pair {
    PairOptions o;
    int sides;
    Side side[2];                    /* fused, unfused */
    double peak, bandwidth;          /* GFLOP/s and GB/s, the largest measured in this process */
    int compared;                    /* tensors; the one nearest to its limit, and how near (1: at it) */
    char worst[64];
    double nearness;
} Pair;

int pair_open(Pair *p, const PairOptions *o);    /* 0 or 1 after an error line, as all of these; pair_close is right after a failure too */
/* One run of each from equal weights; what the results may differ by is derived at the head of bench_pair.c. */
int pair_compare(Pair *p);
/* Runs both in turn, `runs` times each (0: as many as fit into `seconds`, 5 at least), after a measurement of peak and bandwidth. */
int pair_time(Pair *p, int64_t runs, double seconds);
void pair_close(Pair *p);
double pair_roofline(const Pair *p, double flops, double bytes);   /* the least seconds that so much work takes here */

/* -- bench_regions.c: where the time goes, and what each fused kernel replaces ------------------------------ */

typedef struct KernelRow {           /* kernels of equal layers and one name */
    char name[64];
    const char *family, *dir;        /* dir: fwd, bwd, optim */
    int kernels, launches;
    double seconds, flops, bytes;    /* of all of them */
    bool bound;                      /* flops and bytes of all rows, though a count on the device leaves some out */
    double unfused, parts;           /* fused side: seconds and kernels of the unfused side that they replace */
} KernelRow;
typedef struct KernelRows { KernelRow *v; int n; } KernelRows;

typedef struct KernelBar { const char *name, *family, *dir; double seconds, flops, bytes; } KernelBar;   /* one kernel, in order */
typedef struct KernelBars { KernelBar *v; int n; } KernelBars;

KernelRows side_rows(const Pair *p, int side);   /* slowest first; malloc'ed */
const char *node_direction(const Graph *g, NodeId id);
KernelBars side_bars(const Pair *p, int side);   /* malloc'ed */
/* The largest set of values alive at once: of all, and without gradients of weights and the optimizer's temporaries. */
typedef struct Memory { int64_t arena, activations, storage; } Memory;
Memory side_memory(const Side *s);

/* -- bench_case.c: one small graph, one direction ---------------------------------------------------------- */

/* text: the graph `g`. only NULL: all its kernels count; "fwd" or "bwd": those of its output `loss` or of that one's gradients. */
typedef struct Case { const char *name, *text, *only; bool grad; int64_t vocab, docs; double share; } Case;
typedef struct CaseTime {
    double seconds[2];               /* fused, unfused */
    double bytes;                    /* that one kernel for all of it would read and write */
    int64_t arena[2];
    int launches[2];
    double peak, bandwidth;
} CaseTime;
int case_run(const BenchOptions *o, const Case *c, CaseTime *out);
bool case_dir(const BenchOptions *o, const char *dir);              /* does --dir want it */
/* The next item of a comma list: false at its end; else `out` holds it. */
bool next_item(const char **list, char *out, size_t cap);

/* -- bench_picture.c: both timelines and the roofline as one file ---------------------------------------------- */
int bench_picture(const Pair *p, const char *title, const char *path);   /* .svg or .html */

#endif
