/* gen.c: cones: a node at coordinates -> tile operations, see gen.h. */
#include "codegen/gen.h"

Gen gen_open(const Graph *g, const Group *grp, const Target *target, Arena *a)
{
    return (Gen){ .g = g, .grp = grp, .group = snG_node(g, grp->anchor)->group, .target = target, .a = a, .row = -1, .col = -1,
                  .outer = -1, .R = 1, .C = 1 };
}

bool gen_in_group(const Gen *c, NodeId id) { return snG_node(c->g, id)->group == c->group; }


/* -- Dims ----------------------------------------------------------------------------------------------- */

/* Dim i is joined to i + 1 when every form steps over i as over ext[i + 1] steps of i + 1. */
void gen_coalesce(Gen *c)
{
    int last = c->dom.n - 1;
    for (int i = last - 1; i >= 0; i--) {
        bool ok = !(c->whole_col && i + 1 == last) && i != c->outer && i + 1 != c->outer;
        for (uint32_t s = 0; s < c->seen.n && ok; s++) {
            const Lin *l = &c->seen.v[s];
            ok = l->k[i] == l->k[i + 1] * c->dom.ext[i + 1];
        }
        c->joined[i] = ok;
    }
}

int64_t gen_extent(const Gen *c, int dim)
{
    if (dim < 0 || c->joined[dim]) return 1;
    int64_t n = c->dom.ext[dim];
    for (int i = dim - 1; i >= 0 && c->joined[i]; i--) n *= c->dom.ext[i];
    return n;
}

int64_t gen_step(int dim, const Lin *l) { return dim < 0 ? 0 : l->k[dim]; }

/* -- Addresses and parameters ---------------------------------------------------------------------------- */

TVal gen_address(Gen *c, const Lin *l)
{
    TVal e = 0;
    for (int i = 0; i < c->dom.n; i++) {
        if (c->joined[i] || !l->k[i] || !c->base[i]) continue;
        TVal x = snT_ix(c->t, T_imul, c->base[i], snT_idx(c->t, l->k[i]));
        e = e ? snT_ix(c->t, T_iadd, e, x) : x;
    }
    TVal k = snT_idx(c->t, l->c);
    return !e ? k : l->c ? snT_ix(c->t, T_iadd, e, k) : e;
}

int gen_param(Gen *c, NodeId id, bool written)
{
    for (uint32_t i = 0; i < c->args.n; i++) if (c->args.v[i] == id) { c->t->params.v[i].written |= written; return (int)i; }
    const Type *t = snG_type(c->g, id);
    char name[16];
    snprintf(name, sizeof name, "p%u", c->args.n);
    PUSH(c->a, c->args, id);
    return snT_param(c->t, name, (Dtype)t->dtype, snG_count(t), written);
}

static int32_t rows_of(const Gen *c, const Lin *l) { return gen_step(c->row, l) ? c->R : 1; }
static int32_t cols_of(const Gen *c, const Lin *l) { return gen_step(c->col, l) ? c->C : 1; }

static TVal load(Gen *c, NodeId id, Lin e)
{
    if (!c->t) { PUSH(c->a, c->seen, e); return 0; }
    int32_t r = rows_of(c, &e), cc = cols_of(c, &e);
    return snT_load(c->t, gen_param(c, id, false), r, cc, gen_address(c, &e), gen_step(c->row, &e),
                    gen_step(c->col, &e), r > 1 ? c->vr : 0, cc > 1 ? c->vc : 0);
}

TVal gen_full(Gen *c, TVal v, int32_t r, int32_t cc)
{
    TType x = c->t->ins.v[v].type;
    if (x.r == r && x.c == cc) return v;
    return snT_ew(c->t, S_select, (Dtype)x.dtype, snT_full(c->t, (TType){ SN_BOOL, r, cc }, 1), v, v);
}

