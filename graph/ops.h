/* ops.h: between ops.c, fold.c and graph.c; nothing outside graph/ includes it. */
#ifndef SN_OPS_H
#define SN_OPS_H
#include "graph/graph.h"

/* Type of the result; fills in and normalises the attributes; fails with the op's own message. */
Type snG_infer(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, Attrs *a);
const char *snG_shape_text(sn_ctx *c, const Type *t);                     /* "f32[16, 128]" */

/* An existing node that the new one equals by folding, or 0. */
NodeId snG_fold(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, const Attrs *a, const Type *t);

#endif
