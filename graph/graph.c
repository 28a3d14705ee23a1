/* graph.c: the one constructor and what passes stand on.

   In: op, operands, attributes. Out: a node id: an existing node when folding or hash-consing finds one, else a new one.
   Operands come before users, so a pass is a loop over ids that rebuilds through snG_add (see snG_rebuild). */
#include "graph/graph.h"
#include "graph/ops.h"
#include <math.h>

struct TypeTable { VEC(Type) types; HashMap map; };
struct AttrTable { VEC(Attrs) attrs; HashMap map; };

/* -- Interned types and attributes ------------------------------------------------------------------------- */

static bool equal_type(const Type *a, const Type *b)
{
    return a->dtype == b->dtype && snG_same_shape(a, b) && !memcmp(a->name, b->name, sizeof(Sym) * a->rank);
}

TypeId snG_intern_type(sn_ctx *c, const Type *t)
{
    if (!c->types) {
        c->types = NEW(&c->arena, struct TypeTable);
        PUSH(&c->arena, c->types->types, (Type){ 0 });
    }
    Type k = { .dtype = t->dtype, .rank = t->rank };
    memcpy(k.dim, t->dim, sizeof(int64_t) * t->rank);
    memcpy(k.name, t->name, sizeof(Sym) * t->rank);
    uint64_t h = snU_hash(&k, sizeof k, 1);
    uint32_t i = snU_first(&c->types->map, h);
    for (uint32_t v; (v = snU_at(&c->types->map, h, &i)) != 0;) if (equal_type(&c->types->types.v[v], &k)) return v;
    PUSH(&c->arena, c->types->types, k);
    snU_insert(&c->arena, &c->types->map, h, c->types->types.n - 1);
    return c->types->types.n - 1;
}

static AttrVal clean_attr(const AttrVal *v)
{
    AttrVal k = { .kind = v->kind };
    if (v->kind == A_LIST) k.n = v->n, memcpy(k.i, v->i, sizeof(int64_t) * v->n);
    else if (v->kind == A_FLOAT) k.f = v->f;
    else if (v->kind == A_STR) k.s = v->s;
    else k.i[0] = v->i[0];
    return k;
}

/* The attribute in words: a short text to hash and to compare; returns their number. */
static int attr_words(const AttrVal *v, int index, uint64_t *w)
{
    int n = v->kind == A_LIST ? v->n : 1;
    w[0] = (uint64_t)index << 16 | (uint64_t)v->kind << 8 | (uint64_t)n;
    if (v->kind == A_STR) w[1] = v->s;
    else memcpy(w + 1, v->i, sizeof(uint64_t) * (size_t)n);
    return n + 1;
}

static int all_words(const Attrs *a, uint64_t *w)
{
    int n = 0;
    for (int i = 0; i < MAX_ATTRS; i++) if (a->v[i].kind) n += attr_words(&a->v[i], i, w + n);
    return n;
}

AttrId snG_intern_attrs(sn_ctx *c, const Attrs *a)
{
    if (!c->attrs) {
        c->attrs = NEW(&c->arena, struct AttrTable);
        PUSH(&c->arena, c->attrs->attrs, (Attrs){ 0 });
    }
    uint64_t key[MAX_ATTRS * 9], old[MAX_ATTRS * 9];
    int n = a ? all_words(a, key) : 0;
    if (!n) return 0;
    uint64_t h = snU_hash(key, sizeof *key * (size_t)n, 2);
    uint32_t i = snU_first(&c->attrs->map, h);
    for (uint32_t v; (v = snU_at(&c->attrs->map, h, &i)) != 0;)
        if (all_words(&c->attrs->attrs.v[v], old) == n && !memcmp(key, old, sizeof *key * (size_t)n)) return v;
    Attrs k = { 0 };
    for (int j = 0; j < MAX_ATTRS; j++) if (a->v[j].kind) k.v[j] = clean_attr(&a->v[j]);
    PUSH(&c->arena, c->attrs->attrs, k);
    snU_insert(&c->arena, &c->attrs->map, h, c->attrs->attrs.n - 1);
    return c->attrs->attrs.n - 1;
}

