/* family.h: a group of nodes becomes tile programs. The families know shapes, axes and index maps; what the elementwise
   cones around them compute comes from the graph. */
#ifndef SN_FAMILY_H
#define SN_FAMILY_H
#include "codegen/tile.h"
#include "passes/fuse.h"

typedef struct GroupTile { Tile *tile; VEC(NodeId) args; } GroupTile;    /* args[i]: the node behind tile param i, 0 = local */
typedef struct GroupTiles { VEC(GroupTile) v; } GroupTiles;              /* usually one; concat parts of several shapes give several */
GroupTiles snK_group_tiles(const Graph *g, const Group *grp, const Target *t, Arena *a);

/* -- program.c: a whole graph set to a program ------------------------------------------------------- */
struct SnProgram;

/* What was built, kept for reports: per graph the graph with its groups, the group of each launch (-1: a copy after all groups), and
   per node 1 + the buffer it lives in (0: nowhere). */
typedef struct BuiltGraph { const char *name; Graph *g; Groups groups; VEC(int) group_of; int32_t *buffer_of; } BuiltGraph;
typedef struct BuildTrace { Arena arena; VEC(BuiltGraph) graphs; } BuildTrace;
void snK_free_trace(BuildTrace *t);                      /* before the context */

typedef struct BuildOptions {
    const char *target;              /* "host" */
    bool train;                      /* make the train graph's backward and optimizer (train, accum, apply) */
    const char *order;               /* or: these passes for every graph (pass.h, SNP_ORDER_*) */
    BuildTrace *trace;               /* filled, may be NULL */
    const char *fuse;                /* as PassOptions.fuse */
    const char *autocast, *recompute;/* as PassOptions; NULL = neither */
    const char *sched;               /* overrides, may be NULL */
    int threads;                     /* of the compiler; 0 = all cores */
    bool verbose;                    /* one line per kernel on stderr */
} BuildOptions;
/* Of all graphs together; train_s: passes and plan of the graph `train` alone. */
typedef struct BuildStats {
    double passes_s, plan_s, train_s, lower_s, compile_s;
    int nodes, groups, kernels, unique_kernels;
    int64_t arena_bytes, live_peak;
} BuildStats;
/* Runs the pipeline on every graph of the module ("train" becomes train or accum + apply) and compiles. NULL on failure (sn_ctx holds the message). */
struct SnProgram *snK_build(Module *m, const BuildOptions *o, BuildStats *stats);

/* -- ptxas.c ------------------------------------------------------------------------------------------- */

typedef struct PtxasKernel { int registers, shared, stack, spill_stores, spill_loads; } PtxasKernel;  /* shared: static; all but registers in bytes */
/* A program for ptx:sm_NN assembled for that card (malloc'ed), and what its kernels take (zeroed room for p->nkernels). 0 or a code of sn_err: where
   there is no ptxas, SN_UNSUPPORTED. */
int snK_ptxas(sn_ctx *c, const struct SnProgram *p, PtxasKernel *kernels, void **cubin, size_t *bytes, char err[512]);

#endif
