/* flops.h: FLOPs, counted from a graph. */
#ifndef SN_FLOPS_H
#define SN_FLOPS_H
#include "passes/fuse.h"

/* Floating-point operations of all matrix products (2 m n k each, composites included): the numerator of a model's share of peak. */
double snK_model_flops(const Graph *g);

/* Of a group's elementwise work, what it inlines included: one per base function and element, one per element of a reduction. */
double snK_ewise_flops(const Graph *g, const Group *grp);

/* Of a group of attention ops: the share of its score matrix that lies in 64 x 64 blocks in which the mask allows anything; 1 where data
   decides the mask, and for any other group. Its families count all pairs. */
double snK_visited_share(const Graph *g, const Group *grp);

#endif
