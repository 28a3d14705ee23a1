/* index.h: where an element comes from. A kernel iterates over a domain of dims d0..dn-1; a coordinate of any tensor it
   touches is an affine form c + sum k_i d_i. Views (reshape, permute, expand, slice) only rewrite coordinates, so they cost
   nothing; a reshape that would need a division of a dim is refused, and that view is then stored instead. */
#ifndef SN_INDEX_H
#define SN_INDEX_H
#include "graph/graph.h"

enum { MAX_DOM = 8 };
typedef struct Lin { int64_t c, k[MAX_DOM]; } Lin;
typedef struct Dom { int n; int64_t ext[MAX_DOM]; } Dom;

Lin snP_dim(int i);                                      /* the form d_i */
Lin snP_lin(int64_t c);
Lin snP_axpy(int64_t a, Lin x, Lin y);                   /* a x + y */
bool snP_same_lin(const Lin *a, const Lin *b);

/* Row-major element number of coordinates at[] in a tensor of type t. */
Lin snP_linear(const Type *t, const Lin *at);
/* Coordinates of element number e in type t; false when a division would be needed. */
bool snP_coords(const Dom *dom, Lin e, const Type *t, Lin *at);
/* Coordinates of a view's operand from the view's own. False: not affine. at has MAX_RANK entries. */
bool snP_through(const Graph *g, NodeId view, const Dom *dom, const Lin *at, Lin *operand_at);
/* The other way, for stores: coordinates of a reshape or permute from its operand's. */
bool snP_onto(const Graph *g, NodeId view, const Dom *dom, const Lin *operand_at, Lin *at);

/* The coarsest domain in which both shapes' axes are whole dims: [2048, 192] and [16, 128, 192] give [16, 128, 192]. Axes of
   size 1 vanish. False when boundaries cross, or more than MAX_DOM dims. */
bool snP_refine(Dom *dom, const Type *t);
Dom snP_dom(const Type *t);

/* The domain a node is computed over: its own elements (a reduction's or scan's: its operand's; a scatter's: the rows added), fine
   enough for the reshapes through which it reads. For a matmul the axes of its result, sizes of 1 included. */
Dom snP_node_dom(const Graph *g, NodeId id);
/* Coordinates of those elements. An extremum or scan along an inner axis runs over dims with that axis last. */
void snP_node_at(const Graph *g, NodeId id, const Dom *dom, Lin *at);
bool snP_moved_axis(const Graph *g, NodeId id, int *axis);
Dom snP_part_dom(const Graph *g, NodeId part);           /* of an operand of a concat, copied element by element */
Lin snP_whole(const Dom *dom);                           /* row-major number of a point */
int64_t snP_points(const Dom *dom);

#endif
