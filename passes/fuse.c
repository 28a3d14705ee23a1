/* fuse.c: which nodes become one kernel.

   In: a graph of primitives. Out: the same graph with node.group set; nodes without a group are virtual (constants, index
   arithmetic, views) and are computed inside whoever reads them.

   Every node starts as a group of its own and is merged with the groups it reads from, when both run over one domain and
   nothing between them would have to run in the middle. What a merged value saves is its trip through memory. A node far
   behind a group stays out of it (FAR), and afterwards a stored value that is one light step from another is computed
   again by its readers (compute_again). A node has one of three places in its group's domain [rows, cols]:

     FULL   an element per point          x * r, exp(s - m), matmul
     STAT   an element per row            sum(x * x, -1), rsqrt(...), and whatever is computed from them
     OUTER  an element per run of rows    reductions over rows: of the STAT values of a sequence
     COL    an element per column         sum over rows

     ss: f32[2048, 1] = sum(sq, axis=1)      @group 3      x * rsqrt(mean(x * x)) * gain
     r:  f32[2048, 1] = rsqrt(ss.2)          @group 3      is one group: two passes over a row in L1
     y:  f32[2048, 192] = mul(xr, gain.b)    @group 3 */
#include "passes/attention.h"
#include "passes/fuse.h"
#include "passes/index.h"
#include "passes/pass.h"
#include "passes/product.h"

enum { FULL = 1, STAT, OUTER, COL };
enum { MOST_NODES = 256, MOST_INPUTS = 48 };
/* A node far behind a group, the gradient's beside the forward pass's, has its readers far behind too: computed early it would be
   stored for them and read again. */
enum { FAR = 160 };

typedef struct Set {                 /* one group while it grows; set.up chains to the one it was merged into */
    GroupKind kind;
    Dom dom;
    int64_t cols, axis[3];           /* red: row length. col: [before, n, after] of the summed axis */
    int64_t outer;                   /* rows that a value of OUTER belongs to; 0: there are none */
    bool red, col, solo;
    int up, n, reads;                /* nodes in it; memory operands, an upper bound */
    NodeId first, last;              /* its nodes, chained by f->next; first is the lowest id when it began */
    NodeId lo, hi;                   /* lowest and highest id */
    uint32_t seen;                   /* search that has been here */
    VEC(int) deps;                   /* sets it reads from; resolve through root() */
    VEC(NodeId) apart;               /* read at another element than the one computed: never in the same kernel */
} Set;

/* e: 1 + its element number among f->forms; 0: elements that an index picks. order: not read, only waited for */
typedef struct Read { NodeId p; bool order; uint32_t e; } Read;

typedef struct Fuse {
    const Graph *g;
    Arena a;
    unsigned without;                /* fusions left out */
    bool want_iota;                  /* walks also report index nodes */
    uint8_t *stored, *place, *cheap; /* per node: a view that must be stored; FULL, STAT, COL; index arithmetic without memory */
    uint8_t *again;                  /* computed again by every reader instead of stored */
    int *set;                        /* per node: its first set, -1 = virtual or leaf */
    VEC(Set) sets;
    uint32_t *uses, *user;           /* users in CSR form: user[uses[id] .. uses[id + 1]) */
    Dom *dom;                        /* per node: what it is computed over */
    VEC(Read) reads;                 /* what nodes read, each node's in a row: reads.v[from[id] .. from[id + 1]) */
    VEC(Lin) forms;                  /* neighbours mostly share theirs */
    uint32_t *from;
    Rows rows;                       /* concats that are placement, or may become so */
    uint8_t *memory;                 /* lives in memory: a leaf, or computed and stored */
    Layout *layout;
    NodeId *next;                    /* nodes of one set */
    uint32_t search, *read_by;       /* per node: the search in which it was read */
    VEC(int) stack;
    VEC(NodeId) attention;           /* its nodes so far */
} Fuse;

bool snP_is_view(const Graph *g, NodeId id) {
    unsigned op = snG_node(g, id)->op;
    return op == OP_reshape || op == OP_permute || op == OP_expand || op == OP_slice || op == OP_fence;
}


static NodeId update_base(const Graph *g, NodeId value) {
    int64_t at;
    return snP_update_base(g, value, &at);
}

static int root(Fuse *f, int s) {
    SN_ASSERT(s >= 0, "a node outside all groups");
    while (f->sets.v[s].up >= 0) {
        int up = f->sets.v[s].up, over = f->sets.v[up].up;
        if (over >= 0) f->sets.v[s].up = over;
        s = up;
    }
    return s;
}

/* -- Which nodes are virtual ------------------------------------------------------------------------ */

static bool transcendental(unsigned op) {
    return op == OP_exp || op == OP_log || op == OP_sin || op == OP_cos || op == OP_tanh || op == OP_erf ||
           op == OP_pow || op == OP_sigmoid;
}

static void find_cheap(Fuse *f) {
    for (NodeId id = 1; id < f->g->nodes.n; id++) {
        const Node *n = snG_node(f->g, id);
        bool ewise = snG_op(f->g->ctx, n->op)->cls == C_EWISE && !(f->without & FUSE_index) && !transcendental(n->op);
        bool ok = n->op == OP_const || n->op == OP_iota || ewise || snP_is_view(f->g, id);
        for (unsigned i = 0; i < n->nin && ok; i++) ok = f->cheap[snG_in(f->g, id, i)];
        f->cheap[id] = ok;
    }
}

/* Work on every (query, key) pair between an attention op's mask, bias or gain and memory is never stored: each kernel that
   needs it computes it again, unless somebody else needs it whole. */
static void find_pairwise(Fuse *f) {
    const Graph *g = f->g;
    int64_t *pairs = NEWN(&f->a, int64_t, g->nodes.n + 1);    /* queries times keys of the readers; 0: none, -1: it has others */
    for (NodeId id = g->nodes.n; --id > 0;) {
        const Node *n = snG_node(g, id);
        OpClass cls = snG_op(g->ctx, n->op)->cls;
        bool ewise = cls == C_EWISE && n->op != OP_fence, pairwise = pairs[id] > 0 && snG_count(snG_type(g, id)) >= pairs[id];
        Attention a = { 0 };
        if (snP_attention_kind(g, id)) a = snP_attention(g, id);
        if (pairwise && !f->stored[id] && (ewise || n->op == OP_random) && !f->cheap[id]) f->again[id] = 1;
        for (unsigned i = 0; i < n->nin; i++) {
            NodeId x = snG_in(g, id, i);
            if (x == a.in[ATT_mask] || x == a.in[ATT_bias] || x == a.in[ATT_gain])
                pairs[x] = pairs[x] < 0 ? -1 : a.dom.ext[a.lead + ATT_T] * a.dom.ext[a.lead + ATT_S];
            else if (pairwise && (ewise || snP_is_view(g, id))) pairs[x] = pairs[x] < 0 ? -1 : pairs[id];
            else if (cls != C_EWISE && cls != C_REDUCE) pairs[x] = -1;
        }
    }
}

static bool is_virtual(const Fuse *f, NodeId id) {
    return f->again[id] || (!f->stored[id] && (f->cheap[id] || snP_is_view(f->g, id)));
}

/* A stored value p, read at element number e of it; e NULL: at elements that an index picks. */
typedef void (*EdgeFn)(Fuse *f, NodeId p, const Dom *dom, const Lin *e, void *user);

static void record(Fuse *f, NodeId p, const Dom *dom, const Lin *e, void *user);
static void input_edge(Fuse *f, NodeId p, const Dom *dom, const Lin *e, void *user);
static void group_after(Fuse *f, NodeId p, void *user);

/* A fence is a view whose readers wait for its second operand, or for the last stored value behind that. */
static void wait_for(Fuse *f, NodeId view, EdgeFn fn, void *user) {
    const Graph *g = f->g;
    if (snG_node(g, view)->op != OP_fence || !fn) return;
    NodeId after = snG_in(g, view, 1);
    while (after && is_virtual(f, after)) {
        NodeId last = 0;
        for (unsigned i = 0; i < snG_node(g, after)->nin; i++) if (snG_in(g, after, i) > last) last = snG_in(g, after, i);
        after = last;
    }
    if (!after || snG_is_leaf(g, after)) return;
    if (fn == record) PUSH(&f->a, f->reads, ((Read){ .p = after, .order = true }));
    if (fn == input_edge) group_after(f, after, user);
}