const Attrs *snG_attrs(const sn_ctx *c, AttrId id)
{
    static const Attrs none;
    return id ? &c->attrs->attrs.v[id] : &none;
}

/* -- Graphs and access ---------------------------------------------------------------------------------------- */

Graph *snG_new(sn_ctx *c, Sym name)
{
    Arena first = { .pool = &c->blocks };
    Arena *a = NEW(&first, Arena);
    *a = first;
    Graph *g = NEW(a, Graph);
    g->ctx = c, g->arena = a, g->name = name;
    PUSH(a, g->nodes, (Node){ 0 });
    PUSH(a, g->operands, 0);
    g->consed = 1;
    return g;
}

void snG_free(Graph *g)
{
    if (!g) return;
    Arena a = *g->arena;                                       /* the arena lies in its own memory */
    snU_free_arena(&a);
}

const Type *snG_type(const Graph *g, NodeId id) { return &g->ctx->types->types.v[g->nodes.v[id].type]; }
const AttrVal *snG_attr(const Graph *g, NodeId id, unsigned i) { return &g->ctx->attrs->attrs.v[g->nodes.v[id].attr].v[i]; }

const AttrVal *snG_attr_named(const Graph *g, NodeId id, const char *name)
{
    const OpInfo *op = snG_op(g->ctx, g->nodes.v[id].op);
    for (unsigned i = 0; i < op->nattr; i++) if (!strcmp(snU_str(g->ctx, op->attr_name[i]), name)) return snG_attr(g, id, i);
    return NULL;
}

bool snG_is_const(const Graph *g, NodeId id, double *v)
{
    while (g->nodes.v[id].op == OP_expand || g->nodes.v[id].op == OP_reshape) id = snG_in(g, id, 0);
    if (g->nodes.v[id].op != OP_const) return false;
    *v = snG_attr(g, id, 0)->f;
    return true;
}

const Leaf *snG_leaf(const Graph *g, NodeId id)
{
    uint32_t lo = 0, hi = g->leaves.n;                         /* declared in the order of their nodes */
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (g->leaves.v[mid].node < id) lo = mid + 1;
        else hi = mid;
    }
    return lo < g->leaves.n && g->leaves.v[lo].node == id ? &g->leaves.v[lo] : NULL;
}

/* -- The constructor --------------------------------------------------------------------------------------------- */

static NodeId push_node(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, AttrId attr, TypeId type)
{
    Node n = { .op = (uint16_t)op, .nin = (uint8_t)nin, .in = g->operands.n, .attr = attr, .type = type, .path = at.path,
               .loc = at.loc };
    for (unsigned i = 0; i < nin; i++) PUSH(g->arena, g->operands, in[i]);
    PUSH(g->arena, g->nodes, n);
    if (g->nodes.n > 1u << 22) snU_fail(g->ctx, SN_UNSUPPORTED, at.loc, "the graph has more than 4 million nodes");
    return g->nodes.n - 1;
}

static bool same_node(const Graph *g, NodeId id, unsigned op, const NodeId *x, unsigned nin, AttrId attr, bool comm)
{
    const Node *n = snG_node(g, id);
    if (n->op != op || n->nin != nin || n->attr != attr) return false;
    const NodeId *in = &g->operands.v[n->in];
    if (!nin || !memcmp(in, x, sizeof(NodeId) * nin)) return true;
    return comm && in[0] == x[1] && in[1] == x[0];
}

static uint64_t node_hash(unsigned op, const NodeId *in, unsigned nin, AttrId attr, bool comm)
{
    NodeId two[2];
    if (comm && in[0] > in[1]) two[0] = in[1], two[1] = in[0], in = two;
    return snU_hash(in, sizeof(NodeId) * nin, (uint64_t)attr << 16 | op);
}

static bool is_comm(const OpInfo *op, unsigned nin) { return op->flags & F_COMM && nin == 2; }