void gen_store(Gen *c, NodeId out, Lin e, TVal v)
{
    if (!c->t) { PUSH(c->a, c->seen, e); return; }
    int32_t r = rows_of(c, &e), cc = cols_of(c, &e);
    TType x = c->t->ins.v[v].type;
    TVal vr = x.r > r ? snT_idx(c->t, 1) : r > 1 ? c->vr : 0;    /* a product's tile along a dim of size 1: only the first counts */
    TVal vc = x.c > cc ? snT_idx(c->t, 1) : cc > 1 ? c->vc : 0;
    v = gen_full(c, v, x.r > r ? x.r : r, x.c > cc ? x.c : cc);
    snT_store(c->t, gen_param(c, out, true), gen_address(c, &e), v, gen_step(c->row, &e), gen_step(c->col, &e), vr, vc);
}

/* -- Nodes -------------------------------------------------------------------------------------------------- */

/* The value of an affine form itself, as i32. */
static TVal form(Gen *c, const Lin *l)
{
    if (!c->t) { PUSH(c->a, c->seen, *l); return 0; }
    int64_t rs = gen_step(c->row, l), cs = gen_step(c->col, l);
    TVal corner = gen_address(c, l);
    if (rs == 1 && !cs && c->R > 1) return snT_iota(c->t, corner, 0, c->R);
    if (cs == 1 && !rs && c->C > 1) return snT_iota(c->t, corner, 1, c->C);
    TVal v = snT_add(c->t, &(TIns){ .op = T_widen, .type = { SN_I32, 1, 1 }, .a = { corner } });
    for (int axis = 0; axis < 2; axis++) {
        int64_t k = axis ? cs : rs;
        int32_t n = axis ? c->C : c->R;
        if (!k || n == 1) continue;
        TVal i = snT_iota(c->t, snT_idx(c->t, 0), axis, n);
        i = snT_ew(c->t, S_mul, SN_I32, i, snT_full(c->t, (TType){ SN_I32, 1, 1 }, (double)k), 0);
        v = snT_ew(c->t, S_add, SN_I32, v, i, 0);
    }
    return v;
}

static TVal random_tile(Gen *c, NodeId id, const Lin *at)
{
    const Type *t = snG_type(c->g, id);
    bool keyed = snG_node(c->g, id)->nin > 0;
    TVal key = keyed ? gen(c, snG_in(c->g, id, 0), at) : 0;
    Lin local[MAX_RANK];
    memcpy(local, at, sizeof(Lin) * t->rank);
    if (keyed) local[0] = snP_lin(0);                          /* element within the row */
    Lin e = snP_linear(t, local);
    if (!c->t) { PUSH(c->a, c->seen, e); return 0; }
    int32_t r = rows_of(c, &e), cc = cols_of(c, &e);
    if (key) {
        TType k = c->t->ins.v[key].type;
        if (k.r > r) r = k.r;
        if (k.c > cc) cc = k.c;
    }
    TIns i = { .op = T_random, .type = { SN_F32, r, cc }, .a = { gen_address(c, &e), key }, .imm = snG_attr_int(c->g, id, 1),
               .rs = gen_step(c->row, &e), .cs = gen_step(c->col, &e) };
    return snT_add(c->t, &i);
}

static TVal gather_tile(Gen *c, NodeId id, const Lin *at)
{
    NodeId table = snG_in(c->g, id, 0), idx = snG_in(c->g, id, 1);
    const Type *tt = snG_type(c->g, table);
    int lead = snG_type(c->g, idx)->rank;
    while (!gen_in_memory(c, table) && snG_node(c->g, table)->op == OP_reshape) table = snG_in(c->g, table, 0);
    TVal row = gen(c, idx, at);
    Type rest = { .dtype = tt->dtype };
    for (int i = 1; i < tt->rank; i++) rest.dim[rest.rank++] = tt->dim[i];
    Lin e = snP_linear(&rest, at + lead);
    if (!c->t) { PUSH(c->a, c->seen, e); return 0; }
    TType k = c->t->ins.v[row].type;
    int32_t r = rows_of(c, &e), cc = cols_of(c, &e);
    if (k.r > r) r = k.r;
    if (k.c > cc) cc = k.c;
    TIns i = { .op = T_gather, .type = { tt->dtype, r, cc }, .buf = gen_param(c, table, false),
               .a = { gen_address(c, &e), row, r > 1 ? c->vr : 0, cc > 1 ? c->vc : 0 }, .imm = tt->dim[0],
               .ks = snG_count(&rest), .rs = gen_step(c->row, &e), .cs = gen_step(c->col, &e) };
    return snT_add(c->t, &i);
}