/* A table is addressed by an index from memory, so it must be in memory itself, under whatever shape, or one constant. */
static bool walk_table(Fuse *f, NodeId in, EdgeFn fn, void *user, NodeId *bad) {
    static const Dom none = { 0 };
    double v;
    NodeId x = in;
    if (is_virtual(f, in) && snG_is_const(f->g, in, &v)) return true;
    while (is_virtual(f, x) && snG_node(f->g, x)->op == OP_reshape) x = snG_in(f->g, x, 0);
    if (is_virtual(f, x)) { *bad = in; return false; }
    if (fn) fn(f, x, &none, NULL, user);
    return true;
}

/* Calls fn for every stored value that `id`, read at coordinates at[], comes from; false where a view is not affine, and then
   *bad is that view. */
static bool walk(Fuse *f, NodeId id, const Dom *dom, const Lin *at, EdgeFn fn, void *user, NodeId *bad) {
    const Graph *g = f->g;
    const Type *t = snG_type(g, id);
    Lin e;
    if (!is_virtual(f, id)) {
        if (fn) e = snP_linear(t, at), fn(f, id, dom, &e, user);
        return true;
    }
    if (f->want_iota && snG_node(g, id)->op == OP_iota) fn(f, id, dom, &at[snG_attr_int(g, id, 1)], user);
    if (snP_is_view(g, id)) {
        NodeId x = snG_in(g, id, 0);
        Lin to[MAX_RANK];
        wait_for(f, id, fn, user);
        if (snG_node(g, id)->op == OP_reshape && !is_virtual(f, x)) {    /* what is in memory is one row of elements */
            if (fn) e = snP_linear(t, at), fn(f, x, dom, &e, user);
            return true;
        }
        if (!snP_through(g, id, dom, at, to)) { *bad = id; return false; }
        return walk(f, x, dom, to, fn, user, bad);
    }
    bool gather = snG_node(g, id)->op == OP_gather;             /* of single elements: see collect_light */
    if (gather && !walk_table(f, snG_in(g, id, 0), fn, user, bad)) return false;
    for (unsigned i = gather; i < snG_node(g, id)->nin; i++)
        if (!walk(f, snG_in(g, id, i), dom, at, fn, user, bad)) return false;
    return true;
}

static bool in_memory(const void *f, NodeId id) { return !is_virtual(f, id); }

static bool walk_product(Fuse *f, const Product *p, EdgeFn fn, void *user, NodeId *bad) {
    NodeId id = p->id;
    Lin at[MAX_RANK];
    for (int o = 0; o < 2; o++) {
        snP_operand_at(f->g, p, o, at);
        if (!walk(f, snG_in(f->g, id, (unsigned)o), &p->dom, at, fn, user, bad)) return false;
    }
    return snG_node(f->g, id)->nin < 3 || walk(f, snG_in(f->g, id, 2), &p->dom, NULL, fn, user, bad);    /* matmul_some: a scalar */
}

typedef struct EvenProduct { const Product *p; bool ok; } EvenProduct;

static void check_product(Fuse *f, NodeId p, const Dom *dom, const Lin *l, void *user) {
    EvenProduct *e = user;
    (void)f, (void)p, (void)dom;
    e->ok = e->ok && (!l || snP_even(e->p, l));
}

/* Can the operands be computed over these dims? */
static bool product_works(Fuse *f, const Product *p) {
    EvenProduct e = { p, true };
    NodeId bad;
    f->want_iota = true;
    bool affine = walk_product(f, p, check_product, &e, &bad);
    f->want_iota = false;
    return affine && e.ok;
}

static bool walk_matmul(Fuse *f, NodeId id, EdgeFn fn, void *user, NodeId *bad) {
    Product p = snP_product(f->g, id, NULL, 0, in_memory, f);
    if (p.cut && !product_works(f, &p)) p = snP_product_plain(f->g, id);
    return walk_product(f, &p, fn, user, bad);
}

static bool walk_attention(Fuse *f, NodeId id, EdgeFn fn, void *user, NodeId *bad) {
    Attention a = snP_attention(f->g, id);
    for (int r = 0; r < ATT_ROLES; r++) {
        Lin at[MAX_RANK];
        if (!a.in[r]) continue;
        snP_role_at(f->g, &a, (AttRole)r, at);
        if (!walk(f, a.in[r], &a.dom, at, fn, user, bad)) return false;
    }
    return true;
}

/* An operand over a domain of its own: parts of a concat, the base of a scatter. */
static bool walk_part(Fuse *f, NodeId in, EdgeFn fn, void *user, NodeId *bad) {
    Lin at[MAX_RANK];
    Dom dom = snP_part_dom(f->g, in);
    if (!snP_coords(&dom, snP_whole(&dom), snG_type(f->g, in), at)) SN_ASSERT(false, "part domain");
    return walk(f, in, &dom, at, fn, user, bad);
}

/* An operand that is read as it lies in memory. */
static bool walk_whole(Fuse *f, NodeId in, EdgeFn fn, void *user, NodeId *bad) {
    double v;
    if (!is_virtual(f, in) || snG_is_const(f->g, in, &v)) return walk_table(f, in, fn, user, bad);
    *bad = in;
    return false;
}

/* The operands of a node with the coordinates it reads them at. */
static bool walk_operands(Fuse *f, NodeId id, EdgeFn fn, void *user, NodeId *bad, Dom *out_dom) {
    const Graph *g = f->g;
    if (snG_node(g, id)->op == OP_part) id = snG_in(g, id, 0);
    const Node *n = snG_node(g, id);
    Dom dom = snP_node_dom(g, id);
    if (out_dom) *out_dom = dom;
    if (snG_op(g->ctx, n->op)->cls == C_CONTRACT) return walk_matmul(f, id, fn, user, bad);
    if (snP_attention_kind(g, id)) return walk_attention(f, id, fn, user, bad);
    Lin at[MAX_RANK], to[MAX_RANK];
    snP_node_at(g, id, &dom, at);
    if (snP_is_view(g, id)) {
        NodeId x = snG_in(g, id, 0);
        Lin e = snP_linear(snG_type(g, id), at);
        wait_for(f, id, fn, user);
        if (n->op == OP_reshape && !is_virtual(f, x)) {
            if (fn) fn(f, x, &dom, &e, user);
            return true;
        }
        if (!snP_through(g, id, &dom, at, to)) { *bad = id; return false; }
        return walk(f, x, &dom, to, fn, user, bad);
    }
    for (unsigned i = 0; i < n->nin; i++) {
        NodeId in = snG_in(g, id, i);
        bool ok;
        if (n->op == OP_concat || n->op == OP_pad) ok = walk_part(f, in, fn, user, bad);
        else if (n->op == OP_gather && i == 0) ok = walk_table(f, in, fn, user, bad);
        else if (n->op == OP_scatter_add) ok = walk_whole(f, in, fn, user, bad);
        else ok = walk(f, in, &dom, at, fn, user, bad);
        if (!ok) return false;
    }
    return true;
}

/* A view that some reader could not index by affine coordinates is stored; one that cannot be computed so either reads a stored
   operand, whose elements are one row. */
static void read_all(Fuse *f, NodeId id) {
    NodeId bad = 0;
    while (!walk_operands(f, id, NULL, NULL, &bad, NULL)) {
        NodeId s = bad == id ? snG_in(f->g, id, 0) : bad;
        SN_ASSERT(is_virtual(f, s), "view %s cannot be read", snG_node_name(f->g, bad));
        f->stored[s] = 1;
        read_all(f, s);
    }
}