static void reserve_cons(Graph *g, uint32_t nodes)
{
    uint32_t slots = 32;
    while (slots * 3ull < (nodes + 16) * 4ull) slots *= 2;
    if (slots > g->cons.cap) g->cons = (HashMap){ .slot = NEWN(g->arena, HashSlot, slots), .cap = slots };
}

static uint64_t leaf_hash(Sym name) { return snU_hash(&name, sizeof name, 4); }

/* Nodes that were copied as they are enter the map when the first other one is added, if ever. */
static void catch_up(Graph *g)
{
    if (g->cons.n == 0) reserve_cons(g, g->nodes.cap);
    for (; g->consed < g->nodes.n; g->consed++) {
        const Node *n = snG_node(g, g->consed);
        const OpInfo *op = snG_op(g->ctx, n->op);
        uint64_t h = op->cls == C_LEAF ? leaf_hash(n->name) : node_hash(n->op, &g->operands.v[n->in], n->nin, n->attr, is_comm(op, n->nin));
        snU_insert(g->arena, &g->cons, h, g->consed);
    }
}

/* An equal node, or a new one: op, attributes and type are final. */
static NodeId cons(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, AttrId attr, TypeId type)
{
    bool comm = is_comm(snG_op(g->ctx, op), nin);
    uint64_t h = node_hash(op, in, nin, attr, comm);
    if (g->consed < g->nodes.n) catch_up(g);
    uint32_t i = snU_first(&g->cons, h);
    for (NodeId v; (v = snU_at(&g->cons, h, &i)) != 0;) if (same_node(g, v, op, in, nin, attr, comm)) return v;
    NodeId id = push_node(g, at, op, in, nin, attr, type);
    snU_insert(g->arena, &g->cons, h, id);
    g->consed = g->nodes.n;
    return id;
}

/* Constants stand on the right. */
static bool wants_swap(const Graph *g, unsigned op, const NodeId *in, unsigned nin)
{
    return is_comm(snG_op(g->ctx, op), nin) && snG_node(g, in[0])->op == OP_const && snG_node(g, in[1])->op != OP_const;
}

NodeId snG_add(Graph *g, Here at, unsigned op, const NodeId *operands, unsigned nin, const Attrs *attrs)
{
    Attrs a;
    NodeId two[2];
    unsigned nattr = snG_op(g->ctx, op)->nattr;
    if (nattr) a = attrs ? *attrs : (Attrs){ 0 };
    else a.v[0].kind = A_NONE;
    if (wants_swap(g, op, operands, nin)) two[0] = operands[1], two[1] = operands[0], operands = two;
    Type t = snG_infer(g, at, op, operands, nin, &a);
    NodeId f = snG_fold(g, at, op, operands, nin, &a, &t);
    return f ? f : cons(g, at, op, operands, nin, nattr ? snG_intern_attrs(g->ctx, &a) : 0, snG_intern_type(g->ctx, &t));
}

NodeId snG_add_leaf(Graph *g, Here at, unsigned op, Sym name, const Type *t, const Leaf *init)
{
    uint64_t h = leaf_hash(name);
    if (g->consed < g->nodes.n) catch_up(g);
    uint32_t i = snU_first(&g->cons, h);
    for (NodeId v; (v = snU_at(&g->cons, h, &i)) != 0;) {
        const Node *n = snG_node(g, v);
        if (n->name != name || snG_op(g->ctx, n->op)->cls != C_LEAF) continue;
        const Type *was = snG_type(g, v);
        if (n->op != op || was->dtype != t->dtype || !snG_same_shape(was, t))
            snU_fail(g->ctx, SN_TYPE, at.loc, "%s is declared twice: as %s %s and as %s %s", snU_str(g->ctx, name),
                     snG_op(g->ctx, n->op)->cname, snG_shape_text(g->ctx, was), snG_op(g->ctx, op)->cname, snG_shape_text(g->ctx, t));
        return v;
    }
    int64_t n = 1;
    for (int k = 0; k < t->rank; k++)
        if (t->dim[k] < 1 || __builtin_mul_overflow(n, t->dim[k], &n) || n > (int64_t)1 << 40)
            snU_fail(g->ctx, SN_SHAPE, at.loc, "%s: the type %s is too large", snU_str(g->ctx, name), snG_shape_text(g->ctx, t));
    NodeId id = push_node(g, at, op, NULL, 0, 0, snG_intern_type(g->ctx, t));
    g->nodes.v[id].name = name;
    Leaf l = init ? *init : (Leaf){ 0 };
    l.node = id, l.name = name;
    PUSH(g->arena, g->leaves, l);
    snU_insert(g->arena, &g->cons, h, id);
    g->consed = g->nodes.n;
    return id;
}

