/* family_move.c: values made of parts, and rows added by index.

   concat, pad   each operand is computed over its own elements and stored to its place in the result; parts of one shape
                 share a program (the two halves of a rotation read their inputs once). A pad's margins are parts of one value.
   scatter_add   two kernels: the base is copied by whole rows, then a program owns some columns of the result and adds the rows in
                 index order. No atomics, the same sum whatever runs where. */
#include "codegen/gen.h"

typedef struct Part { NodeId src; double value; Type type; int64_t at; } Part;   /* src 0: every element is value */

static int parts_of(const Graph *g, NodeId id, Part *part, int *axis)
{
    const Node *n = snG_node(g, id);
    int64_t a = snG_attr_int(g, id, 0), at = 0;
    int count = 0;
    *axis = (int)(a < 0 ? a + snG_type(g, id)->rank : a);
    if (n->op == OP_concat) {
        for (unsigned i = 0; i < n->nin; i++) {
            const Type *t = snG_type(g, snG_in(g, id, i));
            part[count++] = (Part){ snG_in(g, id, i), 0, *t, at };
            at += t->dim[*axis];
        }
        return count;
    }
    const Type *x = snG_type(g, snG_in(g, id, 0));
    int64_t lo = snG_attr_int(g, id, 1), hi = snG_attr_int(g, id, 2);
    double v = snG_attr(g, id, 3)->f;
    Type margin = *x;
    margin.dim[*axis] = lo;
    if (lo) part[count++] = (Part){ 0, v, margin, 0 };
    part[count++] = (Part){ snG_in(g, id, 0), 0, *x, lo };
    margin.dim[*axis] = hi;
    if (hi) part[count++] = (Part){ 0, v, margin, lo + x->dim[*axis] };
    return count;
}

/* The concat's coordinates through the views under which it is stored. */
static Lin stored_at(const Gen *c, NodeId out, NodeId whole, const Lin *at)
{
    NodeId chain[64], x = out;
    Lin now[MAX_RANK], to[MAX_RANK];
    int n = 0;
    while (x != whole && n < 64) chain[n++] = x, x = snG_in(c->g, x, 0);
    memcpy(now, at, sizeof now);
    for (int i = n - 1; i >= 0; i--) {
        if (!snP_onto(c->g, chain[i], &c->dom, now, to)) SN_ASSERT(false, "%s cannot be stored so", snG_node_name(c->g, chain[i]));
        memcpy(now, to, sizeof now);
    }
    return snP_linear(snG_type(c->g, out), now);
}

/* All parts that have the shape of part[first]. */
static void parts_body(Gen *c, const Part *part, int n, int first, int axis)
{
    TVal v[MAX_IN + 2];
    Lin at[MAX_RANK];
    for (int i = first; i < n; i++) {
        if (!snG_same_shape(&part[i].type, &part[first].type)) continue;
        if (!snP_coords(&c->dom, snP_whole(&c->dom), &part[i].type, at)) SN_ASSERT(false, "part domain");
        if (part[i].src) v[i] = gen(c, part[i].src, at);
        else if (c->t) v[i] = snT_full(c->t, (TType){ part[i].type.dtype, 1, 1 }, part[i].value);
    }
    for (int i = first; i < n; i++) {
        if (!snG_same_shape(&part[i].type, &part[first].type)) continue;
        if (!snP_coords(&c->dom, snP_whole(&c->dom), &part[i].type, at)) SN_ASSERT(false, "part domain");
        at[axis].c += part[i].at;
        for (uint32_t o = 0; o < c->grp->outputs.n; o++)
            gen_store(c, c->grp->outputs.v[o], stored_at(c, c->grp->outputs.v[o], c->grp->anchor, at), c->t ? v[i] : 0);
    }
}

static void tile_for_parts(Gen *c)
{
    int last = c->dom.n - 1;
    c->col = last;
    for (int i = last - 1; i >= 0 && c->row < 0; i--) if (!c->joined[i] && gen_extent(c, i) > 1) c->row = i;
    RowsSched s = snK_sched_rows(c->target, gen_extent(c, c->row), gen_extent(c, c->col), 2, false);
    c->R = s.rows, c->C = s.cols;
}

static void push_tile(Gen *c, GroupTiles *out)
{
    GroupTile gt = { .tile = c->t };
    for (uint32_t i = 0; i < c->args.n; i++) PUSH(c->a, gt.args, c->args.v[i]);
    PUSH(c->a, out->v, gt);
}