/* Only a reshape of what is not in memory may be no affine view; and tables have to be in memory. */
static void find_stored(Fuse *f) {
    const Graph *g = f->g;
    ArenaMark mark = snU_mark(&f->a);
    bool *bent = NEWN(&f->a, bool, g->nodes.n);                /* such a reshape, or computed from one */
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        bool check = n->op == OP_gather || n->op == OP_scatter_add || n->op == OP_part || snP_is_view(g, id) || snP_attention_kind(g, id);
        if (is_virtual(f, id)) check = n->op == OP_reshape && is_virtual(f, snG_in(g, id, 0));
        for (unsigned i = 0; i < n->nin && !check; i++) check = bent[snG_in(g, id, i)] && is_virtual(f, snG_in(g, id, i));
        if (is_virtual(f, id)) bent[id] = check;
        else if (check) read_all(f, id);
    }
    snU_reset(&f->a, mark);
}

static void record(Fuse *f, NodeId p, const Dom *dom, const Lin *e, void *user) {
    (void)dom, (void)user;
    if (e && !(f->forms.n && snP_same_lin(e, &f->forms.v[f->forms.n - 1]))) PUSH(&f->a, f->forms, *e);
    Read r = { .p = p, .e = e ? f->forms.n : 0 };
    PUSH(&f->a, f->reads, r);
}

/* Once stored values are known, who reads what does not change until compute_again. */
static void record_reads(Fuse *f) {
    NodeId bad;
    for (NodeId id = 1; id < f->g->nodes.n; id++) {
        f->from[id] = f->reads.n;
        if (!snG_is_leaf(f->g, id) && !is_virtual(f, id)) walk_operands(f, id, record, NULL, &bad, &f->dom[id]);
    }
    f->from[f->g->nodes.n] = f->reads.n;
}

static void for_reads(Fuse *f, NodeId id, EdgeFn fn, void *user) {
    for (uint32_t i = f->from[id]; i < f->from[id + 1]; i++) {
        Read r = f->reads.v[i];
        if (!r.order) fn(f, r.p, &f->dom[id], r.e ? &f->forms.v[r.e - 1] : NULL, user);
    }
}

/* -- Merging --------------------------------------------------------------------------------------------- */

/* Does set s, or what it depends on, depend on set `on`? Only sets with a node after on's first can. */
static bool reaches(Fuse *f, int s, int on) {
    NodeId lo = f->sets.v[on].lo;
    f->stack.n = 0;
    PUSH(&f->a, f->stack, s);
    while (f->stack.n) {
        int k = root(f, f->stack.v[--f->stack.n]);
        Set *x = &f->sets.v[k];
        if (k == on) return true;
        if (x->seen == f->search || x->hi <= lo) continue;
        x->seen = f->search;
        for (uint32_t i = 0; i < x->deps.n; i++) PUSH(&f->a, f->stack, x->deps.v[i]);
    }
    return false;
}

/* Something outside a and b that b needs and that needs a? */
static bool between(Fuse *f, int a, int b) {
    f->search++;
    for (uint32_t i = 0; i < f->sets.v[b].deps.n; i++) {
        int d = root(f, f->sets.v[b].deps.v[i]);
        if (d != a && d != b && reaches(f, d, a)) return true;
    }
    return false;
}

/* May a and b run as one kernel? */
static bool acyclic(Fuse *f, int a, int b) { return !between(f, a, b) && !between(f, b, a); }

static void depend(Fuse *f, int s, int on) {
    Set *x = &f->sets.v[s];
    if (s == on || (x->deps.n && x->deps.v[x->deps.n - 1] == on)) return;
    PUSH(&f->a, x->deps, on);
}

static void merge(Fuse *f, int into, int from) {
    Set *a = &f->sets.v[into], *b = &f->sets.v[from];
    for (uint32_t i = 0; i < b->deps.n; i++) PUSH(&f->a, a->deps, b->deps.v[i]);
    for (uint32_t i = 0; i < b->apart.n; i++) PUSH(&f->a, a->apart, b->apart.v[i]);
    f->next[a->last] = b->first;
    a->last = b->last;
    a->lo = a->lo < b->lo ? a->lo : b->lo;
    a->hi = a->hi > b->hi ? a->hi : b->hi;
    a->n += b->n;
    a->reads += b->reads;
    b->up = into;
}

/* Cuts a where b does; cols > 1: b has one point for each row of so many of a's. */
static bool refine_dom(Dom *a, const Dom *b, int64_t cols) {
    Type t = { .rank = 0 };
    if (b->n + (cols > 1) > MAX_RANK) return false;
    for (int i = 0; i < b->n; i++) t.dim[t.rank++] = b->ext[i];
    if (cols > 1) t.dim[t.rank++] = cols;
    return snP_refine(a, &t);
}

/* Is the last dim (or run of dims) of d exactly cols long? */
static bool ends_with(const Dom *d, int64_t cols) {
    return cols == 1 || (d->n && d->ext[d->n - 1] == cols);
}

typedef struct Edge { NodeId n; int set; } Edge;
typedef enum { APART, SAME, STATS, OUTERS, SPREAD, BELOW } Fit;

/* Is e the number of the row in which a point of dom lies, rows of `cols` points? */
static bool spreads(const Dom *dom, const Lin *e, int64_t cols) {
    Lin id = snP_whole(dom);
    int64_t n = 1;
    int i = dom->n;
    while (i > 0 && n < cols) n *= dom->ext[--i], id.k[i] = 0;
    while (i > 0) id.k[--i] /= cols;
    return n == cols && snP_same_lin(&id, e);
}

/* Are values of A, one a point, row values of B: a mask's bits beside the embeddings of its tokens? Rows of A, if it reduces any, are
   runs of B's rows then, and every program computes those reductions again: that must be little beside its own elements. lone: the reader
   has one element along its last axis, so it is row values itself, and one number for all of them does not make them a row. */
static bool is_below(const Set *A, const Set *B, const Dom *dom, const Lin *e, bool lone) {
    enum { MOST_COLS = 8192, LEAST_COLS = 64 };
    int64_t full = snP_points(&A->dom), mine = snP_points(&B->dom), cols = full ? mine / full : 0;
    if (A->kind != G_ROWS || B->kind != G_ROWS || A->col || B->col || B->solo || A->outer || B->outer) return false;
    if (cols < 2 || mine != full * cols || snP_points(dom) != mine || (B->red ? B->cols != cols : cols > MOST_COLS)) return false;
    if (full == 1 && lone && !A->red && !B->red) return false;
    if (A->red && (A->cols < 2 || cols < LEAST_COLS || A->cols > MOST_COLS)) return false;
    return ends_with(dom, cols) && spreads(dom, e, cols);
}

/* How node n of set B, computed over `dom`, reads p of set A: at the very element (SAME), as a row value that it only works on
   (STATS; OUTERS: as a value for a run of rows), as one of these for all the points it belongs to (SPREAD), as an element that is a
   row value of B (BELOW), or at another place. */
static Fit fit(Fuse *f, const Set *A, const Set *B, NodeId n, NodeId p, const Dom *dom, const Lin *e) {
    if (!e || f->place[p] == COL || A->kind == G_CONCAT || A->kind == G_ATTENTION || A->solo) return APART;   /* a placed concat is solo */
    int64_t full = snP_points(&A->dom), mine = snP_points(&B->dom);
    Lin id = snP_whole(dom);
    bool same = snP_same_lin(e, &id);
    const Type *t = snG_type(f->g, n);
    bool lone = t->rank && t->dim[t->rank - 1] == 1;
    if (f->place[p] == FULL) return same && full == mine ? SAME : is_below(A, B, dom, e, lone) ? BELOW : APART;
    if (!A->red || B->col) return APART;
    if (f->place[p] == OUTER) {
        if (B->red) return APART;
        if (same && mine * A->cols * A->outer == full) return OUTERS;
        if (mine * A->cols == full && spreads(dom, e, A->outer)) return STATS;
        return mine == full && spreads(dom, e, A->outer * A->cols) ? SPREAD : APART;
    }
    if (same && mine * A->cols == full && !B->red) return STATS;
    if (same && mine == full && B->red && B->cols == A->cols) return SAME;      /* a row value of both */
    if (mine != full || (B->red && B->cols != A->cols) || !ends_with(dom, A->cols)) return APART;
    return spreads(dom, e, A->cols) ? SPREAD : APART;
}

