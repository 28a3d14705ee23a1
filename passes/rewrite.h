/* rewrite.h: between rewrite.c and recognise.c. */
#ifndef SN_REWRITE_H
#define SN_REWRITE_H
#include "graph/graph.h"

/* A composite of std.sn whose body, over operands found at `id`, is this very node; 0 when there is none. */
NodeId snP_recognise_body(Graph *g, NodeId id, Here at);

#endif
