/* place.c: values that lie inside others: parts of a concat, slices of an update.

   In:  a graph before fusion. Out: which of its concats are PLACEMENT: no kernel, a name for parts that are computed, one after
   the other, where the concat lies; which operands need a copy for that; and the layout of storage, shared by all graphs of a
   file, in which weights and states that some graph concatenates follow each other.

   A concat whose outer axes are 1 is its parts in a row. A value lies in one row at most and not in storage, so constants, inputs,
   values that are updates, and second uses get a copy (a node of its own); where copies would be most of it, the kernel stays.

     dw: f32[64, 32] = matmul(x, dy, ta=1)             @offset 4096    computed into g
     r:  f32[2048]   = reshape(dw, [2048])
     g:  f32[2080]   = concat(r, dgain, axis=0)        @offset 4096    no kernel
     m:  f32[2080]   = concat(m.w, m.gain, axis=0)                     storage of m.w and m.gain, made neighbours */
#include "passes/fuse.h"
#include "passes/pass.h"

static bool is_storage(const Graph *g, NodeId id) {
    unsigned op = snG_node(g, id)->op;
    return op == OP_weight || op == OP_state;
}

static int64_t bytes_of(const Graph *g, NodeId id) {
    const Type *t = snG_type(g, id);
    return snG_count(t) * snG_dtype_size(t->dtype);
}

/* -- Through views -------------------------------------------------------------------------------------------- */

NodeId snP_behind(const Graph *g, NodeId id, const uint8_t *memory) {
    while (snG_node(g, id)->op == OP_reshape && !(memory && memory[id])) id = snG_in(g, id, 0);
    return id;
}

/* Elements of one row: no outer axis has more than one index. */
static bool outermost(const Type *t, int64_t axis) {
    if (axis < 0) axis += t->rank;
    for (int i = 0; i < axis; i++)
        if (t->dim[i] != 1) return false;
    return true;
}

NodeId snP_update_base(const Graph *g, NodeId value, int64_t *at) {
    NodeId id = value;
    *at = 0;
    for (;;) {
        unsigned op = snG_node(g, id)->op;
        if (op == OP_slice && outermost(snG_type(g, id), snG_attr_int(g, id, 0))) {
            const Type *t = snG_type(g, id);
            int64_t axis = snG_attr_int(g, id, 0), step = snG_attr_int(g, id, 1);
            for (int i = (int)(axis < 0 ? axis + t->rank : axis) + 1; i < t->rank; i++) step *= t->dim[i];
            *at += step * snG_dtype_size(t->dtype);
        } else if (op != OP_reshape) break;
        id = snG_in(g, id, 0);
    }
    bool computed = snG_op(g->ctx, snG_node(g, id)->op)->cls != C_LEAF && snG_node(g, id)->op != OP_const;
    if (!computed) *at = 0;
    return computed ? id : value;
}

/* -- Candidates --------------------------------------------------------------------------------------------------- */

static bool is_row(const Graph *g, NodeId id) {
    return snG_node(g, id)->op == OP_concat && outermost(snG_type(g, id), snG_attr_int(g, id, 0));
}

/* Marks the operands of row id that need a copy and takes the others; false, and nothing, when copies, or views that are copies
   once they are stored, would be most of it. */
static bool mark_copies(const Graph *g, NodeId id, uint8_t *taken, uint8_t *copy) {
    const Node *n = snG_node(g, id);
    int64_t copied = 0;
    for (unsigned i = 0; i < n->nin; i++) {
        NodeId x = snP_behind(g, snG_in(g, id, i), NULL);
        unsigned op = snG_node(g, x)->op;
        copy[n->in + i] = taken[x] || op == OP_const || snG_op(g->ctx, op)->cls == C_LEAF;
        if (copy[n->in + i] || op == OP_slice || op == OP_expand) copied += bytes_of(g, x);
        if (!copy[n->in + i]) taken[x] = 2;
    }
    bool row = 2 * copied <= bytes_of(g, id);
    for (unsigned i = 0; i < n->nin; i++) {
        NodeId x = snP_behind(g, snG_in(g, id, i), NULL);
        if (taken[x] == 2) taken[x] = row;
        if (!row) copy[n->in + i] = 0;
    }
    return row;
}

Rows snP_rows(const Graph *g, Arena *a) {
    Rows r = { NEWN(a, uint8_t, g->nodes.n), NEWN(a, uint8_t, g->nodes.n), NEWN(a, uint8_t, g->operands.n) };
    uint8_t *taken = NEWN(a, uint8_t, g->nodes.n);
    int64_t at;
    for (uint32_t i = 0; i < g->updates.n; i++) taken[snP_update_base(g, g->updates.v[i].value, &at)] = 1;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        if (!is_row(g, id) || taken[id]) continue;
        bool storage = true;
        for (unsigned i = 0; i < snG_node(g, id)->nin; i++) {
            NodeId x = snP_behind(g, snG_in(g, id, i), NULL);
            storage = storage && !taken[x] && (is_storage(g, x) || r.kind[x] == ROW_STORAGE);
        }
        if (storage) r.kind[id] = ROW_STORAGE;
        else if (mark_copies(g, id, taken, r.copy)) r.kind[id] = ROW_VALUES;
        for (unsigned i = 0; storage && i < snG_node(g, id)->nin; i++) taken[snP_behind(g, snG_in(g, id, i), NULL)] = 1;
    }
    return r;
}