/* Can one program reduce rows of `red` and add up a chunk of them for `col`? Chunks are all the programs there are: some have to be. */
static bool rows_and_columns(const Set *red, const Set *col) {
    enum { LEAST_CHUNKS = 16 };
    return col->axis[2] == red->cols && col->axis[0] >= LEAST_CHUNKS && snP_points(&col->dom) == snP_points(&red->dom);
}

/* Does d end with rows of cols, in whole runs of `outer` of them? */
static bool has_rows(const Dom *d, int64_t cols, int64_t outer) {
    return ends_with(d, cols) && (!outer || (d->n > 1 && d->ext[d->n - 2] == outer));
}

/* The merged set's domain and kind; false when the two cannot share a kernel. */
static bool combine(const Set *A, const Set *B, Fit how, Set *m) {
    bool gemm = A->kind == G_GEMM || B->kind == G_GEMM;
    *m = *A;
    if (A->kind == G_CONCAT || B->kind == G_CONCAT || A->solo || B->solo) return false;
    if (A->kind == G_ATTENTION || B->kind == G_ATTENTION) return false;
    if (A->kind == G_GEMM && B->kind == G_GEMM) return false;
    if (gemm && (A->red || B->red || A->col || B->col)) return false;
    if (how == BELOW) {
        m->dom = B->dom, m->red = true, m->cols = snP_points(&B->dom) / snP_points(&A->dom), m->outer = A->red ? A->cols : 0;
        return refine_dom(&m->dom, &A->dom, m->cols) && has_rows(&m->dom, m->cols, m->outer);
    }
    m->outer = A->outer ? A->outer : B->outer;
    if (how == STATS) return refine_dom(&m->dom, &B->dom, A->cols) && has_rows(&m->dom, A->cols, m->outer);
    if (how == OUTERS) return refine_dom(&m->dom, &B->dom, A->cols * A->outer) && has_rows(&m->dom, A->cols, m->outer);
    if (A->red && B->red && A->cols != B->cols) return false;
    if (m->outer && (A->col || B->col || (A->outer && B->outer && A->outer != B->outer))) return false;
    if ((A->red || B->red) && (A->col || B->col) && !rows_and_columns(A->red ? A : B, A->col ? A : B)) return false;
    if (A->col && B->col && memcmp(A->axis, B->axis, sizeof A->axis)) return false;
    Dom d = A->dom;
    if (!refine_dom(&d, &B->dom, 1)) return false;
    m->dom = d;
    if (gemm) m->kind = G_GEMM, m->dom = A->kind == G_GEMM ? A->dom : B->dom;
    m->red = A->red || B->red;
    m->cols = A->red ? A->cols : B->cols;
    m->col = A->col || B->col;
    if (B->col) memcpy(m->axis, B->axis, sizeof m->axis);
    return !m->red || has_rows(&d, m->cols, m->outer);
}

/* Is p computed by set q, or computed again from what is? */
static bool comes_from(Fuse *f, NodeId p, int q) {
    if (f->set[p] >= 0) return root(f, f->set[p]) == q;
    if (!f->again[p] && !(is_virtual(f, p) && snP_is_view(f->g, p))) return false;
    for (unsigned i = 0; i < snG_node(f->g, p)->nin; i++) if (comes_from(f, snG_in(f->g, p, i), q)) return true;
    return false;
}

static bool kept_apart(Fuse *f, const Set *s, int q) {
    for (uint32_t i = 0; i < s->apart.n; i++) if (comes_from(f, s->apart.v[i], q)) return true;
    return false;
}

static void note_apart(Fuse *f, NodeId p, const Dom *dom, const Lin *at, void *user) {
    Edge *edge = user;
    if (f->set[p] < 0) return;
    Set *B = &f->sets.v[root(f, edge->set)], *A = &f->sets.v[root(f, f->set[p])];
    bool product = snG_op(f->g->ctx, snG_node(f->g, edge->n)->op)->cls == C_CONTRACT;
    if (A != B && (product || fit(f, A, B, edge->n, p, dom, at) == APART)) PUSH(&f->a, B->apart, p);
}

/* A matmul's program walks rows and columns of its result: what an epilogue reads must step evenly along each, also where
   the epilogue's own shape cuts them finer. */
typedef struct Even { const Dom *gemm; bool ok; } Even;

static void check_even(Fuse *f, NodeId p, const Dom *dom, const Lin *l, void *user) {
    Even *e = user;
    (void)f, (void)p;
    if (!l) { e->ok = false; return; }
    int64_t edge = 1, inner = 1;                           /* edge: end of the gemm dim that dim i belongs to */
    int d = e->gemm->n - 1;
    for (int i = dom->n - 1; i >= 0; i--) {
        while (edge <= inner && d >= 0) edge *= e->gemm->ext[d--];
        inner *= dom->ext[i];
        if (i > 0 && inner < edge) e->ok = e->ok && l->k[i - 1] == l->k[i] * dom->ext[i];
    }
}

static bool even(Fuse *f, const Dom *gemm, NodeId id) {
    Even e = { gemm, true };
    NodeId bad;
    f->want_iota = true;
    walk_operands(f, id, check_even, &e, &bad, NULL);
    f->want_iota = false;
    return e.ok;
}

/* All nodes of set s. */
static bool all_even(Fuse *f, const Dom *gemm, int s) {
    for (NodeId i = f->sets.v[s].first; i; i = f->next[i]) if (!even(f, gemm, i)) return false;
    return true;
}

/* Do the cuts of a product's operands go with those of all that its program computes, the nodes of both sets? */
static bool cuts_agree(Fuse *f, int a, int b) {
    NodeId product = 0, node[2 * MOST_NODES];
    uint32_t n = 0;
    for (int side = 0; side < 2; side++)
        for (NodeId i = f->sets.v[side ? b : a].first; i && (!side || a != b); i = f->next[i]) {
            if (f->set[i] < 0 || n == 2 * MOST_NODES) continue;
            node[n++] = i;
            if (snG_op(f->g->ctx, snG_node(f->g, i)->op)->cls == C_CONTRACT) product = i;
        }
    Product p = snP_product(f->g, product, NULL, 0, in_memory, f);
    if (!p.cut || !product_works(f, &p)) return true;
    p = snP_product(f->g, product, node, n, in_memory, f);
    return product_works(f, &p);
}

/* Is the fusion that would merge the two left out? */
static bool left_out(const Fuse *f, const Set *A, const Set *B) {
    bool gemm = A->kind == G_GEMM || B->kind == G_GEMM, col = A->col || B->col;
    return f->without & (gemm ? FUSE_epilogue : col ? FUSE_columns : FUSE_rows);
}

/* One edge: a node of set s reads p of set q. Merges the two sets when they fit. */
static void try_merge(Fuse *f, NodeId p, const Dom *dom, const Lin *at, void *user) {
    Edge *e = user;
    if (f->set[p] < 0) return;
    int s = root(f, e->set), q = root(f, f->set[p]);
    if (s == q) return;
    Set *B = &f->sets.v[s], *A = &f->sets.v[q], m;
    if (A->n + B->n > MOST_NODES || A->reads + B->reads > MOST_INPUTS || e->n > A->hi + FAR) return;
    if (snG_op(f->g->ctx, snG_node(f->g, e->n)->op)->cls == C_CONTRACT) return;          /* no prologues */
    if (left_out(f, A, B)) return;
    Fit how = fit(f, A, B, e->n, p, dom, at);
    if (how == APART || !combine(A, B, how, &m)) return;
    if (kept_apart(f, A, s) || kept_apart(f, B, q) || !acyclic(f, s, q)) return;
    if (A->kind == G_GEMM && !all_even(f, &A->dom, s)) return;
    if (B->kind == G_GEMM && !all_even(f, &B->dom, q)) return;
    if (m.kind == G_GEMM && !cuts_agree(f, s, q)) return;
    if (how == STATS || how == OUTERS)
        for (NodeId i = B->first; i; i = f->next[i]) f->place[i] = how == STATS ? STAT : OUTER;
    if (how == BELOW)
        for (NodeId i = A->first; i; i = f->next[i]) f->place[i] = f->place[i] == FULL ? STAT : OUTER;
    A->dom = m.dom, A->red = m.red, A->cols = m.cols, A->outer = m.outer, A->col = m.col, A->kind = m.kind;
    memcpy(A->axis, m.axis, sizeof A->axis);
    merge(f, q, s);
}

