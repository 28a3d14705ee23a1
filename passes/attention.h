/* attention.h: what the attention ops of std.sn have in common: operands by role, and the domain over which they are computed.

   All are computed over (leading axes, query, key, D, Dv); each operand and each result has the leading axes (batch, head) and
   two of the others. A mask, bias or gain may be rank 0 instead: absent. */
#ifndef SN_ATTENTION_H
#define SN_ATTENTION_H
#include "passes/index.h"

typedef enum { ATT_NONE, ATT_OUT, ATT_LSE, ATT_DQ, ATT_DK, ATT_DV } AttKind;
typedef enum { ATT_q, ATT_k, ATT_v, ATT_dy, ATT_lse, ATT_delta, ATT_mask, ATT_bias, ATT_gain, ATT_ROLES } AttRole;
enum { ATT_T, ATT_S, ATT_D, ATT_DV_, ATT_AXES };         /* the dims after the leading ones */

typedef struct Attention {
    AttKind kind;
    NodeId in[ATT_ROLES];                                /* 0: this op has no such operand */
    double scale, cap;                                   /* cap 0: none */
    bool own;                                            /* lse and delta are of this very attention */
    Dom dom;
    int lead;                                            /* leading dims of dom, cut finer where k and v are read through views */
} Attention;

AttKind snP_attention_kind(const Graph *g, NodeId id);
Attention snP_attention(const Graph *g, NodeId id);
void snP_role_at(const Graph *g, const Attention *a, AttRole r, Lin *at);         /* coordinates of an operand */
void snP_result_at(const Graph *g, const Attention *a, NodeId id, Lin *at);       /* of the result of op `id` of the same domain */
bool snP_attention_alike(const Attention *a, const Attention *b);                 /* the same operands, as far as both have them */

#endif