/* -- Layout of storage ----------------------------------------------------------------------------------------------- */

typedef struct Spot { Sym name, first; int64_t at, bytes; } Spot;     /* at bytes behind `first` */
struct Layout { Arena *a; HashMap of; VEC(Spot) spot; };              /* of: name -> 1 + spot; the spots of one run in order */

Layout *snP_layout(Arena *a) {
    Layout *l = NEW(a, Layout);
    l->a = a;
    return l;
}

static Spot *find_spot(const Layout *l, Sym name) {
    uint32_t i = l ? snU_find(&l->of, (uint64_t)name) : 0;
    return i ? &l->spot.v[i - 1] : NULL;
}

Sym snP_layout_find(const Layout *l, Sym name, int64_t *at) {
    const Spot *s = find_spot(l, name);
    *at = s ? s->at : 0;
    return s ? s->first : name;
}

/* Leaves of a row of storage, nested ones too, in order. */
typedef struct LeafList { VEC(NodeId) id; } LeafList;

static void collect_leaves(const Graph *g, NodeId id, Arena *a, LeafList *out) {
    id = snP_behind(g, id, NULL);
    if (is_storage(g, id)) {
        PUSH(a, out->id, id);
        return;
    }
    for (unsigned i = 0; i < snG_node(g, id)->nin; i++) collect_leaves(g, snG_in(g, id, i), a, out);
}

static int64_t run_bytes(const Layout *l, Sym first) {
    int64_t end = 0;
    for (uint32_t i = 0; i < l->spot.n; i++)
        if (l->spot.v[i].first == first && l->spot.v[i].at + l->spot.v[i].bytes > end) end = l->spot.v[i].at + l->spot.v[i].bytes;
    return end;
}

/* Are the leaves neighbours already? If not, can they become so: is each run among them there from its first to its last? */
static bool in_order(const Layout *l, const Graph *g, const LeafList *v, bool *already) {
    const Spot *begin = find_spot(l, snG_node(g, v->id.v[0])->name);
    int64_t next = begin ? begin->at : 0;
    *already = begin != NULL;
    for (uint32_t i = 0; i < v->id.n; i++) {
        const Spot *s = find_spot(l, snG_node(g, v->id.v[i])->name);
        *already = *already && s && s->first == begin->first && s->at == next;
        next += bytes_of(g, v->id.v[i]);
    }
    if (*already) return true;
    for (uint32_t i = 0; i < v->id.n;) {
        const Spot *s = find_spot(l, snG_node(g, v->id.v[i])->name);
        int64_t at = 0, end = s ? run_bytes(l, s->first) : bytes_of(g, v->id.v[i]);
        Sym first = s ? s->first : snG_node(g, v->id.v[i])->name;
        for (; at < end && i < v->id.n; i++) {
            const Spot *t = find_spot(l, snG_node(g, v->id.v[i])->name);
            if ((t ? t->first : snG_node(g, v->id.v[i])->name) != first || (t ? t->at : 0) != at) return false;
            at += bytes_of(g, v->id.v[i]);
        }
        if (at != end) return false;
    }
    return true;
}

/* Makes the leaves of row id neighbours; false when another row wants them otherwise. */
static bool lay_out(Layout *l, const Graph *g, NodeId id) {
    Arena a = {0};
    LeafList v = {0};
    bool already;
    collect_leaves(g, id, &a, &v);
    bool can = in_order(l, g, &v, &already);
    int64_t at = 0;
    for (uint32_t i = 0; can && !already && i < v.id.n; i++) {
        Spot s = { snG_node(g, v.id.v[i])->name, snG_node(g, v.id.v[0])->name, at, bytes_of(g, v.id.v[i]) };
        Spot *old = find_spot(l, s.name);
        at += s.bytes;
        if (old) { *old = s; continue; }
        PUSH(l->a, l->spot, s);
        snU_insert(l->a, &l->of, s.name, l->spot.n);
    }
    snU_free_arena(&a);
    return can;
}

/* -- Decision -------------------------------------------------------------------------------------------------------- */

/* Every part in memory, each the whole value behind it, and none of them in another row. */
static bool parts_fit(const Graph *g, const Rows *rows, NodeId id, const uint8_t *memory) {
    const Node *n = snG_node(g, id);
    for (unsigned i = 0; i < n->nin; i++) {
        NodeId x = snP_behind(g, snG_in(g, id, i), memory);
        bool kept = is_storage(g, x) || rows->kind[x] == ROW_STORAGE;
        if (rows->copy[n->in + i] || !memory[x] || rows->inside[x]) return false;
        if (kept != (rows->kind[id] == ROW_STORAGE)) return false;
    }
    return true;
}

bool snP_place_row(const Graph *g, Rows *rows, NodeId id, const uint8_t *memory, Layout *l) {
    bool fits = rows->kind[id] && parts_fit(g, rows, id, memory) && (rows->kind[id] != ROW_STORAGE || lay_out(l, g, id));
    if (!fits) rows->kind[id] = 0;
    for (unsigned i = 0; fits && i < snG_node(g, id)->nin; i++) rows->inside[snP_behind(g, snG_in(g, id, i), memory)] = 1;
    return fits;
}