static void add_dependencies(Fuse *f, NodeId id) {
    int s = root(f, f->set[id]);
    for (uint32_t i = f->from[id]; i < f->from[id + 1]; i++) {
        NodeId p = f->reads.v[i].p;
        if (f->set[p] < 0) continue;
        depend(f, s, root(f, f->set[p]));
        f->sets.v[s].reads += !f->reads.v[i].order;
    }
}

/* The set a node starts as. */
static void new_set(Fuse *f, NodeId id) {
    const Graph *g = f->g;
    unsigned op = snG_node(g, id)->op;
    OpClass cls = snG_op(g->ctx, op)->cls;
    Set s = { .kind = G_ROWS, .up = -1, .n = 1 };
    s.first = s.last = s.lo = s.hi = id;
    s.dom = f->dom[id];
    f->place[id] = FULL;
    if (cls == C_CONTRACT) s.kind = G_GEMM;
    else if (snP_attention_kind(g, id)) s.kind = G_ATTENTION, s.dom = snP_dom(snG_type(g, id));
    else if (op == OP_concat || op == OP_pad) s.kind = G_CONCAT;
    else if (op == OP_scatter_add) s.kind = G_SCATTER, s.solo = true;
    else if (cls == C_SCAN || op == OP_part) s.solo = true;
    else if (cls == C_REDUCE) {
        const Type *x = snG_type(g, snG_in(g, id, 0));
        int axis = snP_summed_axis(g, id);
        int64_t before = 1, after = 1;
        for (int i = 0; i < x->rank; i++) *(i < axis ? &before : &after) *= i == axis ? 1 : x->dim[i];
        if (after == 1) s.red = true, s.cols = x->dim[axis], f->place[id] = STAT;
        else if (op == OP_sum) s.col = true, s.axis[0] = before, s.axis[1] = x->dim[axis], s.axis[2] = after, f->place[id] = COL;
        else s.solo = true;
        if (s.red && !ends_with(&s.dom, s.cols)) s.solo = true;
    }
    f->set[id] = (int)f->sets.n;
    PUSH(&f->a, f->sets, s);
}

/* Does the group of operand p feed nothing but the concat or pad `id`? */
static bool feeds_only(Fuse *f, NodeId p, NodeId id) {
    if (f->set[p] < 0 || snP_is_view(f->g, p)) return false;
    int q = root(f, f->set[p]);
    const Set *A = &f->sets.v[q];
    if (q == f->set[id] || A->kind != G_ROWS || A->red || A->col || A->solo) return false;
    for (NodeId k = A->first; k; k = f->next[k]) {
        for (uint32_t u = f->uses[k]; u < f->uses[k + 1]; u++) {
            NodeId v = f->user[u];
            if (!v || (v != id && (f->set[v] < 0 || root(f, f->set[v]) != q))) return false;
        }
    }
    return true;
}

/* A concat or pad takes in the groups that feed nothing but it: their stores go straight to its parts. */
static void absorb_parts(Fuse *f, NodeId id) {
    const Graph *g = f->g;
    for (unsigned i = 0; i < snG_node(g, id)->nin; i++) {
        NodeId p = snG_in(g, id, i);
        if (feeds_only(f, p, id) && acyclic(f, f->set[id], root(f, f->set[p]))) merge(f, f->set[id], root(f, f->set[p]));
    }
}

/* A row of parts is placement, unless one kernel can compute all of them. */
static bool place_row(Fuse *f, NodeId id) {
    bool one_kernel = !(f->without & FUSE_parts);
    for (unsigned i = 0; i < snG_node(f->g, id)->nin && one_kernel; i++)
        one_kernel = feeds_only(f, snP_behind(f->g, snG_in(f->g, id, i), f->memory), id);
    if (one_kernel) f->rows.kind[id] = 0;
    return snP_place_row(f->g, &f->rows, id, f->memory, f->layout);
}

/* A stored view of a value that one group computes in full is one more output of that group, stored at another place. */
static void absorb_view(Fuse *f, NodeId id) {
    const Graph *g = f->g;
    NodeId x = id, chain[64];
    int n = 0;
    for (; snP_is_view(g, x); x = snG_in(g, x, 0)) {
        unsigned op = snG_node(g, x)->op;
        if ((op != OP_reshape && op != OP_permute) || n == 64 || (n && f->stored[x])) return;
        chain[n++] = x;
    }
    if (f->set[x] < 0 || f->place[x] != FULL) return;
    int s = f->set[id], q = root(f, f->set[x]);
    Set *A = &f->sets.v[q];
    if (A->solo || A->col || A->n >= MOST_NODES) return;
    Lin at[MAX_RANK], to[MAX_RANK];
    Dom dom = A->kind == G_CONCAT || A->kind == G_ATTENTION ? snP_dom(snG_type(g, x)) : A->dom;
    if (!snP_coords(&dom, snP_whole(&dom), snG_type(g, x), at)) return;
    for (int i = n - 1; i >= 0; i--) {
        if (!snP_onto(g, chain[i], &dom, at, to)) return;
        memcpy(at, to, sizeof at);
    }
    if (!acyclic(f, s, q)) return;
    f->place[id] = FULL;
    merge(f, q, s);
}

/* A sum of products is added up by the last of them, which then reads what the others have stored. */
static void merge_last_product(Fuse *f, Edge *e) {
    const Read *last = NULL;
    int products = 0;
    for (uint32_t i = f->from[e->n]; i < f->from[e->n + 1]; i++) {
        const Read *r = &f->reads.v[i];
        if (!r->e || r->order || f->set[r->p] < 0 || f->sets.v[root(f, f->set[r->p])].kind != G_GEMM) continue;
        products++;
        if (!last || r->p > last->p) last = r;
    }
    if (products > 1) try_merge(f, last->p, &f->dom[e->n], &f->forms.v[last->e - 1], e);
}

/* Attention and its row statistics, or its three gradients: ops over the same operands are one kernel. */
static void join_attention(Fuse *f, NodeId id) {
    Attention a = snP_attention(f->g, id);
    PUSH(&f->a, f->attention, id);
    for (uint32_t i = 0; i + 1 < f->attention.n; i++) {
        NodeId x = f->attention.v[i];
        Attention b = snP_attention(f->g, x);
        int s = root(f, f->set[id]), q = root(f, f->set[x]);
        if (!snP_attention_alike(&a, &b) || !acyclic(f, s, q)) continue;
        merge(f, q, s);
        return;
    }
}

static void group_all(Fuse *f) {
    for (NodeId id = 1; id < f->g->nodes.n; id++) {
        if (snG_is_leaf(f->g, id) || is_virtual(f, id)) continue;
        new_set(f, id);
        Edge e = { id, f->set[id] };
        add_dependencies(f, id);
        if (place_row(f, id)) {
            f->sets.v[f->set[id]].kind = G_PLACE, f->sets.v[f->set[id]].solo = true;
            continue;
        }
        bool view = snP_is_view(f->g, id);
        if (view || f->sets.v[f->set[id]].kind == G_CONCAT) {
            if (f->without & FUSE_parts) continue;
            if (view) absorb_view(f, id);
            else absorb_parts(f, id);
        } else if (snP_attention_kind(f->g, id)) {
            join_attention(f, id);
        } else {
            for_reads(f, id, note_apart, &e);
            merge_last_product(f, &e);
            for_reads(f, id, try_merge, &e);
        }
    }
}

/* -- Recomputing --------------------------------------------------------------------------------------------- */

static void mark_output(Fuse *f, NodeId p, const Dom *dom, const Lin *e, void *user) {
    (void)dom, (void)e;
    Edge *edge = user;
    if (f->set[p] >= 0 && root(f, f->set[p]) != root(f, edge->set)) f->place[p] |= 64;
}

/* A value in the making: the light nodes that would be computed again, the large tensors they read, at most `most` of them, and
   vector instructions an element. */
typedef struct Light { NodeId node[16], large[2]; int n, nlarge, most, work; int64_t full; } Light;

