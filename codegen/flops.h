/* flops.h: FLOPs, counted from a graph. */
#ifndef SN_FLOPS_H
#define SN_FLOPS_H
#include "passes/fuse.h"

/* Floating-point operations of all matrix products (2 m n k each, composites included): the numerator of a model's share of peak. */
double snK_model_flops(const Graph *g);

/* Of a group's elementwise work, what it inlines included: one per base function and element, one per element of a reduction. */
double snK_ewise_flops(const Graph *g, const Group *grp);

#endif
