/* family_rows.c: elementwise work, reductions along rows, sums of columns.

   In: a group without contraction. Out: one tile program.

   rows      each program takes R whole rows (reductions need them), or an R x C block where nothing reduces;
             statistics are [R, 1] tiles.          softmax, norms, losses, AdamW, dropout, gathers
   columns   sums over a middle or leading axis: each program takes C columns and goes down the rows in order,
             adding column sums of R x C tiles.    gradients of gains and biases, second stages of long sums
   both      each program takes whole rows of one chunk of the sums: a norm's gradient for its input and, in the same pass,
             chunks of those for gain and bias
   runs      what rows are made of is reduced over a run of them, a sequence: every program computes those [1, run] tiles again and
             takes some of the rows; the first of a run stores its values.     noise, masks and embeddings */
#include "codegen/gen.h"

typedef struct Shape { bool whole, columns, runs; int64_t before, n, after; } Shape;

static int sum_axis(const Graph *g, NodeId id)
{
    int64_t a = snG_attr(g, id, 0)->i[0];
    return (int)(a < 0 ? a + snG_type(g, snG_in(g, id, 0))->rank : a);
}

/* Is id a sum whose axis has others after it? */
static bool is_column_sum(const Graph *g, NodeId id, Shape *s)
{
    if (snG_node(g, id)->op != OP_sum) return false;
    const Type *x = snG_type(g, snG_in(g, id, 0));
    int axis = sum_axis(g, id);
    s->before = s->after = 1, s->n = x->dim[axis];
    for (int i = 0; i < x->rank; i++) *(i < axis ? &s->before : &s->after) *= i == axis ? 1 : x->dim[i];
    return s->after > 1;
}

/* Cuts dom as d does, which has one point for each row of it, or for each run of rows: the rest of d is dom's. */
static void refine(Dom *dom, const Dom *d)
{
    Dom was = *dom;
    Type t = { .rank = 0 };
    int64_t rest = snP_points(dom) / (snP_points(d) ? snP_points(d) : 1), n = 1;
    int from = dom->n;
    while (from > 0 && n < rest) n *= dom->ext[--from];
    if (n != rest || d->n + dom->n - from > MAX_RANK) return;
    for (int k = 0; k < d->n; k++) t.dim[t.rank++] = d->ext[k];
    for (int k = from; k < dom->n; k++) t.dim[t.rank++] = dom->ext[k];
    if (!snP_refine(dom, &t)) *dom = was;
}

/* The finest domain of the group, and which of the forms it takes. */
static Dom group_dom(const Graph *g, const Group *grp, Shape *shape)
{
    Dom dom = snP_node_dom(g, grp->nodes.v[0]);
    int64_t least = INT64_MAX, reduced = INT64_MAX;           /* points of a node, of a reduction */
    for (uint32_t i = 0; i < grp->nodes.n; i++) {
        NodeId id = grp->nodes.v[i];
        Dom d = snP_node_dom(g, id);
        OpClass cls = snG_op(g->ctx, snG_node(g, id)->op)->cls;
        Shape s;
        if (snP_points(&d) > snP_points(&dom)) dom = d;
        if (snP_points(&d) < least) least = snP_points(&d);
        if (is_column_sum(g, id, &s)) *shape = (Shape){ .whole = shape->whole, .columns = true, .before = s.before, .n = s.n, .after = s.after };
        else if (cls == C_REDUCE || cls == C_SCAN) {
            shape->whole |= snP_points(&d) > 1;
            if (cls == C_REDUCE && snP_points(&d) < reduced) reduced = snP_points(&d);
        }
    }
    for (uint32_t i = 0; i < grp->nodes.n; i++) {
        Dom d = snP_node_dom(g, grp->nodes.v[i]);
        shape->whole |= snP_points(&d) < snP_points(&dom) && grp->nodes.n > 1;
        if (grp->nodes.n > 1) refine(&dom, &d);
    }
    int64_t rows = snP_points(&dom) / (dom.n ? dom.ext[dom.n - 1] : 1);
    shape->runs = !shape->columns && grp->nodes.n > 1 && (least < rows || reduced < snP_points(&dom));
    return dom;
}

/* -- Rows ---------------------------------------------------------------------------------------------------- */

/* Where an output is computed, and where it is stored. */
typedef struct Out { NodeId id, value; Lin at[MAX_RANK], address; } Out;