static bool is_collected(const Light *l, NodeId x) {
    for (int i = 0; i < l->n; i++) if (l->node[i] == x) return true;
    return false;
}

static bool is_large(const Light *l, NodeId x) {
    for (int i = 0; i < l->nlarge; i++) if (l->large[i] == x) return true;
    return false;
}

/* Collects what computing x again takes; false when that is not light, or reads too many tensors of full size, tables of single
   elements aside. */
static bool collect_light(Fuse *f, NodeId x, Light *l, int depth) {
    static const uint16_t light[] = { OP_add, OP_sub, OP_mul, OP_neg, OP_select, OP_cast, OP_not, OP_lt, OP_le, OP_gt, OP_ge, OP_eq, OP_ne, OP_max, OP_min, OP_sigmoid };
    const Graph *g = f->g;
    while (!f->again[x] && is_virtual(f, x) && snP_is_view(g, x)) x = snG_in(g, x, 0);
    if ((f->cheap[x] && !f->stored[x]) || is_collected(l, x)) return true;       /* once, however many read it */
    bool memory = snG_is_leaf(g, x) || (depth && f->set[x] >= 0 && f->place[x] & 64);
    if (memory) {
        if (snG_count(snG_type(g, x)) < l->full || is_large(l, x)) return true;
        if (l->nlarge == l->most || snG_node(g, x)->op == OP_random) return false;
        l->large[l->nlarge++] = x;
        return true;
    }
    bool gather = snG_node(g, x)->op == OP_gather && snG_type(g, snG_in(g, x, 0))->rank == 1, ok = gather;
    for (size_t i = 0; i < sizeof light / sizeof *light; i++) ok |= snG_node(g, x)->op == light[i];
    if (!ok || depth > 4 || l->n == 16 || f->stored[x]) return false;
    if (!f->again[x]) l->node[l->n++] = x;
    l->work += transcendental(snG_node(g, x)->op) ? 20 : 1;
    for (unsigned i = gather; i < snG_node(g, x)->nin; i++) if (!collect_light(f, snG_in(g, x, i), l, depth + 1)) return false;
    return true;
}

/* A product packs its operand once for every 1024 or so columns (rows) of its result (MOST of codegen/sched.c), and so often
   evaluates it: that may take an eighth of the time of its FMAs, both in vector instructions an element of the operand. */
static bool product_can(Fuse *f, NodeId product, NodeId operand, int work) {
    const Type *t = snG_type(f->g, product);
    if (f->without & FUSE_prologue || snG_node(f->g, product)->op != OP_matmul) return false;
    for (unsigned o = 0; o < 2; o++) {
        int64_t across = t->dim[t->rank - 1 - (int)o];
        if (snG_in(f->g, product, o) == operand && 16 * work * ((across + 1023) / 1024) > across) return false;
    }
    return true;
}

static void mark_read(Fuse *f, NodeId p, const Dom *dom, const Lin *e, void *user) {
    (void)dom, (void)e;
    f->read_by[p] = *(uint32_t *)user;
}

/* Does the kernel of set s read all these tensors, or compute them? */
static bool reads_all(Fuse *f, int s, const Light *l) {
    NodeId bad;
    uint32_t mark = ++f->search;
    for (NodeId i = f->sets.v[s].first; i; i = f->next[i])
        if (f->set[i] >= 0) f->read_by[i] = mark, walk_operands(f, i, mark_read, &mark, &bad, NULL);
    for (int i = 0; i < l->nlarge; i++) if (f->read_by[l->large[i]] != mark) return false;
    return true;
}

/* Every reader, through virtual nodes, computes elements or rows, or is a product for which it is worth it: no table, no copy.
   What takes two tensors to compute is computed only where both are read anyway. */
static bool readers_can(Fuse *f, NodeId o, NodeId id, const Light *l, int depth) {
    const Graph *g = f->g;
    NodeId bad;
    for (uint32_t u = f->uses[id]; u < f->uses[id + 1]; u++) {
        NodeId v = f->user[u];
        if (!v || depth > 8) return false;
        if (is_virtual(f, v)) { if (!readers_can(f, o, v, l, depth + 1)) return false; continue; }
        OpClass cls = snG_op(g->ctx, snG_node(g, v)->op)->cls;
        if (cls == C_CONTRACT) {
            int s = root(f, f->set[v]);
            if (!product_can(f, v, id, l->work) || !walk_operands(f, v, NULL, NULL, &bad, NULL) || !cuts_agree(f, s, s)) return false;
            continue;
        }
        if (l->nlarge > 1 && !reads_all(f, root(f, f->set[v]), l)) return false;
        if ((cls != C_EWISE && cls != C_REDUCE) || snP_is_view(g, v)) return false;
        if (!walk_operands(f, v, NULL, NULL, &bad, NULL)) return false;
        const Set *s = &f->sets.v[root(f, f->set[v])];
        if (s->kind == G_GEMM && root(f, f->set[v]) != root(f, f->set[o]) && !even(f, &s->dom, v)) return false;
    }
    return true;
}

/* A stored value that is one light step from another stored value is computed again by its readers: they read the other one. */
static void read_again(Fuse *f, NodeId id) {
    Light l = { .full = snG_count(snG_type(f->g, id)), .most = f->without & FUSE_prologue ? 1 : 2 };
    if (f->set[id] < 0 || f->place[id] != (64 | FULL) || !collect_light(f, id, &l, 0)) return;
    for (int i = 0; i < l.n; i++) f->again[l.node[i]] = 1;
    bool can = readers_can(f, id, id, &l, 0);
    for (int i = 0; i < l.n; i++) {
        NodeId x = l.node[i];
        if (!can) { f->again[x] = 0; continue; }
        SN_ASSERT(f->set[x] >= 0, "%s leaves its group twice", snG_node_name(f->g, x));
        f->sets.v[root(f, f->set[x])].n--;
        f->set[x] = -1;
    }
}

/* Is x light work on w, and on at most one other large tensor? */
static bool light_from(Fuse *f, NodeId x, NodeId w, Light *l) {
    *l = (Light){ .full = snG_count(snG_type(f->g, x)), .most = 2 };
    return collect_light(f, x, l, 0) && is_large(l, w);
}

/* Of a product's program two results are light work on a third value, one of them on that alone: then that is stored in its place, and
   the other may be computed again as well. The gradient of a norm's output instead of it times the gain and times the input. */
static void store_source(Fuse *f, NodeId id) {
    const Set *s = &f->sets.v[root(f, f->set[id])];
    Light l, other;
    for (unsigned i = 0; i < snG_node(f->g, id)->nin; i++) {
        NodeId w = snG_in(f->g, id, i);
        while (is_virtual(f, w) && snP_is_view(f->g, w)) w = snG_in(f->g, w, 0);
        if (f->set[w] < 0 || &f->sets.v[root(f, f->set[w])] != s || f->place[w] != FULL) continue;
        bool two = false;
        f->place[w] |= 64;
        if (light_from(f, id, w, &l) && l.nlarge == 1)
            for (NodeId o = s->first; o && !two; o = f->next[o])
                two = o != id && f->set[o] >= 0 && f->place[o] == (64 | FULL) && light_from(f, o, w, &other);
        if (two) read_again(f, id);
        if (f->set[id] < 0) return;
        f->place[w] &= ~64;
    }
}

/* Sums of columns that no producer could take in, because it is a product or memory, join a kernel that goes over whole rows of what
   they add up anyway: a bias' gradient that of the norm before it. */
static bool join_rows(Fuse *f, NodeId id, int q) {
    int s = root(f, f->set[id]);
    Set *R = &f->sets.v[q], *S = &f->sets.v[s], m;
    Light l = { .full = snP_points(&S->dom), .most = 2 };
    if (s == q || R->up >= 0 || R->kind != G_ROWS || !R->red || R->solo || R->n + S->n > MOST_NODES || R->reads + S->reads > MOST_INPUTS) return false;
    if (R->lo > S->hi + FAR || S->lo > R->hi + FAR || snP_points(&R->dom) != l.full || !combine(R, S, SAME, &m)) return false;
    if (!collect_light(f, snG_in(f->g, id, 0), &l, 0) || !reads_all(f, q, &l)) return false;
    if (kept_apart(f, R, s) || kept_apart(f, S, q) || !acyclic(f, s, q)) return false;
    R->dom = m.dom, R->col = true;
    memcpy(R->axis, S->axis, sizeof R->axis);
    merge(f, q, s);
    return true;
}