NodeId snG_const(Graph *g, Here at, Dtype d, double v)
{
    Attrs a = { 0 };
    a.v[0] = (AttrVal){ .kind = A_FLOAT, .f = snG_round(d, v) };
    a.v[1] = (AttrVal){ .kind = A_DTYPE, .i = { d } };
    return snG_add(g, at, OP_const, NULL, 0, &a);
}

NodeId snG_part(Graph *g, Here at, NodeId x, int i)
{
    Attrs a = { 0 };
    a.v[0] = (AttrVal){ .kind = A_INT, .i = { i } };
    return i ? snG_add(g, at, OP_part, &x, 1, &a) : x;
}

void snG_set_output(Graph *g, Sym name, NodeId v, Loc at)
{
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (g->outputs.v[i].name == name) snU_fail(g->ctx, SN_USAGE, at, "output %s is declared twice", snU_str(g->ctx, name));
    PUSH(g->arena, g->outputs, ((Output){ name, v }));
}

void snG_set_update(Graph *g, NodeId target, NodeId v, Loc at)
{
    const Node *n = snG_node(g, target);
    if (n->op != OP_weight && n->op != OP_state)
        snU_fail(g->ctx, SN_USAGE, at, "update: the target must be a weight or a state");
    const Type *t = snG_type(g, target), *x = snG_type(g, v);
    if (t->dtype != x->dtype || !snG_same_shape(t, x))
        snU_fail(g->ctx, SN_TYPE, at, "update %s: it is %s, the value is %s", snU_str(g->ctx, n->name), snG_shape_text(g->ctx, t), snG_shape_text(g->ctx, x));
    while (g->updated.n < g->updates.n) snU_insert(g->arena, &g->updated, g->updates.v[g->updated.n].target, 1);
    if (snU_find(&g->updated, target)) snU_fail(g->ctx, SN_USAGE, at, "%s is updated twice", snU_str(g->ctx, n->name));
    PUSH(g->arena, g->updates, ((Update){ target, v }));
}

void snG_rename(Graph *g, NodeId id, Sym name)
{
    if (!g->nodes.v[id].name) g->nodes.v[id].name = name;
}

/* -- Author-layer helpers ------------------------------------------------------------------------------------------ */

static NodeId move_to(Graph *g, Here at, unsigned op, NodeId x, const Type *t)
{
    Attrs a = { 0 };
    a.v[0].kind = A_LIST, a.v[0].n = t->rank;
    memcpy(a.v[0].i, t->dim, sizeof(int64_t) * t->rank);
    NodeId y = snG_add(g, at, op, &x, 1, &a);
    return y;
}

/* Copies dim names of `like` where sizes agree and none is there yet, for printing. */
static void name_dims(Graph *g, NodeId id, const Type *like)
{
    Type t = *snG_type(g, id);
    if (t.rank != like->rank || snG_op(g->ctx, snG_node(g, id)->op)->cls == C_LEAF) return;
    for (int i = 0; i < t.rank; i++) if (!t.name[i] && t.dim[i] == like->dim[i]) t.name[i] = like->name[i];
    g->nodes.v[id].type = snG_intern_type(g->ctx, &t);
}