static int axis_of(const Graph *g, NodeId id)
{
    int64_t a = snG_attr(g, id, 0)->i[0];
    return (int)(a < 0 ? a + snG_type(g, snG_in(g, id, 0))->rank : a);
}

/* The dim that a reduction runs over: the last, or the one along which rows make runs. */
static int reduced_dim(const Gen *c, const Type *x)
{
    return c->outer >= 0 && snG_count(x) < snP_points(&c->dom) ? c->outer : c->dom.n - 1;
}

/* The tile of x over dim `col` as a whole, where the program itself stands on some of its rows. */
static TVal along_rows(Gen *c, NodeId x, const Lin *at)
{
    int row = c->row, col = c->col;
    int32_t R = c->R, C = c->C;
    TVal base = c->base[c->outer], vr = c->vr, vc = c->vc;
    bool inner = c->inner;
    c->row = -1, c->col = c->outer, c->R = 1, c->C = (int32_t)c->dom.ext[c->outer], c->vr = c->vc = 0, c->base[c->outer] = 0, c->inner = true;
    TVal v = gen(c, x, at);
    if (c->t) v = gen_full(c, v, 1, c->C);
    c->row = row, c->col = col, c->R = R, c->C = C, c->vr = vr, c->vc = vc, c->base[c->outer] = base, c->inner = inner;
    return v;
}

/* A reduction over the columns: the operand over the whole row, reduced to one value per row. */
static TVal reduce_tile(Gen *c, NodeId id, const Lin *at)
{
    static const struct { int op; RedKind red; } kinds[] = {
        { OP_sum, RED_SUM }, { OP_amax, RED_MAX }, { OP_amin, RED_MIN }, { OP_argmax, RED_ARGMAX }, { OP_argmin, RED_ARGMIN } };
    NodeId x = snG_in(c->g, id, 0);
    int axis = axis_of(c->g, id), k = 0, dim = reduced_dim(c, snG_type(c->g, x));
    Lin in[MAX_RANK];
    bool one = snG_type(c->g, x)->dim[axis] == 1, runs = dim == c->outer;
    memcpy(in, at, sizeof in);
    in[axis] = one ? snP_lin(0) : snP_dim(dim);
    TVal v = runs ? along_rows(c, x, in) : gen(c, x, in);
    if (!c->t) return 0;
    while (kinds[k].op != snG_node(c->g, id)->op) k++;
    if (one) return kinds[k].red < RED_ARGMAX ? v : snT_full(c->t, (TType){ SN_I32, 1, 1 }, 0);
    if (!runs) v = gen_full(c, v, c->t->ins.v[v].type.r, c->C);
    return snT_reduce(c->t, v, 1, kinds[k].red, 0, runs ? 0 : c->vc);
}

static TVal scan_tile(Gen *c, NodeId id, const Lin *at)
{
    TVal v = gen(c, snG_in(c->g, id, 0), at);
    if (!c->t) return 0;
    int64_t bits = snG_attr_int(c->g, id, 1) | snG_attr_int(c->g, id, 2) << 1;
    if (snG_type(c->g, id)->dim[axis_of(c->g, id)] == 1)
        return bits & 1 ? snT_full(c->t, (TType){ snG_type(c->g, id)->dtype, 1, 1 }, 0) : v;
    v = gen_full(c, v, c->R, c->C);
    return snT_add(c->t, &(TIns){ .op = T_scan, .type = c->t->ins.v[v].type, .a = { v, 0, c->vc }, .imm = bits });
}

static TVal ewise_tile(Gen *c, NodeId id, const Lin *at)
{
    const Node *n = snG_node(c->g, id);
    const OpInfo *op = snG_op(c->g->ctx, n->op);
    TVal x[4] = { 0 };
    for (unsigned i = 0; i < n->nin; i++) x[i] = gen(c, snG_in(c->g, id, i), at);
    if (!c->t) return 0;
    Dtype from = (Dtype)snG_type(c->g, snG_in(c->g, id, n->nin > 1 ? n->nin - 1 : 0))->dtype;
    return snT_scalar(c->t, op->scalar, from, (Dtype)snG_type(c->g, id)->dtype, x);
}