static void join_columns(Fuse *f) {
    for (NodeId id = 1; id < f->g->nodes.n; id++) {
        if (f->set[id] < 0 || snG_node(f->g, id)->op != OP_sum) continue;
        int s = root(f, f->set[id]), near = 64;               /* sets are numbered as nodes are */
        if (f->sets.v[s].kind != G_ROWS || !f->sets.v[s].col || f->sets.v[s].red) continue;
        bool joined = false;
        for (int d = 1; d <= near && !joined; d++) {
            if (f->set[id] - d >= 0) joined = join_rows(f, id, f->set[id] - d);
            if (!joined && f->set[id] + d < (int)f->sets.n) joined = join_rows(f, id, f->set[id] + d);
        }
    }
}

static void read_all_again(Fuse *f) {
    for (NodeId id = 1; id < f->g->nodes.n; id++) if (snG_node(f->g, id)->op != OP_gather) read_again(f, id);
}

static void compute_again(Fuse *f) {
    const Graph *g = f->g;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        if (f->set[id] < 0) continue;
        Edge e = { id, f->set[id] };
        for_reads(f, id, mark_output, &e);
    }
    for (uint32_t i = 0; i < g->outputs.n; i++) f->place[g->outputs.v[i].node] |= 192;
    for (uint32_t i = 0; i < g->updates.n; i++) f->place[update_base(g, g->updates.v[i].value)] |= 192;
    read_all_again(f);
    for (NodeId id = 1; id < g->nodes.n; id++)
        if (f->set[id] >= 0 && f->place[id] == (64 | FULL) && f->sets.v[root(f, f->set[id])].kind == G_GEMM) store_source(f, id);
    if (!(f->without & FUSE_columns)) join_columns(f);
    read_all_again(f);                                         /* what that made possible */
    for (NodeId id = 1; id < g->nodes.n; id++) if (snG_node(g, id)->op == OP_gather) read_again(f, id);   /* no product reads it any more */
}

/* -- Order and result ---------------------------------------------------------------------------------------- */

/* Ids for sets in an order where each comes after those it depends on: depth first, earliest first node first. */
static void number_from(Fuse *f, int s, int *id, int *next) {
    f->stack.n = 0;
    PUSH(&f->a, f->stack, s);
    while (f->stack.n) {
        int k = f->stack.v[f->stack.n - 1];
        Set *x = &f->sets.v[k];
        if (id[k]) { f->stack.n--; continue; }
        if (x->seen == f->search) {                            /* all it needs has a number */
            id[k] = x->n ? ++*next : -1;
            f->stack.n--;
            continue;
        }
        x->seen = f->search;
        for (uint32_t i = x->deps.n; i-- > 0;) {
            int d = root(f, x->deps.v[i]);
            if (d == k || id[d]) continue;
            SN_ASSERT(f->sets.v[d].seen != f->search, "fusion made a cycle");
            PUSH(&f->a, f->stack, d);
        }
    }
}

static void number(Fuse *f, Graph *out) {
    int *id = NEWN(&f->a, int, f->sets.n + 1), next = 0;
    f->search++;
    for (NodeId i = 1; i < out->nodes.n; i++) if (f->set[i] >= 0) number_from(f, root(f, f->set[i]), id, &next);
    for (NodeId i = 1; i < out->nodes.n; i++) {
        out->nodes.v[i].group = f->set[i] >= 0 ? (uint32_t)id[root(f, f->set[i])] : 0;
        out->nodes.v[i].flags = f->rows.kind[i] ? N_PLACED : 0;
    }
}

/* Renumbers the groups in the order in which they are to run. */
static Groups put_in_order(Graph *g, Arena *a) {
    Groups was = snP_groups(g, a), now = { 0 };
    uint32_t *when = NEWN(a, uint32_t, was.group.n + 1);
    snP_order(g, &was, a, when);
    now.group.v = NEWN(a, Group, was.group.n + 1);
    now.group.n = now.group.cap = was.group.n;
    for (uint32_t i = 0; i < was.group.n; i++) {
        Group *grp = &now.group.v[when[i]];
        *grp = was.group.v[i];
        for (uint32_t k = 0; k < grp->after.n; k++) grp->after.v[k] = when[grp->after.v[k]];
    }
    for (NodeId i = 1; i < g->nodes.n; i++)
        if (g->nodes.v[i].group) g->nodes.v[i].group = 1 + when[g->nodes.v[i].group - 1];
    return now;
}

static void count_users(Fuse *f) {
    const Graph *g = f->g;
    f->uses = NEWN(&f->a, uint32_t, g->nodes.n + 2);
    for (int pass = 0; pass < 2; pass++) {
        uint32_t *at = NEWN(&f->a, uint32_t, g->nodes.n + 2);
        if (pass) {
            for (NodeId i = 1; i <= g->nodes.n; i++) f->uses[i] += f->uses[i - 1];
            f->user = NEWN(&f->a, uint32_t, f->uses[g->nodes.n] + 1);
        }
#define USE(p, by) (pass ? (void)(f->user[f->uses[p] + at[p]++] = (by)) : (void)f->uses[(p) + 1]++)
        for (NodeId i = 1; i < g->nodes.n; i++)
            for (unsigned k = 0; k < (snG_node(g, i)->op == OP_fence ? 1 : snG_node(g, i)->nin); k++) USE(snG_in(g, i, k), i);
        for (uint32_t i = 0; i < g->outputs.n; i++) USE(g->outputs.v[i].node, 0u);
        for (uint32_t i = 0; i < g->updates.n; i++) USE(update_base(g, g->updates.v[i].value), 0u);
#undef USE
    }
}

/* -- The pass ------------------------------------------------------------------------------------------------ */

/* What outputs and updates need in memory, and the parts of rows. */
static void mark_stored(Fuse *f) {
    const Graph *g = f->g;
    for (uint32_t i = 0; i < g->outputs.n; i++) if (!snG_is_leaf(g, g->outputs.v[i].node)) f->stored[g->outputs.v[i].node] = 1;
    for (uint32_t i = 0; i < g->updates.n; i++) {
        NodeId v = update_base(g, g->updates.v[i].value);
        if (!snG_is_leaf(g, v)) f->stored[v] = 1;
    }
    for (NodeId id = 1; id < g->nodes.n; id++) {
        if (f->rows.kind[id] != ROW_VALUES) continue;
        for (unsigned i = 0; i < snG_node(g, id)->nin; i++) {
            NodeId x = snP_behind(g, snG_in(g, id, i), NULL);
            if (!snG_is_leaf(g, x)) f->stored[x] = 1;
        }
    }
}

Graph *snP_fuse(const Graph *old, const FuseOptions *o) {
    Graph *g = snP_normalise(old);
    Fuse f = { .g = g, .a.pool = &g->ctx->blocks, .without = o ? o->without : 0 };
    uint32_t n = g->nodes.n + 1;
    f.stored = NEWN(&f.a, uint8_t, n), f.place = NEWN(&f.a, uint8_t, n), f.cheap = NEWN(&f.a, uint8_t, n), f.again = NEWN(&f.a, uint8_t, n);
    f.set = NEWN(&f.a, int, n), f.next = NEWN(&f.a, NodeId, n), f.read_by = NEWN(&f.a, uint32_t, n);
    for (uint32_t i = 0; i < n; i++) f.set[i] = -1;
    find_cheap(&f);
    f.rows = snP_rows(g, &f.a);
    f.layout = o && o->layout ? o->layout : snP_layout(&f.a);
    mark_stored(&f);
    find_pairwise(&f);
    find_stored(&f);
    f.memory = NEWN(&f.a, uint8_t, n);
    for (NodeId id = 1; id < g->nodes.n; id++) f.memory[id] = snG_is_leaf(g, id) || !is_virtual(&f, id);
    f.dom = NEWN(&f.a, Dom, n), f.from = NEWN(&f.a, uint32_t, n + 1);
    record_reads(&f);
    count_users(&f);
    group_all(&f);
    if (!(f.without & FUSE_again)) compute_again(&f);
    number(&f, g);
    Groups groups = put_in_order(g, o && o->groups ? o->arena : &f.a);
    if (o && o->groups) *o->groups = groups;
    snU_free_arena(&f.a);
    return g;
}