NodeId snG_broadcast_to(Graph *g, Here at, NodeId x, const Type *to)
{
    Type t = *snG_type(g, x);
    if (snG_same_shape(&t, to)) return x;
    int lead = to->rank - t.rank;
    Type lifted = { .rank = to->rank };
    for (int i = 0; i < to->rank; i++) lifted.dim[i] = i < lead ? 1 : t.dim[i - lead];
    bool ok = lead >= 0;
    for (int i = 0; ok && i < to->rank; i++) ok = lifted.dim[i] == 1 || lifted.dim[i] == to->dim[i];
    if (!ok) snU_fail(g->ctx, SN_SHAPE, at.loc, "%s does not broadcast to %s", snG_shape_text(g->ctx, &t), snG_shape_text(g->ctx, to));
    if (lead) x = move_to(g, at, OP_reshape, x, &lifted);
    NodeId y = move_to(g, at, OP_expand, x, to);
    name_dims(g, y, to);
    return y;
}

/* The common shape of operands by numpy's rule; rank-0 operands stay as they are. */
NodeId snG_ewise(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin)
{
    Type t = { .rank = 0 };
    NodeId x[MAX_IN];
    if (op == OP_fence || nin > MAX_IN) return snG_add(g, at, op, in, nin, NULL);
    for (unsigned i = 0; i < nin; i++) {
        const Type *u = snG_type(g, in[i]);
        int rank = u->rank > t.rank ? u->rank : t.rank;
        Type m = { .rank = (uint8_t)rank };
        for (int k = 0; k < rank; k++) {
            int a = k - (rank - t.rank), b = k - (rank - u->rank);
            int64_t da = a < 0 ? 1 : t.dim[a], db = b < 0 ? 1 : u->dim[b];
            if (da != db && da != 1 && db != 1)
                snU_fail(g->ctx, SN_SHAPE, at.loc, "%s: operands of shapes %s and %s do not broadcast", snG_op(g->ctx, op)->cname,
                         snG_shape_text(g->ctx, snG_type(g, in[0])), snG_shape_text(g->ctx, u));
            m.dim[k] = da == 1 ? db : da;
            m.name[k] = da == m.dim[k] && a >= 0 && t.name[a] ? t.name[a] : db == m.dim[k] && b >= 0 ? u->name[b] : 0;
        }
        t = m;
    }
    for (unsigned i = 0; i < nin; i++) x[i] = snG_type(g, in[i])->rank ? snG_broadcast_to(g, at, in[i], &t) : in[i];
    return snG_add(g, at, op, x, nin, NULL);
}

static NodeId plain_matmul(Graph *g, Here at, NodeId a, NodeId b, bool ta, bool tb, Dtype to)
{
    Attrs t = { 0 };
    t.v[0] = (AttrVal){ .kind = A_INT, .i = { ta } };
    t.v[1] = (AttrVal){ .kind = A_INT, .i = { tb } };
    t.v[2] = (AttrVal){ .kind = A_DTYPE, .i = { to } };
    return snG_add(g, at, OP_matmul, (NodeId[]){ a, b }, 2, &t);
}

/* [.., M, K] @ [K, N]: the leading axes are rows like any other, so that gradients are two-dimensional too. */
static NodeId flat_matmul(Graph *g, Here at, NodeId a, NodeId b, bool tb, Dtype to)
{
    Type x = *snG_type(g, a), flat = { .rank = 2, .dim = { 1, x.dim[x.rank - 1] } };
    for (int i = 0; i < x.rank - 1; i++) flat.dim[0] *= x.dim[i];
    NodeId y = plain_matmul(g, at, move_to(g, at, OP_reshape, a, &flat), b, false, tb, to);
    const Type *p = snG_type(g, y);
    x.dim[x.rank - 1] = p->dim[1], x.name[x.rank - 1] = p->name[1];
    NodeId r = move_to(g, at, OP_reshape, y, &x);
    name_dims(g, r, &x);
    return r;
}

