/* family_gemm.c: a matmul with the elementwise work before and after it.

   In: a group with one matmul. Out: one tile program over grid (m, n, batch...): a loop over K stages a block of each operand and
   adds their product; then the cone of every output is computed from the product tile and stored. An operand that is not in
   memory is a cone as well, of any leaves: its stage evaluates it, once for each program that packs it.
   Operands are read through their views, so transposes, head splits and slices are strides; outputs may be stored permuted. A matmul_some reads its count
   first: the loop over K ends there, or rows beyond it get the cone of 0. */
#include "codegen/gen.h"
#include "passes/product.h"

static bool in_memory(const void *c, NodeId id) { return gen_in_memory(c, id); }

/* The dim that a program's tiles span along an axis; -1: its size is 1. */
static int dim_of(const Product *p, int axis) { return p->end[axis] > p->first[axis] ? p->end[axis] - 1 : -1; }

/* The finer dims of one axis walk as one: the fuser made sure of it. */
static void join_axes(Gen *c, const Product *p)
{
    for (int i = 0; i <= p->n; i++)
        for (int d = p->first[i]; d < p->end[i] - 1; d++) c->joined[d] = true;
}

/* Does the operand lie with K fastest? Found by a dry run that collects the address forms of its leaves: those that vary over
   both of its axes decide, or any, if none does. */
static bool k_fastest(Gen *c, const Product *p, int o)
{
    Lin at[MAX_RANK];
    uint32_t first = c->seen.n;
    int free_dim = dim_of(p, p->n - 2 + o), k_dim = dim_of(p, p->n);
    snP_operand_at(c->g, p, o, at);
    gen(c, snG_in(c->g, p->id, (unsigned)o), at);
    for (int any = 0; any < 2; any++)
        for (uint32_t i = first; i < c->seen.n; i++) {
            const Lin *l = &c->seen.v[i];
            if (!any && (free_dim < 0 || !l->k[free_dim] || !l->k[k_dim])) continue;
            if (free_dim >= 0 && l->k[free_dim] == 1) return false;
            if (l->k[k_dim] == 1) return true;
        }
    return true;
}

typedef struct Block { int dim; int32_t size; TVal valid; } Block;

/* Stage an operand's block of `rows` x `cols` dims. */
static TVal stage(Gen *c, const Product *p, int o, Block rows, Block cols)
{
    Lin at[MAX_RANK];
    c->row = rows.dim, c->R = rows.size, c->vr = rows.valid;
    c->col = cols.dim, c->C = cols.size, c->vc = cols.valid;
    c->memo.n = 0;
    snP_operand_at(c->g, p, o, at);
    TVal v = gen(c, snG_in(c->g, p->id, (unsigned)o), at);
    if (c->t->ins.v[v].type.dtype == SN_BOOL) SN_ASSERT(false, "matmul of bool");
    return snT_stage(c->t, gen_full(c, v, rows.size, cols.size), rows.valid, cols.valid);
}

static TVal left(Gen *c, TVal at, int64_t n, int32_t size)
{
    if (n % size == 0) return 0;
    return snT_ix(c->t, T_imin, snT_ix(c->t, T_isub, snT_idx(c->t, n), at), snT_idx(c->t, size));
}

/* The product tile, and the outputs computed from it. */
static void epilogue(Gen *c, const Product *p, TVal product)
{
    const Group *grp = c->grp;
    NodeId value[64];
    Lin address[64], at[MAX_RANK];
    TVal v[64];
    Dom with_k = c->dom;
    SN_ASSERT(grp->outputs.n <= 64, "a group with %u outputs", grp->outputs.n);
    c->memo.n = 0;
    c->dom.n = p->first[p->n];                                 /* K is gone */
    Memo m = { .id = p->id, .v = product };
    for (int i = 0; i < p->n; i++) m.at[i] = snP_axis(p, i);
    PUSH(c->a, c->memo, m);
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        if (!gen_place(c, grp->outputs.v[i], &value[i], at, &address[i]))
            SN_ASSERT(false, "no place for %s", snG_node_name(c->g, grp->outputs.v[i]));
        v[i] = gen(c, value[i], at);
    }
    for (uint32_t i = 0; i < grp->outputs.n; i++) gen_store(c, grp->outputs.v[i], address[i], v[i]);
    c->dom = with_k;
}

static void gemm_grid(Gen *c, const Product *p, GemmSched s)
{
    int m = p->n - 2, n = p->n - 1;
    c->row = dim_of(p, m), c->R = s.bm;
    c->col = dim_of(p, n), c->C = s.bn;
    c->base[dim_of(p, p->n)] = 1;                               /* K is a loop's, not the grid's */
    gen_grid(c);
    c->base[dim_of(p, p->n)] = 0;
}

/* What of a matmul_some counts, as indices: rows of the result, inner indices; 0 = all. */
typedef struct Some { TVal rows, inner; } Some;

static Some some_of(Gen *c, const Product *p)
{
    if (snG_node(c->g, p->id)->nin < 3) return (Some){ 0 };
    TVal n = gen(c, snG_in(c->g, p->id, 2), (Lin[MAX_RANK]){ 0 });
    n = snT_ix(c->t, T_imax, snT_add(c->t, &(TIns){ .op = T_count, .a = { n } }), snT_idx(c->t, 0));
    return snG_attr_int(c->g, p->id, 2) ? (Some){ .inner = n } : (Some){ .rows = n };
}

typedef struct Staging { GemmSched s; bool ta, tb; } Staging;