static Out *find_outputs(Gen *c)
{
    const Group *grp = c->grp;
    Out *out = NEWN(c->a, Out, grp->outputs.n);
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        Out *o = &out[i];
        int axis;
        o->id = grp->outputs.v[i];
        if (snP_moved_axis(c->g, o->id, &axis)) {
            o->value = o->id;
            snP_node_at(c->g, o->value, &c->dom, o->at);
            if (snG_op(c->g->ctx, snG_node(c->g, o->value)->op)->cls == C_REDUCE) o->at[axis] = snP_lin(0);
            o->address = snP_linear(snG_type(c->g, o->value), o->at);
        } else if (!gen_place(c, o->id, &o->value, o->at, &o->address))
            SN_ASSERT(false, "no place for %s", snG_node_name(c->g, o->id));
    }
    return out;
}

/* A value of a whole run of rows, which the program of its first rows stores. */
static bool of_run(const Gen *c, const Out *o)
{
    return c->outer >= 0 && snG_count(snG_type(c->g, o->value)) * c->dom.ext[c->outer] * c->dom.ext[c->dom.n - 1] == snP_points(&c->dom);
}

static void rows_body(Gen *c, const Out *out)
{
    uint32_t n = c->grp->outputs.n;
    TVal *v = NEWN(c->a, TVal, n);
    for (uint32_t i = 0; i < n; i++) v[i] = gen(c, out[i].value, out[i].at);
    for (uint32_t i = 0; i < n; i++)                           /* all reads before any write */
        if (!of_run(c, &out[i])) gen_store(c, out[i].id, out[i].address, v[i]);
    if (!c->t || c->outer < 0 || !c->base[c->outer]) return;
    TVal at = snT_add(c->t, &(TIns){ .op = T_widen, .type = { SN_I32, 1, 1 }, .a = { c->base[c->outer] } });
    snT_if(c->t, snT_ew(c->t, S_eq, SN_BOOL, at, snT_full(c->t, (TType){ SN_I32, 1, 1 }, 0), 0));
    for (uint32_t i = 0; i < n; i++) if (of_run(c, &out[i])) gen_store(c, out[i].id, out[i].address, v[i]);
    snT_end(c->t);
}

/* Computed without a pass over rows. */
static bool is_light(const Tile *t, TVal v)
{
    const TIns *i = &t->ins.v[v];
    if (!i->type.dtype || i->op == T_load || i->op == T_full || i->op == T_iota || i->op == T_widen) return true;
    if (i->op != T_ew) return false;
    for (int k = 0; k < 3; k++) if (i->a[k] && !is_light(t, i->a[k])) return false;
    return true;
}

/* The condition of rows under which alone anything but constants is stored: every output is select(it, .., constant); else 0. */
static TVal rows_wanted(Gen *c, const Out *out)
{
    TVal wanted = 0;
    double k;
    for (uint32_t i = 0; i < c->grp->outputs.n; i++) {
        NodeId id = out[i].value;
        if (snG_node(c->g, id)->op != OP_select || !snG_is_const(c->g, snG_in(c->g, id, 2), &k)) return 0;
    }
    for (uint32_t i = 0; i < c->grp->outputs.n; i++) {
        TVal w = gen(c, snG_in(c->g, out[i].value, 0), out[i].at);
        if (snT_type(c->t, w).c > 1 || (wanted && w != wanted) || !is_light(c->t, w)) return 0;
        wanted = w;
    }
    return wanted;
}

/* As rows_body, but a program none of whose rows is wanted stores the constants and computes nothing. */
static void wanted_body(Gen *c, const Out *out, TVal wanted)
{
    TVal any = snT_reduce(c->t, wanted, 0, RED_MAX, c->R > 1 ? c->vr : 0, 0), none = snT_ew(c->t, S_not, SN_BOOL, any, 0, 0);
    uint32_t before = c->memo.n;
    snT_if(c->t, any);
    rows_body(c, out);
    snT_end(c->t);
    c->memo.n = before;                                       /* what is made inside is not seen outside */
    snT_if(c->t, none);
    for (uint32_t i = 0; i < c->grp->outputs.n; i++) gen_store(c, out[i].id, out[i].address, gen(c, snG_in(c->g, out[i].value, 2), out[i].at));
    snT_end(c->t);
    c->memo.n = before;
}

/* Every program computes a run's values again: few programs a run, as long as there are sixteen in all; more on a GPU, where blocks are many. */
static int32_t run_rows(const Gen *c, int32_t rows)
{
    int64_t run = c->dom.ext[c->outer], runs = snP_points(&c->dom) / (run * c->dom.ext[c->dom.n - 1]), want = c->target->gpu ? 256 : 16;
    int64_t parts = runs < want ? want / runs : 1, least = (run + parts - 1) / parts;
    return rows > least ? rows : (int32_t)least;
}