NodeId snG_matmul(Graph *g, Here at, NodeId a, NodeId b, bool ta, bool tb, Dtype to)
{
    const Type *x = snG_type(g, a), *y = snG_type(g, b);
    if (x->rank < 2 || y->rank < 2)
        snU_fail(g->ctx, SN_SHAPE, at.loc, "matmul: operands are %s and %s; each needs at least two axes", snG_shape_text(g->ctx, x), snG_shape_text(g->ctx, y));
    if (x->rank == 2 && y->rank == 2) return plain_matmul(g, at, a, b, ta, tb, to);
    if (y->rank == 2 && !ta) return flat_matmul(g, at, a, b, tb, to);
    int rank = x->rank > y->rank ? x->rank : y->rank;
    Type tx = { .rank = (uint8_t)rank }, ty = tx;
    for (int i = 0; i < rank; i++) {
        int p = i - (rank - x->rank), q = i - (rank - y->rank);
        int64_t dx = p < 0 ? 1 : x->dim[p], dy = q < 0 ? 1 : y->dim[q], d = dx == 1 ? dy : dx;
        tx.dim[i] = i < rank - 2 ? d : dx, ty.dim[i] = i < rank - 2 ? d : dy;
        if (i < rank - 2) tx.name[i] = p >= 0 && x->dim[p] == d ? x->name[p] : 0, ty.name[i] = q >= 0 && y->dim[q] == d ? y->name[q] : 0;
    }
    NodeId u = snG_broadcast_to(g, at, a, &tx);
    return plain_matmul(g, at, u, snG_broadcast_to(g, at, b, &ty), ta, tb, to);
}

/* -- Liveness and size ------------------------------------------------------------------------------------------------ */

static void reserve(Graph *g, uint32_t nodes, uint32_t operands)
{
    g->nodes.v = snU_grow(g->arena, g->nodes.v, sizeof(Node) * g->nodes.n, sizeof(Node) * (nodes + 16));
    g->nodes.cap = nodes + 16;
    g->operands.v = snU_grow(g->arena, g->operands.v, sizeof(NodeId) * g->operands.n, sizeof(NodeId) * (operands + 16));
    g->operands.cap = operands + 16;
}

static void mark_live(const Graph *g, uint8_t *live)
{
    for (uint32_t i = 0; i < g->outputs.n; i++) live[g->outputs.v[i].node] = 1;
    for (uint32_t i = 0; i < g->updates.n; i++) live[g->updates.v[i].target] = live[g->updates.v[i].value] = 1;
    for (NodeId id = g->nodes.n - 1; id > 0; id--) {
        unsigned op = snG_node(g, id)->op;
        if (op == OP_input || op == OP_state) live[id] = 1;
        for (unsigned k = 0; live[id] && k < snG_node(g, id)->nin; k++) live[snG_in(g, id, k)] = 1;
    }
}

static bool all_live(const Graph *g)
{
    uint8_t *live = NEWN(g->arena, uint8_t, g->nodes.n);
    mark_live(g, live);
    for (NodeId id = 1; id < g->nodes.n; id++) if (!live[id]) return false;
    return true;
}

/* -- Rebuilding ------------------------------------------------------------------------------------------------------ */

Rebuild snG_rebuild(const Graph *old)
{
    Rebuild r = { old, snG_new(old->ctx, old->name), NULL };
    r.map = NEWN(r.g->arena, NodeId, old->nodes.n);
    reserve(r.g, old->nodes.n, old->operands.n);
    for (uint32_t i = 0; i < old->dims.n; i++) PUSH(r.g->arena, r.g->dims, old->dims.v[i]);
    return r;
}

/* Node `id` of another graph over new operands. Of the same types: nothing to infer again, only to fold. */
static NodeId add_like(Graph *g, Here at, const Graph *from, NodeId id, const NodeId *in)
{
    const Node *n = snG_node(from, id);
    bool same = !wants_swap(g, n->op, in, n->nin);
    for (unsigned i = 0; i < n->nin && same; i++) same = snG_node(g, in[i])->type == snG_node(from, snG_in(from, id, i))->type;
    const Attrs *attrs = n->attr ? snG_attrs(g->ctx, n->attr) : NULL;
    if (!same) return snG_add(g, at, n->op, in, n->nin, attrs);
    NodeId f = snG_fold(g, at, n->op, in, n->nin, attrs, snG_type(from, id));
    return f ? f : cons(g, at, n->op, in, n->nin, n->attr, n->type);
}