/* The loop over K: the product tile of rows < vm and columns < vn. At least one step, so that the tile is made. */
static TVal product_tile(Gen *c, const Product *p, Staging how, TVal vm, TVal vn, TVal inner)
{
    GemmSched s = how.s;
    int kd = dim_of(p, p->n);
    TVal depth = snT_idx(c->t, p->ext[p->n]), end = depth;
    if (inner) depth = snT_ix(c->t, T_imin, depth, inner), end = snT_ix(c->t, T_imax, depth, snT_idx(c->t, 1));
    TVal acc = snT_var(c->t, snT_full(c->t, (TType){ SN_F32, s.bm, s.bn }, 0));
    TVal k = snT_for(c->t, snT_idx(c->t, 0), end, snT_idx(c->t, s.kc), true);
    TVal vk = left(c, k, p->ext[p->n], s.kc);
    if (inner) vk = snT_ix(c->t, T_imin, snT_ix(c->t, T_isub, depth, k), snT_idx(c->t, s.kc));
    c->base[kd] = k;
    Block bm = { dim_of(p, p->n - 2), s.bm, vm }, bn = { dim_of(p, p->n - 1), s.bn, vn }, bk = { kd, s.kc, vk };
    TVal at = how.ta ? stage(c, p, 0, bk, bm) : stage(c, p, 0, bm, bk);
    TVal bt = how.tb ? stage(c, p, 1, bn, bk) : stage(c, p, 1, bk, bn);
    snT_set(c->t, acc, snT_dot(c->t, at, bt, snT_get(c->t, acc), how.ta, how.tb));
    snT_end(c->t);
    c->base[kd] = 0;
    return snT_get(c->t, acc);
}

/* Product and epilogue of rows < vm. */
static void finish(Gen *c, const Product *p, GemmSched s, TVal vm, TVal vn, TVal product)
{
    c->row = dim_of(p, p->n - 2), c->R = s.bm, c->vr = vm;
    c->col = dim_of(p, p->n - 1), c->C = s.bn, c->vc = vn;
    epilogue(c, p, snT_ew(c->t, S_cast, (Dtype)snG_type(c->g, p->id)->dtype, product, 0, 0));
}

static TVal positive(Gen *c, TVal n)
{
    TVal i = snT_add(c->t, &(TIns){ .op = T_widen, .type = { SN_I32, 1, 1 }, .a = { n } });
    return snT_ew(c->t, S_gt, SN_BOOL, i, snT_full(c->t, (TType){ SN_I32, 1, 1 }, 0), 0);
}

/* Rows below n as usual, the others as if their product were 0; a program without rows of a kind skips its part. */
static void some_rows(Gen *c, const Product *p, Staging how, TVal vm, TVal vn, TVal n)
{
    Tile *t = c->t;
    int row = dim_of(p, p->n - 2);
    TVal all = vm ? vm : snT_idx(t, how.s.bm), from = row < 0 ? 0 : c->base[row], first = from ? from : snT_idx(t, 0);
    TVal mine = snT_ix(t, T_imin, all, snT_ix(t, T_imax, snT_ix(t, T_isub, n, first), snT_idx(t, 0)));
    TVal rest = snT_ix(t, T_isub, all, mine);
    snT_if(t, positive(c, mine));
    finish(c, p, how.s, mine, vn, product_tile(c, p, how, mine, vn, 0));
    snT_end(t);
    snT_if(t, positive(c, rest));
    if (row >= 0) c->base[row] = snT_ix(t, T_iadd, first, mine);
    finish(c, p, how.s, rest, vn, snT_full(t, (TType){ SN_F32, how.s.bm, how.s.bn }, 0));
    snT_end(t);
    if (row >= 0) c->base[row] = from;
}

void gen_gemm(const Graph *g, const Group *grp, const Target *target, Arena *a, GroupTiles *out)
{
    Gen c = gen_open(g, grp, target, a);
    Product p = snP_product(g, grp->anchor, grp->nodes.v, grp->nodes.n, in_memory, &c);
    c.dom = p.dom;
    int m = p.n - 2, n = p.n - 1;
    int64_t batch = 1;
    for (int i = 0; i < m; i++) batch *= p.ext[i];
    join_axes(&c, &p);
    Staging how = { .ta = !k_fastest(&c, &p, 0), .tb = k_fastest(&c, &p, 1) };
    how.s = snK_sched_gemm(target, batch, p.ext[m], p.ext[n], p.ext[p.n], how.ta, how.tb, (Dtype)snG_type(g, snG_in(g, p.id, 0))->dtype);
    gen_tile(&c, "gemm");
    gemm_grid(&c, &p, how.s);
    TVal vm = dim_of(&p, m) < 0 ? snT_idx(c.t, 1) : c.vr, vn = dim_of(&p, n) < 0 ? snT_idx(c.t, 1) : c.vc;
    Some some = some_of(&c, &p);
    if (some.rows) some_rows(&c, &p, how, vm, vn, some.rows);
    else finish(&c, &p, how.s, vm, vn, product_tile(&c, &p, how, vm, vn, some.inner));
    c.t->flops = 2.0 * (double)batch * (double)p.ext[m] * (double)p.ext[n] * (double)p.ext[p.n];
    c.t->bytes = gen_bytes(g, grp);
    GroupTile gt = { .tile = c.t };
    for (uint32_t i = 0; i < c.args.n; i++) PUSH(a, gt.args, c.args.v[i]);
    PUSH(a, out->v, gt);
}
