/* fuse.h: groups: what becomes one kernel, and where values live.

   `fuse` writes node.group (1 + id) on a graph. A node without a group is virtual: constants, index arithmetic and
   views, computed inside whoever reads them. A group's nodes are computed by one kernel; its outputs are those nodes
   that another group reads, that are graph outputs, or that are the value of an update. Groups run in the order of their ids.
   A concat that is placement (place.c) is a group too, but has no kernel. */
#ifndef SN_FUSE_H
#define SN_FUSE_H
#include "graph/graph.h"

typedef enum { G_ROWS, G_GEMM, G_CONCAT, G_SCATTER, G_PLACE, G_ATTENTION } GroupKind;

typedef struct GroupPart { NodeId value; int64_t at; } GroupPart;   /* at: bytes from the start of the concat */

typedef struct Group {
    GroupKind kind;
    NodeId anchor;                   /* gemm: the matmul; concat, pad, place, scatter_add: that node; rows, attention: the first node */
    VEC(NodeId) nodes;               /* in index order */
    VEC(NodeId) inputs;              /* memory read: leaves and other groups' outputs, each once */
    VEC(int64_t) touched;            /* per input: how many of its elements are read */
    VEC(NodeId) outputs;             /* memory written */
    VEC(NodeId) same;                /* inputs read only at the element being written (of equal count): an output may take their place */
    VEC(uint32_t) after;             /* groups that it waits for without reading from them: behind a fence */
    VEC(GroupPart) parts;            /* place: no kernel, the anchor is these values where they lie (place.c) */
} Group;
typedef struct Groups { VEC(Group) group; } Groups;

typedef struct Layout Layout;
typedef struct FuseOptions {
    unsigned without;                /* bits FUSE_name of pass.h; all of them: one kernel per primitive, views and placed concats free */
    Layout *layout;                  /* of the file's storage so far, which fusion extends; NULL: of this graph alone */
    Groups *groups; Arena *arena;    /* not NULL: what snP_groups would say of the result, in this arena */
} FuseOptions;

/* Graph -> Graph with groups. First normalises: sums over one axis each, an output or update that is a leaf or a constant gets
   a node of its own, and one that is a view is stored (an update that is a slice of a computed value is not: place.c). */
Graph *snP_fuse(const Graph *g, const FuseOptions *o);
Groups snP_groups(const Graph *g, Arena *a);             /* reads node.group and N_PLACED */
bool snP_is_view(const Graph *g, NodeId id);             /* reshape, permute, expand, slice, fence */

/* -- place.c: values that lie inside others ------------------------------------------------------- */
enum { ROW_VALUES = 1, ROW_STORAGE };
typedef struct Rows {
    uint8_t *kind;                   /* per node: a concat that can be placement, of computed values or of weights and states */
    uint8_t *inside;                 /* per node: part of a row that is placed */
    uint8_t *copy;                   /* per entry of g->operands: needs a copy for that */
} Rows;
Rows snP_rows(const Graph *g, Arena *a);
/* Decides row `id`, after all nodes before it: every part in memory and in no other row; else kind[id] becomes 0. */
bool snP_place_row(const Graph *g, Rows *rows, NodeId id, const uint8_t *memory, Layout *l);
/* The value behind reshapes; not beyond one that is in memory itself (memory may be NULL). */
NodeId snP_behind(const Graph *g, NodeId id, const uint8_t *memory);
/* An update's value: the computed value that it is a run of elements of, from byte *at on; or the value itself. */
NodeId snP_update_base(const Graph *g, NodeId value, int64_t *at);

Layout *snP_layout(Arena *a);
Sym snP_layout_find(const Layout *l, Sym name, int64_t *at);   /* the first weight or state of the run that `name` lies in */

/* normalise.c: one axis a sum, a node of its own for every output and update. */
Graph *snP_normalise(const Graph *g);
int snP_summed_axis(const Graph *g, NodeId id);                 /* the axis of a sum of one, counted from 0 */

/* order.c: when each group runs, so that little memory is live; needs an order in which they can. */
void snP_order(const Graph *g, const Groups *groups, Arena *a, uint32_t *when);

/* -- plan.c: where every materialised value lives ------------------------------------------------- */
typedef enum { P_NONE, P_ARENA, P_INPUT, P_STORAGE } PlaceKind;
typedef struct Place { uint8_t kind; int64_t offset, bytes; NodeId leaf; } Place;   /* STORAGE, INPUT: leaf node */
/* After all groups, in this order: an update that could not be written in place. temp: 1 + arena offset of a temporary that stands for `from`
   (then 0) or for the target (to_leaf 0: saves the old value of leaf `from`); 0 = none. */
typedef struct Copy { NodeId from, to_leaf; int64_t temp, at; } Copy;   /* at: bytes into `from`, as many as the leaf has */
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