void gen_concat(const Graph *g, const Group *grp, const Target *t, Arena *a, GroupTiles *out)
{
    Part part[MAX_IN + 2];
    int axis, n = parts_of(g, grp->anchor, part, &axis);
    for (int i = 0; i < n; i++) {
        bool done = false;
        for (int k = 0; k < i; k++) done |= snG_same_shape(&part[k].type, &part[i].type);
        if (done) continue;
        Gen c = gen_open(g, grp, t, a);
        c.dom = part[i].src ? snP_part_dom(g, part[i].src) : snP_dom(&part[i].type);
        for (int k = i + 1; k < n; k++) {                       /* fine enough for every part that shares the program */
            if (!part[k].src || !snG_same_shape(&part[k].type, &part[i].type)) continue;
            Dom d = snP_part_dom(g, part[k].src);
            Type cut = { .rank = 0 };
            if (d.n > MAX_RANK) continue;
            for (int j = 0; j < d.n; j++) cut.dim[cut.rank++] = d.ext[j];
            Dom was = c.dom;
            if (!snP_refine(&c.dom, &cut)) c.dom = was;
        }
        parts_body(&c, part, n, i, axis);
        gen_coalesce(&c);
        tile_for_parts(&c);
        gen_tile(&c, "concat");
        gen_grid(&c);
        parts_body(&c, part, n, i, axis);
        c.t->bytes = i ? 0 : gen_bytes(g, grp);
        push_tile(&c, out);
    }
}

/* -- scatter_add ----------------------------------------------------------------------------------------------------- */

/* A block of R rows of `width` columns of a tensor in memory, or of its one value. */
static TVal block(Gen *c, NodeId id, TVal row, TVal col, int64_t width, TVal vr, TVal vc)
{
    double v;
    Dtype d = (Dtype)snG_type(c->g, id)->dtype;
    if (snG_is_const(c->g, id, &v) && !snG_node(c->g, id)->group) return snT_full(c->t, (TType){ d, c->R, c->C }, v);
    TVal base = snT_ix(c->t, T_iadd, snT_ix(c->t, T_imul, row, snT_idx(c->t, width)), col);
    return snT_load(c->t, gen_param(c, id, false), c->R, c->C, base, width, 1, vr, vc);
}

static TVal rest(Gen *c, TVal at, int64_t n, int32_t size)
{
    if (n % size == 0) return 0;
    return snT_ix(c->t, T_imin, snT_ix(c->t, T_isub, snT_idx(c->t, n), at), snT_idx(c->t, size));
}

/* The base to its place, whole rows at a time. */
static void scatter_base(Gen *c, NodeId id, NodeId base, int64_t rows, int64_t width)
{
    RowsSched s = snK_sched_rows(c->target, rows, width, 1, false);
    c->R = s.rows, c->C = s.cols;
    gen_tile(c, "scatter");
    c->t->ngrid = 2;
    c->t->grid[0] = (rows + c->R - 1) / c->R;
    c->t->grid[1] = (width + c->C - 1) / c->C;
    TVal row = snT_ix(c->t, T_imul, snT_grid(c->t, 0), snT_idx(c->t, c->R)), vr = rest(c, row, rows, c->R);
    TVal col = snT_ix(c->t, T_imul, snT_grid(c->t, 1), snT_idx(c->t, c->C)), vc = rest(c, col, width, c->C);
    TVal at = snT_ix(c->t, T_iadd, snT_ix(c->t, T_imul, row, snT_idx(c->t, width)), col);
    TVal v = block(c, base, row, col, width, vr, vc);
    snT_store(c->t, gen_param(c, id, true), at, v, width, 1, vr, vc);
    c->t->bytes = gen_bytes(c->g, c->grp);
}

/* A strip of columns: the rows that are added, in order. */
static void scatter_rows(Gen *c, NodeId id, NodeId idx, NodeId upd, int64_t rows, int64_t width)
{
    int64_t n = snG_count(snG_type(c->g, idx));
    double k;
    c->R = 32, c->C = (int32_t)(width < 64 ? width : 64);
    gen_tile(c, "scatter");
    c->t->ngrid = 1;
    c->t->grid[0] = (width + c->C - 1) / c->C;
    TVal col = snT_ix(c->t, T_imul, snT_grid(c->t, 0), snT_idx(c->t, c->C)), vc = rest(c, col, width, c->C);
    int dst = gen_param(c, id, true);
    TVal i = snT_for(c->t, snT_idx(c->t, 0), snT_idx(c->t, n), snT_idx(c->t, c->R), false), vr = rest(c, i, n, c->R);
    TVal where = snG_is_const(c->g, idx, &k) && !snG_node(c->g, idx)->group ? snT_full(c->t, (TType){ SN_I32, c->R, 1 }, k)
               : snT_load(c->t, gen_param(c, idx, false), c->R, 1, i, 1, 0, vr, 0);
    TVal v = block(c, upd, i, col, width, vr, vc);
    snT_add(c->t, &(TIns){ .op = T_scatter_add, .buf = dst, .a = { col, v, where, vr, vc }, .ks = width, .rs = 0, .cs = 1, .imm = rows });
    snT_end(c->t);
}

void gen_scatter(const Graph *g, const Group *grp, const Target *t, Arena *a, GroupTiles *out)
{
    NodeId id = grp->anchor, base = snG_in(g, id, 0), idx = snG_in(g, id, 1), upd = snG_in(g, id, 2);
    int64_t rows = snG_type(g, id)->dim[0], width = snG_count(snG_type(g, id)) / rows;
    Gen first = gen_open(g, grp, t, a), second = gen_open(g, grp, t, a);
    scatter_base(&first, id, base, rows, width);
    push_tile(&first, out);
    scatter_rows(&second, id, idx, upd, rows, width);
    push_tile(&second, out);
}