/* Leaves and other groups' values. */
bool gen_in_memory(const Gen *c, NodeId id)
{
    return snG_is_leaf(c->g, id) || (snG_node(c->g, id)->group && !gen_in_group(c, id));
}

static TVal compute(Gen *c, NodeId id, const Lin *at)
{
    const Node *n = snG_node(c->g, id);
    const Type *t = snG_type(c->g, id);
    switch (n->op) {
    case OP_const: {
        double v = snG_attr(c->g, id, 0)->f;
        return c->t ? snT_full(c->t, (TType){ t->dtype, 1, 1 }, v) : 0;
    }
    case OP_iota: return form(c, &at[(snG_attr_int(c->g, id, 1) + t->rank) % t->rank]);
    case OP_random: return random_tile(c, id, at);
    case OP_gather: return gather_tile(c, id, at);
    }
    if (snP_is_view(c->g, id)) {
        Lin to[MAX_RANK];
        NodeId x = snG_in(c->g, id, 0);
        if (n->op == OP_reshape && gen_in_memory(c, x)) return load(c, x, snP_linear(t, at));
        if (!snP_through(c->g, id, &c->dom, at, to)) SN_ASSERT(false, "%s is not affine", snG_node_name(c->g, id));
        return gen(c, x, to);
    }
    switch (snG_op(c->g->ctx, n->op)->cls) {
    case C_EWISE: return ewise_tile(c, id, at);
    case C_REDUCE: return reduce_tile(c, id, at);
    case C_SCAN: return scan_tile(c, id, at);
    default: SN_ASSERT(false, "no cone for %s", snG_op(c->g->ctx, n->op)->cname); return 0;
    }
}

TVal gen(Gen *c, NodeId id, const Lin *at)
{
    const Type *t = snG_type(c->g, id);
    bool inner = false;
    for (int i = 0; i < t->rank && c->inner; i++) inner = inner || at[i].k[c->outer];
    for (uint32_t i = c->memo.n; i-- > 0;) {
        const Memo *m = &c->memo.v[i];
        if (m->id == id && m->inner == inner && !memcmp(m->at, at, sizeof(Lin) * t->rank)) return m->v;
    }
    Memo m = { .id = id, .inner = inner };
    memcpy(m.at, at, sizeof(Lin) * t->rank);
    m.v = gen_in_memory(c, id) ? load(c, id, snP_linear(t, at)) : compute(c, id, at);
    PUSH(c->a, c->memo, m);
    return m.v;
}

/* -- Outputs, grid ----------------------------------------------------------------------------------------- */

static int view_chain(const Gen *c, NodeId out, NodeId chain[64], NodeId *base)
{
    int n = 0;
    for (*base = out; snP_is_view(c->g, *base) && n < 64; *base = snG_in(c->g, *base, 0)) chain[n++] = *base;
    if (snG_is_leaf(c->g, *base) || !gen_in_group(c, *base)) *base = out, n = 0;
    return n;
}

NodeId gen_viewed(const Gen *c, NodeId out)
{
    NodeId chain[64], base;
    view_chain(c, out, chain, &base);
    return base;
}

bool gen_onto(const Gen *c, NodeId out, const Lin *at, Lin *address)
{
    NodeId chain[64], base;
    Lin now[MAX_RANK], to[MAX_RANK];
    int n = view_chain(c, out, chain, &base);
    memcpy(now, at, sizeof now);
    while (n-- > 0) {
        if (!snP_onto(c->g, chain[n], &c->dom, now, to)) return false;
        memcpy(now, to, sizeof now);
    }
    *address = snP_linear(snG_type(c->g, out), now);
    return true;
}

