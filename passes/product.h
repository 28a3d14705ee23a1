/* product.h: a matmul's axes as dims of one domain, cut finer where what it reads or what follows it needs that.

   The dims of axis i (of the result: batch axes, rows, columns; then the sum's) are dom.ext[first[i] .. end[i]), none when its size is
   1; the sum's axis always has one. A program walks an axis as one dim, so every address has to step evenly over its dims. */
#ifndef SN_PRODUCT_H
#define SN_PRODUCT_H
#include "passes/index.h"

typedef struct Product {
    NodeId id;
    int n;                                               /* rank of the result; axis n is the sum's */
    Dom dom;
    int first[MAX_RANK + 1], end[MAX_RANK + 1];
    int64_t ext[MAX_RANK + 1];
    bool cut;                                            /* some axis has several dims for an operand's sake */
} Product;

typedef bool (*InMemory)(const void *user, NodeId id);   /* loaded, or a cone to be computed? */

/* epilogue: the nodes, not views, that one program computes with the product; their cuts come first. Cuts that do not go with those
   before them are left out: whoever wants an operand computed checks that all it reads is affine and even. */
Product snP_product(const Graph *g, NodeId id, const NodeId *epilogue, uint32_t n, InMemory memory, const void *user);
Product snP_product_plain(const Graph *g, NodeId id);    /* a dim an axis */
Lin snP_axis(const Product *p, int axis);                /* its index, as a form */
void snP_operand_at(const Graph *g, const Product *p, int o, Lin *at);               /* coordinates of operand o */
bool snP_even(const Product *p, const Lin *l);           /* does the form step evenly along every axis? */

#endif
