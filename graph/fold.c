/* fold.c: what a new node would be equal to: constants evaluated, identities dropped, views merged.

   Every rule keeps the value bit for bit in the node's dtype: x + 0 is x only for integers and where a sign of zero
   cannot differ is accepted (x + 0 turns -0 into 0, which nothing here can observe through 1 / x). */
#include "graph/ops.h"
#include "graph/scalar.h"

static bool constant(const Graph *g, NodeId id, double *v)
{
    if (snG_node(g, id)->op != OP_const) return false;
    *v = snG_attr(g, id, 0)->f;
    return true;
}

static NodeId fold_constants(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, const Type *t)
{
    double v[8];
    const OpInfo *info = snG_op(g->ctx, op);
    if (info->cls != C_EWISE || op == OP_fence || op == OP_stop_gradient || nin > 8) return 0;
    for (unsigned i = 0; i < nin; i++) if (!constant(g, in[i], &v[i])) return 0;
    Dtype from = (Dtype)snG_type(g, in[nin - 1])->dtype;
    return snG_const(g, at, (Dtype)t->dtype, snG_scalar_eval(info->scalar, from, (Dtype)t->dtype, v, EVAL_TYPED));
}

static bool same_type(const Graph *g, NodeId id, const Type *t)
{
    const Type *x = snG_type(g, id);
    return x->dtype == t->dtype && snG_same_shape(x, t);
}

static NodeId fold_ewise(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, const Type *t)
{
    double k;
    bool right = nin == 2 && snG_is_const(g, in[1], &k) && same_type(g, in[0], t);
    if (right && k == 0 && (op == OP_add || op == OP_sub || op == OP_or || op == OP_xor || op == OP_shl || op == OP_shr)) return in[0];
    if (right && k == 1 && (op == OP_mul || op == OP_div)) return in[0];
    if (right && k == 1 && op == OP_and && t->dtype == SN_BOOL) return in[0];
    if (right && k == 0 && (op == OP_and || (op == OP_mul && snG_is_int((Dtype)t->dtype))))
        return snG_broadcast_to(g, at, snG_const(g, at, (Dtype)t->dtype, 0), t);
    bool left = nin == 2 && snG_is_const(g, in[0], &k) && same_type(g, in[1], t);
    if (left && ((k == 0 && (op == OP_add || op == OP_or)) || (k == 1 && op == OP_mul))) return in[1];
    if (left && k == 1 && op == OP_and && t->dtype == SN_BOOL) return in[1];
    if ((op == OP_cast || op == OP_bitcast) && same_type(g, in[0], t)) return in[0];
    if ((op == OP_neg || op == OP_not) && snG_node(g, in[0])->op == op) return snG_in(g, in[0], 0);
    if (op == OP_select && snG_is_const(g, in[0], &k) && same_type(g, in[k ? 1 : 2], t)) return in[k ? 1 : 2];
    if (op == OP_select && in[1] == in[2] && same_type(g, in[1], t)) return in[1];
    return 0;
}

static NodeId again(Graph *g, Here at, unsigned op, NodeId x, const AttrVal *list)
{
    Attrs a = { 0 };
    a.v[0] = *list;
    return snG_add(g, at, op, &x, 1, &a);
}

static NodeId fold_permute(Graph *g, Here at, NodeId x, const AttrVal *perm)
{
    bool identity = true;
    for (int i = 0; i < perm->n; i++) identity = identity && perm->i[i] == i;
    if (identity) return x;
    if (snG_node(g, x)->op != OP_permute) return 0;
    AttrVal p = *perm;
    for (int i = 0; i < p.n; i++) p.i[i] = snG_attr(g, x, 0)->i[perm->i[i]];
    return again(g, at, OP_permute, snG_in(g, x, 0), &p);
}

static NodeId fold_move(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, const Attrs *a, const Type *t)
{
    if (op == OP_part) return a->v[0].i[0] == 0 ? in[0] : 0;
    if (op == OP_concat) return nin == 1 ? in[0] : 0;
    if (op == OP_permute) return fold_permute(g, at, in[0], &a->v[0]);
    if (same_type(g, in[0], t)) return in[0];
    unsigned inner = snG_node(g, in[0])->op;
    if (op == OP_reshape && inner == OP_reshape) return again(g, at, op, snG_in(g, in[0], 0), &a->v[0]);
    if (op == OP_expand && inner == OP_expand) return again(g, at, op, snG_in(g, in[0], 0), &a->v[0]);
    return 0;
}

NodeId snG_fold(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, const Attrs *a, const Type *t)
{
    OpClass cls = snG_op(g->ctx, op)->cls;
    if (cls == C_EWISE) {
        NodeId f = fold_constants(g, at, op, in, nin, t);
        return f ? f : fold_ewise(g, at, op, in, nin, t);
    }
    if (cls == C_MOVE) return fold_move(g, at, op, in, nin, a, t);
    bool kept = op == OP_sum || op == OP_amax || op == OP_amin;
    return kept && same_type(g, in[0], t) ? in[0] : 0;         /* over axes of size 1 */
}