static void pick_tile(Gen *c, uint32_t nloads)
{
    int last = c->dom.n - 1;
    while (last >= 0 && c->joined[last]) last--;
    c->col = c->whole_col || last >= 0 ? c->dom.n - 1 : -1;
    for (int i = c->col - 1; i >= 0 && c->row < 0; i--) if (!c->joined[i] && gen_extent(c, i) > 1) c->row = i;
    RowsSched s = snK_sched_rows(c->target, gen_extent(c, c->row), gen_extent(c, c->col), (int)nloads, c->whole_col);
    c->R = s.rows, c->C = s.cols;
    if (c->outer >= 0) c->R = run_rows(c, s.rows);
}

static void rows_kernel(Gen *c)
{
    const Out *out = find_outputs(c);
    rows_body(c, out);                                        /* dry: collects the forms */
    gen_coalesce(c);
    pick_tile(c, c->grp->inputs.n + c->grp->outputs.n);
    gen_tile(c, "rows");
    gen_grid(c);
    TVal wanted = c->whole_col ? rows_wanted(c, out) : 0;
    if (wanted) wanted_body(c, out, wanted);
    else rows_body(c, out);
}

/* -- Columns --------------------------------------------------------------------------------------------------- */

/* Where the summed dims begin and end: dims [lo, hi) multiply to n, those after hi to `after`. */
static void summed_dims(const Gen *c, const Shape *s, int *lo, int *hi)
{
    int64_t p = 1;
    int i = c->dom.n;
    while (i > 0 && p < s->after) p *= c->dom.ext[--i];
    *hi = i;
    for (p = 1; i > 0 && p < s->n;) p *= c->dom.ext[--i];
    *lo = i;
}

static void column_value(Gen *c, NodeId id, Lin *at, Lin *address)
{
    const Type *x = snG_type(c->g, snG_in(c->g, id, 0));
    if (!snP_coords(&c->dom, snP_whole(&c->dom), x, at)) SN_ASSERT(false, "columns of %s", snG_node_name(c->g, id));
    Lin out[MAX_RANK];
    memcpy(out, at, sizeof out);
    out[sum_axis(c->g, id)] = snP_lin(0);
    *address = snP_linear(snG_type(c->g, id), out);
}

/* What one R x C tile adds to every sum, and the group's elementwise outputs. acc[] are the sums' vars. */
static void columns_step(Gen *c, TVal *acc)
{
    const Group *grp = c->grp;
    int k = 0;
    TVal v[64], part[64];
    Lin at[MAX_RANK], address[64];
    NodeId value;
    for (uint32_t i = 0; i < grp->nodes.n; i++) {
        Shape s;
        NodeId id = grp->nodes.v[i];
        if (!is_column_sum(c->g, id, &s)) continue;
        column_value(c, id, at, &address[0]);
        part[k] = gen(c, snG_in(c->g, id, 0), at);
        if (c->t) part[k] = snT_reduce(c->t, gen_full(c, part[k], c->R, c->C), 0, RED_SUM, c->vr, c->vc);
        k++;
    }
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        Shape s;
        if (is_column_sum(c->g, grp->outputs.v[i], &s)) continue;
        if (!gen_place(c, grp->outputs.v[i], &value, at, &address[i])) SN_ASSERT(false, "no place");
        v[i] = gen(c, value, at);
    }
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        Shape s;
        if (!is_column_sum(c->g, grp->outputs.v[i], &s)) gen_store(c, grp->outputs.v[i], address[i], v[i]);
    }
    for (int i = 0; i < k && c->t; i++) {
        Dtype d = (Dtype)c->t->ins.v[part[i]].type.dtype;
        snT_set(c->t, acc[i], snT_ew(c->t, S_add, d, snT_get(c->t, acc[i]), part[i], 0));
    }
}

static void columns_tile(Gen *c, const Shape *s)
{
    int lo, hi;
    summed_dims(c, s, &lo, &hi);
    c->col = c->dom.n - 1;
    for (int i = hi - 1; i >= lo && c->row < 0; i--) if (!c->joined[i]) c->row = i;
    if (c->row < 0 && hi > lo) c->row = hi - 1;
    int64_t rows = gen_extent(c, c->row), cols = gen_extent(c, c->col);
    c->R = (int32_t)(rows < 64 ? rows : 64);
    c->C = (int32_t)(c->whole_col || cols < 256 ? cols : cols >= 2048 ? 256 : 64);
}