/* -- Reading the groups back -------------------------------------------------------------------------------- */

typedef struct Gather { Groups *all; Group *group; Arena *a; NodeId node; bool plain; VEC(Read) reads; } Gather;

static void add_once(Arena *a, Group *g, int list, NodeId id) {
    NodeId *v = list ? g->inputs.v : g->outputs.v;
    uint32_t n = list ? g->inputs.n : g->outputs.n;
    for (uint32_t i = 0; i < n; i++) if (v[i] == id) return;
    if (list) PUSH(a, g->inputs, id); else PUSH(a, g->outputs, id);
}

/* Adds the elements of p that are read at form e over dom, or at rows that an index picks, to what the group touches of p. */
static void touch(Fuse *f, Gather *w, NodeId p, const Dom *dom, const Lin *e) {
    const Graph *g = f->g;
    int64_t all = snG_count(snG_type(g, p)), n = e ? 1 : snG_count(snG_type(g, w->node));
    for (uint32_t i = 0; i < w->reads.n; i++) {
        Read r = w->reads.v[i];
        if (r.p == p && !r.e == !e && (!e || snP_same_lin(&f->forms.v[r.e - 1], e))) return;
    }
    if (e) PUSH(&f->a, f->forms, *e);
    PUSH(&f->a, w->reads, ((Read){ .p = p, .e = e ? f->forms.n : 0 }));
    for (int i = 0; e && i < dom->n; i++) if (e->k[i]) n *= dom->ext[i];
    uint32_t at = 0;
    while (w->group->inputs.v[at] != p) at++;
    while (w->group->touched.n <= at) PUSH(w->a, w->group->touched, 0);
    n += w->group->touched.v[at];
    w->group->touched.v[at] = n < all ? n : all;
}

static void input_edge(Fuse *f, NodeId p, const Dom *dom, const Lin *e, void *user) {
    Gather *w = user;
    uint32_t pg = snG_node(f->g, p)->group;
    if (pg == snG_node(f->g, w->node)->group) return;
    add_once(w->a, w->group, 1, p);
    touch(f, w, p, dom, e);
    if (pg) add_once(w->a, &w->all->group.v[pg - 1], 0, p);
    Lin id = snP_whole(dom);
    bool same = w->plain && e && snG_count(snG_type(f->g, p)) == snP_points(dom) && snP_same_lin(e, &id);
    f->place[p] |= same ? 1 : 2;                                /* 1: read in place; 2: read elsewhere */
}

static void group_after(Fuse *f, NodeId p, void *user) {
    Gather *w = user;
    uint32_t pg = snG_node(f->g, p)->group;
    if (pg && pg != snG_node(f->g, w->node)->group) PUSH(w->a, w->group->after, pg - 1);
}

/* A placed concat: its parts and where they start. */
static void add_parts(const Graph *g, Group *grp, const uint8_t *memory, Arena *a) {
    const Node *n = snG_node(g, grp->anchor);
    int64_t at = 0;
    grp->kind = G_PLACE;
    for (unsigned i = 0; i < n->nin; i++) {
        const Type *t = snG_type(g, snG_in(g, grp->anchor, i));
        GroupPart part = { snP_behind(g, snG_in(g, grp->anchor, i), memory), at };
        PUSH(a, grp->parts, part);
        at += snG_count(t) * snG_dtype_size(t->dtype);
    }
}

/* Does the node read its operands at the elements that its program has to itself? */
static bool own_elements(const Graph *g, NodeId id) {
    OpClass c = snG_op(g->ctx, snG_node(g, id)->op)->cls;
    return c == C_EWISE || c == C_GEN || c == C_REDUCE;
}

/* What the group reads at one element only it has read before it writes that element: elementwise work, reductions of rows and
   columns that a program has to itself, and what follows a product. Not where rows are reduced that are row values of others: every
   program reads all of them. */
static bool is_plain(const Graph *g, const Group *grp) {
    int64_t most = 0, least = INT64_MAX;
    for (uint32_t i = 0; i < grp->nodes.n; i++) {
        OpClass cls = snG_op(g->ctx, snG_node(g, grp->nodes.v[i])->op)->cls;
        if (!own_elements(g, grp->nodes.v[i]) && cls != C_CONTRACT) return false;
        Dom dom = snP_node_dom(g, grp->nodes.v[i]);
        int64_t n = snP_points(&dom);
        most = n > most ? n : most;
        if (cls == C_REDUCE && n < least) least = n;
    }
    return least >= most || least == INT64_MAX;
}

Groups snP_groups(const Graph *g, Arena *a) {
    Fuse f = { .g = g, .a.pool = &g->ctx->blocks };
    Groups all = { 0 };
    uint32_t n = g->nodes.n + 1, count = 0;
    f.stored = NEWN(&f.a, uint8_t, n), f.place = NEWN(&f.a, uint8_t, n), f.cheap = NEWN(&f.a, uint8_t, n), f.again = NEWN(&f.a, uint8_t, n);
    f.memory = NEWN(&f.a, uint8_t, n);
    find_cheap(&f);
    for (NodeId id = 1; id < g->nodes.n; id++) {
        uint32_t grp = snG_node(g, id)->group;
        f.stored[id] = grp != 0;
        f.memory[id] = grp || snG_is_leaf(g, id);
        f.again[id] = !grp && !snG_is_leaf(g, id) && !f.cheap[id] && !snP_is_view(g, id);
        if (grp > count) count = grp;
    }
    for (uint32_t i = 0; i < count; i++) PUSH(a, all.group, (Group){ 0 });
    for (NodeId id = 1; id < g->nodes.n; id++) {
        if (!snG_node(g, id)->group) continue;
        Group *grp = &all.group.v[snG_node(g, id)->group - 1];
        unsigned op = snG_node(g, id)->op;
        GroupKind k = snG_op(g->ctx, op)->cls == C_CONTRACT ? G_GEMM : op == OP_concat || op == OP_pad ? G_CONCAT : op == OP_scatter_add ? G_SCATTER : G_ROWS;
        if (snP_attention_kind(g, id) && (k = G_ATTENTION, grp->kind == G_ATTENTION)) k = G_ROWS;
        if (k != G_ROWS || !grp->anchor) grp->anchor = k != G_ROWS || !grp->nodes.n ? id : grp->anchor;
        if (k != G_ROWS) grp->kind = k;
        PUSH(a, grp->nodes, id);
    }
    for (uint32_t i = 0; i < count; i++) {
        Group *grp = &all.group.v[i];
        bool plain = is_plain(g, grp);
        Gather w = { .all = &all, .group = grp, .a = a };
        for (uint32_t k = 0; k < grp->nodes.n; k++) {
            NodeId bad;
            w.node = grp->nodes.v[k];
            w.plain = plain && own_elements(g, w.node);
            walk_operands(&f, w.node, input_edge, &w, &bad, NULL);
        }
        if (snG_node(g, grp->anchor)->flags & N_PLACED) add_parts(g, grp, f.memory, a);
        for (uint32_t k = 0; k < grp->inputs.n; k++) {
            NodeId p = grp->inputs.v[k];
            if (f.place[p] == 1) PUSH(a, grp->same, p);
            f.place[p] = 0;
        }
    }
    for (uint32_t i = 0; i < g->outputs.n + g->updates.n; i++) {
        NodeId v = i < g->outputs.n ? g->outputs.v[i].node : update_base(g, g->updates.v[i - g->outputs.n].value);
        if (snG_node(g, v)->group) add_once(a, &all.group.v[snG_node(g, v)->group - 1], 0, v);
    }
    snU_free_arena(&f.a);
    return all;
}

Graph *snP_fuse_pass(const Graph *g, const PassOptions *opt) {
    return snP_fuse(g, &(FuseOptions){ .without = snP_without(g->ctx, opt->fuse) });
}
