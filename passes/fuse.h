/* fuse.h: groups: what becomes one kernel, and where values live.

   `fuse` writes node.group (1 + id) on a graph. A node without a group is virtual: constants, index arithmetic and
   views, computed inside whoever reads them. A group's nodes are computed by one kernel; its outputs are those nodes
   that another group reads, that are graph outputs, or that are the value of an update. Groups run in the order of their ids. */
#ifndef SN_FUSE_H
#define SN_FUSE_H
#include "graph/graph.h"

typedef enum { G_ROWS, G_GEMM, G_CONCAT, G_SCATTER } GroupKind;

typedef struct Group {
    GroupKind kind;
    NodeId anchor;                   /* gemm: the matmul; concat, pad, scatter_add: that node; rows: the first node */
    VEC(NodeId) nodes;               /* in index order */
    VEC(NodeId) inputs;              /* memory read: leaves and other groups' outputs, each once */
    VEC(NodeId) outputs;             /* memory written */
    VEC(NodeId) same;                /* inputs read only at the element being written (of equal count): an output may take their place */
} Group;
typedef struct Groups { VEC(Group) group; } Groups;

typedef struct FuseOptions { unsigned without; } FuseOptions;   /* bits FUSE_name of pass.h; all of them: one kernel per primitive, views free */

/* Graph -> Graph with groups. First normalises: sums over one axis each, an output or update that is a leaf or a constant gets
   a node of its own, and one that is a view is stored. */
Graph *snP_fuse(const Graph *g, const FuseOptions *o);
Groups snP_groups(const Graph *g, Arena *a);             /* reads node.group */
bool snP_is_view(const Graph *g, NodeId id);             /* reshape, permute, expand, slice */

/* -- plan.c: where every materialised value lives ------------------------------------------------- */
typedef enum { P_NONE, P_ARENA, P_INPUT, P_STORAGE } PlaceKind;
typedef struct Place { uint8_t kind; int64_t offset, bytes; NodeId leaf; } Place;   /* STORAGE, INPUT: leaf node */
/* After all groups, in this order: an update that could not be written in place. temp: 1 + arena offset of a temporary that stands for `from`
   (then 0) or for the target (to_leaf 0: saves the old value of leaf `from`); 0 = none. */
typedef struct Copy { NodeId from, to_leaf; int64_t temp; } Copy;
typedef struct Plan {
    Place *place;                    /* per node id: nodes that live in memory */
    VEC(Copy) copies;
    int64_t arena_bytes, live_peak;  /* live_peak: largest sum of live buffers over the steps, a lower bound */
} Plan;
/* Lifetimes -> offsets (64-byte aligned); in place where Group.same allows; updates written straight into their storage when every read of
   the old value comes before. Also writes node.offset so that the plan prints. */
Plan snP_plan(Graph *g, const Groups *groups, Arena *a);

/* The packing alone: boxes live from time first to last, both included, get offsets; returns the arena's size. */
typedef struct PlanBox { int64_t bytes; int first, last; } PlanBox;
int64_t snP_pack(const PlanBox *box, int n, Arena *a, int64_t *offset);
int64_t snP_live_peak(const PlanBox *box, int n, Arena *a);   /* the largest sum of live sizes, each a multiple of 64 */

#endif