static void columns_kernel(Gen *c, const Shape *s)
{
    TVal acc[64];
    int nacc = 0, nloop = 0, lo, hi;
    columns_step(c, NULL);
    gen_coalesce(c);
    summed_dims(c, s, &lo, &hi);
    if (hi > lo && hi < c->dom.n) c->joined[hi - 1] = false;  /* the summed dims stay apart from their neighbours */
    if (lo > 0) c->joined[lo - 1] = false;
    columns_tile(c, s);
    gen_tile(c, "columns");
    for (int i = lo; i < hi; i++) c->base[i] = 1;              /* not the grid's */
    int row = c->row;
    c->row = -1;
    gen_grid(c);
    c->row = row;
    for (uint32_t i = 0; i < c->grp->nodes.n; i++) {
        Shape k;
        NodeId id = c->grp->nodes.v[i];
        if (!is_column_sum(c->g, id, &k)) continue;
        SN_ASSERT(nacc < 64, "a group with too many sums");
        acc[nacc++] = snT_var(c->t, snT_full(c->t, (TType){ snG_type(c->g, id)->dtype, 1, c->C }, 0));
    }
    for (int i = lo; i < hi; i++) {
        c->base[i] = 0;
        if (c->joined[i] || gen_extent(c, i) == 1) continue;
        TVal end = snT_idx(c->t, gen_extent(c, i));
        c->base[i] = snT_for(c->t, snT_idx(c->t, 0), end, snT_idx(c->t, i == row ? c->R : 1), false);
        nloop++;
        if (i != row || gen_extent(c, i) % c->R == 0) continue;
        c->vr = snT_ix(c->t, T_imin, snT_ix(c->t, T_isub, end, c->base[i]), snT_idx(c->t, c->R));
    }
    columns_step(c, acc);
    for (int i = 0; i < nloop; i++) snT_end(c->t);
    for (uint32_t i = 0, k = 0; i < c->grp->nodes.n; i++) {
        Shape q;
        Lin at[MAX_RANK], address;
        NodeId id = c->grp->nodes.v[i];
        if (!is_column_sum(c->g, id, &q)) continue;
        column_value(c, id, at, &address);
        TVal v = snT_get(c->t, acc[k++]);
        for (uint32_t o = 0; o < c->grp->outputs.n; o++) if (c->grp->outputs.v[o] == id) gen_store(c, id, address, v);
    }
}

/* -- Top k ------------------------------------------------------------------------------------------------------- */

static void topk_kernel(Gen *c, NodeId out)
{
    bool part = snG_node(c->g, out)->op == OP_part;
    NodeId id = part ? snG_in(c->g, out, 0) : out;
    int64_t k = snG_attr_int(c->g, id, 0);
    bool indices = part && snG_attr_int(c->g, out, 0) == 1;
    Lin at[MAX_RANK], e = snP_whole(&c->dom);
    c->whole_col = true;
    for (int real = 0; real < 2; real++) {
        snP_node_at(c->g, id, &c->dom, at);
        TVal v = gen(c, snG_in(c->g, id, 0), at);
        if (!real) { gen_coalesce(c), pick_tile(c, 2), gen_tile(c, "topk"), gen_grid(c); continue; }
        TType ty = { indices ? SN_I32 : snG_type(c->g, id)->dtype, c->R, (int32_t)k };
        v = snT_add(c->t, &(TIns){ .op = T_topk, .type = ty, .a = { gen_full(c, v, c->R, c->C) }, .imm = indices });
        int64_t n = gen_extent(c, c->col);
        for (int i = 0; i < c->dom.n; i++) e.k[i] = i == c->dom.n - 1 ? 0 : e.k[i] / n * k;
        snT_store(c->t, gen_param(c, out, true), gen_address(c, &e), v, gen_step(c->row, &e), 1, c->R > 1 ? c->vr : 0, 0);
    }
}

void gen_rows(const Graph *g, const Group *grp, const Target *t, Arena *a, GroupTiles *out)
{
    Shape s = { 0 };
    Gen c = gen_open(g, grp, t, a);
    NodeId id = grp->anchor;
    NodeId base = snG_node(g, id)->op == OP_part ? snG_in(g, id, 0) : id;
    if (snG_node(g, base)->op == OP_topk) {
        c.dom = snP_node_dom(g, base);
        if (c.dom.n == 0 || c.dom.ext[c.dom.n - 1] != snG_type(g, snG_in(g, base, 0))->dim[snG_type(g, base)->rank - 1])
            c.dom.ext[c.dom.n++] = 1;
        topk_kernel(&c, id);
    } else {
        c.dom = group_dom(g, grp, &s);
        c.whole_col = s.whole;
        c.outer = s.runs ? c.dom.n - 2 : -1;
        if (s.columns) columns_kernel(&c, &s);
        else rows_kernel(&c);
    }
    c.t->bytes = gen_bytes(g, grp);
    GroupTile gt = { .tile = c.t };
    for (uint32_t i = 0; i < c.args.n; i++) PUSH(a, gt.args, c.args.v[i]);
    PUSH(a, out->v, gt);
}
