/* flops.h: model FLOPs, counted from a graph. */
#ifndef SN_FLOPS_H
#define SN_FLOPS_H
#include "graph/graph.h"

/* Floating-point operations of all matrix products (2 m n k each, composites included): the numerator of a model's share of peak. */
double snK_model_flops(const Graph *g);

#endif