/* While the new graph is the old one node for node, nothing can fold or merge: the next one is copied as it is. */
static bool copy_plain(Rebuild *r, NodeId id)
{
    Graph *g = r->g;
    const Node *n = snG_node(r->old, id);
    if (r->plain + 1 != id || g->nodes.n != id) return false;
    for (unsigned i = 0; i < n->nin; i++) if (r->map[snG_in(r->old, id, i)] != snG_in(r->old, id, i)) return false;
    if (snG_op(g->ctx, n->op)->cls == C_LEAF) {
        Leaf l = *snG_leaf(r->old, id);
        PUSH(g->arena, g->leaves, l);
    }
    Node y = *n;
    y.in = g->operands.n, y.flags = 0;
    memcpy(&g->operands.v[y.in], &r->old->operands.v[n->in], sizeof(NodeId) * n->nin);
    g->operands.n += n->nin;
    g->nodes.v[g->nodes.n++] = y;
    r->plain = r->map[id] = id;
    return true;
}

NodeId snG_copy_node(Rebuild *r, NodeId id)
{
    const Node *n = snG_node(r->old, id);
    if (copy_plain(r, id)) return id;
    Here at = { n->loc, n->path };
    NodeId in[MAX_IN], y;
    if (snG_op(r->old->ctx, n->op)->cls == C_LEAF) {
        y = snG_add_leaf(r->g, at, n->op, n->name, snG_type(r->old, id), snG_leaf(r->old, id));
    } else {
        for (unsigned i = 0; i < n->nin; i++) in[i] = r->map[snG_in(r->old, id, i)];
        uint32_t before = r->g->nodes.n;
        y = add_like(r->g, at, r->old, id, in);
        if (y >= before) {
            if (r->g->nodes.v[y].type != n->type) name_dims(r->g, y, snG_type(r->old, id));
            r->g->nodes.v[y].group = n->group, r->g->nodes.v[y].offset = n->offset;
        }
        if (n->name && y >= before) snG_rename(r->g, y, n->name);
    }
    r->map[id] = y;
    return y;
}

Graph *snG_finish(Rebuild *r)
{
    const Graph *o = r->old;
    for (uint32_t i = 0; i < o->outputs.n; i++) PUSH(r->g->arena, r->g->outputs, ((Output){ o->outputs.v[i].name, r->map[o->outputs.v[i].node] }));
    for (uint32_t i = 0; i < o->updates.n; i++)
        PUSH(r->g->arena, r->g->updates, ((Update){ r->map[o->updates.v[i].target], r->map[o->updates.v[i].value] }));
    if (all_live(r->g)) return r->g;
    Graph *g = snG_dce(r->g);
    snG_free(r->g);
    return g;
}

/* Copies live nodes as they are: nothing is folded or inferred again. */
Graph *snG_dce(Graph *g)
{
    Graph *n = snG_new(g->ctx, g->name);
    reserve(n, g->nodes.n, g->operands.n);
    NodeId *map = NEWN(n->arena, NodeId, g->nodes.n);
    uint8_t *live = NEWN(n->arena, uint8_t, g->nodes.n);
    mark_live(g, live);
    for (uint32_t i = 0; i < g->dims.n; i++) PUSH(n->arena, n->dims, g->dims.v[i]);
    for (NodeId id = 1; id < g->nodes.n; id++) {
        if (!live[id]) continue;
        Node y = *snG_node(g, id);
        const NodeId *in = &g->operands.v[y.in];
        y.in = n->operands.n;
        for (unsigned k = 0; k < y.nin; k++) n->operands.v[y.in + k] = map[in[k]];
        n->operands.n += y.nin;
        map[id] = n->nodes.n;
        n->nodes.v[n->nodes.n++] = y;
    }
    for (uint32_t i = 0; i < g->leaves.n; i++) {
        Leaf l = g->leaves.v[i];
        if (!live[l.node]) continue;
        l.node = map[l.node];
        PUSH(n->arena, n->leaves, l);
    }
    for (uint32_t i = 0; i < g->outputs.n; i++) PUSH(n->arena, n->outputs, ((Output){ g->outputs.v[i].name, map[g->outputs.v[i].node] }));
    for (uint32_t i = 0; i < g->updates.n; i++)
        PUSH(n->arena, n->updates, ((Update){ map[g->updates.v[i].target], map[g->updates.v[i].value] }));
    return n;
}