/* at[]: where the group's domain computes `value`, which is `out` or what `out` views. */
bool gen_place(const Gen *c, NodeId out, NodeId *value, Lin *at, Lin *address)
{
    *value = gen_viewed(c, out);
    const Type *t = snG_type(c->g, *value);
    Lin e = snP_whole(&c->dom);
    int64_t points = snP_points(&c->dom), count = snG_count(t);
    if (count != points) {                                     /* one per row, or run of rows */
        int64_t cols = 1;
        int i = c->dom.n;
        while (i > 0 && i > c->dom.n - (c->outer >= 0 ? 2 : 1) && count * cols < points) cols *= c->dom.ext[--i], e.k[i] = 0;
        if (count * cols != points) return false;
        while (i > 0) e.k[--i] /= cols;
    }
    return snP_coords(&c->dom, e, t, at) && gen_onto(c, out, at, address);
}

TVal gen_inside(Gen *c, int dim, int32_t size)
{
    int64_t n = gen_extent(c, dim);
    if (dim < 0 || n % size == 0) return 0;
    TVal left = snT_ix(c->t, T_isub, snT_idx(c->t, n), c->base[dim]);
    return snT_ix(c->t, T_imin, left, snT_idx(c->t, size));
}

/* grid 0: row blocks, grid 1: column blocks, then the other dims; the outermost share the last grid dimension. */
void gen_grid(Gen *c)
{
    Tile *t = c->t;
    int other[MAX_DOM], n = 0;
    for (int i = c->dom.n - 1; i >= 0; i--)
        if (i != c->row && i != c->col && !c->joined[i] && gen_extent(c, i) > 1 && !c->base[i]) other[n++] = i;
    t->ngrid = 2;
    t->grid[0] = (gen_extent(c, c->row) + c->R - 1) / c->R;
    t->grid[1] = (gen_extent(c, c->col) + c->C - 1) / c->C;
    for (int i = 0; i < n; i++) {
        if (t->ngrid < MAX_RANK) t->grid[t->ngrid++] = gen_extent(c, other[i]);
        else t->grid[MAX_RANK - 1] *= gen_extent(c, other[i]);
    }
    for (int i = 0; i < n && i < MAX_RANK - 2; i++) c->base[other[i]] = snT_grid(t, i + 2);
    if (n > MAX_RANK - 2) {
        TVal rest = snT_grid(t, MAX_RANK - 1);
        for (int i = MAX_RANK - 3; i < n; i++) {
            TVal e = snT_idx(t, gen_extent(c, other[i]));
            c->base[other[i]] = snT_ix(t, T_imod, rest, e);
            rest = snT_ix(t, T_idiv, rest, e);
        }
    }
    if (c->row >= 0) c->base[c->row] = snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, c->R));
    if (c->col >= 0) c->base[c->col] = snT_ix(t, T_imul, snT_grid(t, 1), snT_idx(t, c->C));
    c->vr = gen_inside(c, c->row, c->R);
    c->vc = gen_inside(c, c->col, c->C);
}

void gen_tile(Gen *c, const char *family)
{
    c->t = snT_new(c->g->ctx, c->a, family, snG_node_name(c->g, c->grp->anchor));
    c->memo.n = 0;
}

double gen_bytes(const Graph *g, const Group *grp)
{
    double n = 0;
    for (uint32_t i = 0; i < grp->inputs.n + grp->outputs.n; i++) {
        NodeId id = i < grp->inputs.n ? grp->inputs.v[i] : grp->outputs.v[i - grp->inputs.n];
        const Type *t = snG_type(g, id);
        n += (double)(i < grp->inputs.n ? grp->touched.v[i] : snG_count(t)) * snG_dtype_size((Dtype)t->dtype);
    }
    return n;
}

GroupTiles snK_group_tiles(const Graph *g, const Group *grp, const Target *t, Arena *a)
{
    static void (*const family[])(const Graph *, const Group *, const Target *, Arena *, GroupTiles *) = {
        [G_ROWS] = gen_rows, [G_GEMM] = gen_gemm, [G_CONCAT] = gen_concat, [G_SCATTER] = gen_scatter,
        [G_ATTENTION] = gen_attention };
    GroupTiles out = { 0 };
    family[grp->kind](g, grp, t, a, &out);
    return out;
}