uint32_t *snG_use_counts(const Graph *g, Arena *a)
{
    uint32_t *n = NEWN(a, uint32_t, g->nodes.n);
    for (NodeId id = 1; id < g->nodes.n; id++)
        for (unsigned k = 0; k < snG_node(g, id)->nin; k++) n[snG_in(g, id, k)]++;
    for (uint32_t i = 0; i < g->outputs.n; i++) n[g->outputs.v[i].node]++;
    for (uint32_t i = 0; i < g->updates.n; i++) n[g->updates.v[i].value]++;
    return n;
}

void snG_verify(const Graph *g)
{
    uint32_t leaves = 0;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        SN_ASSERT(n->op && n->op < snG_num_ops(g->ctx), "node %u: op %u", id, n->op);
        SN_ASSERT(n->type && n->type < g->ctx->types->types.n, "node %u: no type", id);
        for (unsigned k = 0; k < n->nin; k++)
            SN_ASSERT(snG_in(g, id, k) && snG_in(g, id, k) < id, "node %u: operand %u is %u", id, k, snG_in(g, id, k));
        bool leaf = snG_op(g->ctx, n->op)->cls == C_LEAF;
        leaves += leaf;
        SN_ASSERT(!leaf || (n->name && snG_leaf(g, id)), "leaf %u has no name", id);
    }
    SN_ASSERT(leaves == g->leaves.n, "%u leaves of %u", g->leaves.n, leaves);
    for (uint32_t i = 0; i < g->outputs.n; i++) SN_ASSERT(g->outputs.v[i].node && g->outputs.v[i].node < g->nodes.n, "output %u", i);
    for (uint32_t i = 0; i < g->updates.n; i++) {
        const Type *t = snG_type(g, g->updates.v[i].target), *v = snG_type(g, g->updates.v[i].value);
        SN_ASSERT(t->dtype == v->dtype && snG_same_shape(t, v), "update %u", i);
    }
}

/* -- Bodies ------------------------------------------------------------------------------------------------------------ */

NodeId snG_inline(Graph *g, Here at, const Graph *body, const NodeId *args, bool named)
{
    sn_ctx *c = g->ctx;
    ArenaMark mark = snU_mark(&c->scratch);
    NodeId *map = NEWN(&c->scratch, NodeId, body->nodes.n), in[MAX_IN];
    Sym inner = 0, path = at.path;                             /* the body's own path, and where that is in g */
    for (uint32_t i = 0; i < body->leaves.n; i++) map[body->leaves.v[i].node] = args[i];
    for (NodeId id = 1; id < body->nodes.n; id++) {
        const Node *n = snG_node(body, id);
        if (map[id]) continue;
        for (unsigned k = 0; k < n->nin; k++) in[k] = map[snG_in(body, id, k)];
        if (n->path != inner) inner = n->path, path = snU_join(c, at.path, inner);
        NodeId y = map[id] = add_like(g, (Here){ at.loc, path }, body, id, in);
        if (snG_node(g, y)->type != n->type) name_dims(g, y, snG_type(body, id));
        if (named && n->name && snG_node(g, y)->op != OP_const) snG_rename(g, y, snU_join(c, at.path, n->name));
    }
    NodeId y = map[body->outputs.v[0].node];
    snU_reset(&c->scratch, mark);
    return y;
}
