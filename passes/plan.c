/* plan.c: where every value lives.

   In:  a graph with its groups (fuse.h). Out: a Plan: a place per value in memory, the copies that commit updates, the size of
   the arena; node.offset is set so that the plan prints.

   Four steps. Placed concats first (place.c): their parts lie in them, and with those what is added up into the parts. Then updates:
   a computed value is written straight into storage when nobody reads the old value later; one value may be the update of many
   weights that are neighbours. Then lifetimes: a group is a point of time; an output that may replace an input which dies there joins its buffer. Last,
   offsets: several fixed orders of placing buffers are tried, each at the lowest (or tightest) gap among the placed ones it
   meets in time; the smallest arena wins, and where it is more than a little above the largest live set, the buffers on
   top are placed earlier and it tries again. No clock, no random number: equal graphs get equal plans.

     group:    0    1    2    3
     a       [====]                 offset 0
     b            [====]            joins a: group 1 reads a only at the element that it writes
     c       [=========]            offset |a|
     d                 [====]       offset 0 */
#include "passes/fuse.h"
#include "passes/pass.h"

enum { ALIGN = 64, NEVER = -1 };

static int64_t align_up(int64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static int64_t node_bytes(const Graph *g, NodeId id) {
    const Type *t = snG_type(g, id);
    return snG_count(t) * snG_dtype_size(t->dtype);
}

/* Element i of one lies where element i of the other does: two halves of bf16 summed into f32 have the bytes, but not the elements. */
static bool same_shape_of_memory(const Graph *g, NodeId a, NodeId b) {
    return node_bytes(g, a) == node_bytes(g, b) && snG_count(snG_type(g, a)) == snG_count(snG_type(g, b));
}

static bool is_storage(const Graph *g, NodeId id) {
    unsigned op = snG_node(g, id)->op;
    return op == OP_weight || op == OP_state;
}

/* -- Offsets: boxes of known lifetime and size into an arena ------------------------------------------ */

typedef struct Placed { int64_t at, top; int first, last; } Placed;

typedef struct Packer {
    const PlanBox *box;
    int n;
    Arena *a;
    int *order;                          /* to place, in this order */
    Placed *placed;                      /* by rising offset */
    int64_t *offset, *best;
    int64_t best_total;
} Packer;

/* Lowest gap that fits, or the tightest one (ties: the lowest), among the placed boxes that meet this one in time. */
static int64_t find_gap(const Packer *p, int nplaced, const PlanBox *b, bool tightest) {
    int64_t need = align_up(b->bytes), end = 0, at = NEVER, waste = INT64_MAX;
    for (const Placed *o = p->placed; o < p->placed + nplaced; o++) {
        if (o->last < b->first || b->last < o->first) continue;
        int64_t gap = o->at - end;
        if (gap >= need && gap - need < waste) {
            at = end, waste = gap - need;
            if (!tightest) return at;
        }
        if (o->top > end) end = o->top;
    }
    return at == NEVER ? end : at;
}

static void insert_placed(Packer *p, int nplaced, Placed b) {
    int lo = 0, hi = nplaced;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (p->placed[mid].at <= b.at) lo = mid + 1;
        else hi = mid;
    }
    memmove(p->placed + lo + 1, p->placed + lo, sizeof *p->placed * (size_t)(nplaced - lo));
    p->placed[lo] = b;
}

/* Places every box in p->order and keeps the result when it is the best so far. Returns the arena's size. */
static int64_t place_all(Packer *p, bool tightest) {
    int64_t total = 0;
    for (int i = 0; i < p->n; i++) {
        const PlanBox *b = &p->box[p->order[i]];
        int64_t at = find_gap(p, i, b, tightest), top = at + align_up(b->bytes);
        p->offset[p->order[i]] = at;
        insert_placed(p, i, (Placed){ at, top, b->first, b->last });
        if (top > total) total = top;
    }
    if (total < p->best_total) {
        p->best_total = total;
        memcpy(p->best, p->offset, sizeof *p->best * (size_t)p->n);
    }
    return total;
}

/* Orders of placing: a box with the larger key goes first; ties by lifetime, then by index. */
typedef enum { BY_SIZE, BY_AREA, BY_LIFE, BY_TIME, N_ORDERS } OrderKind;
typedef struct OrderKey { double key; int first, index; } OrderKey;

static int compare_keys(const void *x, const void *y) {
    const OrderKey *a = x, *b = y;
    if (a->key != b->key) return a->key > b->key ? -1 : 1;
    if (a->first != b->first) return a->first < b->first ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static double order_key(const PlanBox *b, OrderKind kind) {
    double life = b->last - b->first + 1, size = (double)b->bytes;
    switch (kind) {
    case BY_AREA: return life * size;
    case BY_LIFE: return life;
    case BY_TIME: return -b->first;
    default: return size;
    }
}

static void sort_boxes(Packer *p, OrderKind kind) {
    ArenaMark mark = snU_mark(p->a);
    OrderKey *k = NEWN(p->a, OrderKey, p->n);
    for (int i = 0; i < p->n; i++) k[i] = (OrderKey){ order_key(&p->box[i], kind), p->box[i].first, i };
    qsort(k, (size_t)p->n, sizeof *k, compare_keys);
    for (int i = 0; i < p->n; i++) p->order[i] = k[i].index;
    snU_reset(p->a, mark);
}

/* The boxes on top of the arena go a third of the way to the front of the order, the others keep theirs. */
static void move_top_forward(Packer *p, int64_t total) {
    ArenaMark mark = snU_mark(p->a);
    int *next = NEWN(p->a, int, p->n), *late = NEWN(p->a, int, p->n);
    bool *is_top = NEWN(p->a, bool, p->n);
    int earliest = p->n, n = 0, nlate = 0;
    for (int i = p->n - 1; i >= 0; i--) {
        int b = p->order[i];
        is_top[b] = p->offset[b] + align_up(p->box[b].bytes) == total;
        if (is_top[b]) earliest = i;
    }
    int to = earliest * 2 / 3;
    for (int i = 0; i < p->n; i++) {
        int b = p->order[i];
        if (is_top[b]) continue;
        if (i < to) next[n++] = b;
        else late[nlate++] = b;
    }
    for (int i = 0; i < p->n; i++)
        if (is_top[p->order[i]]) next[n++] = p->order[i];
    for (int i = 0; i < nlate; i++) next[n++] = late[i];
    memcpy(p->order, next, sizeof *next * (size_t)p->n);
    snU_reset(p->a, mark);
}

int64_t snP_live_peak(const PlanBox *box, int n, Arena *a) {
    int last = 0;
    for (int i = 0; i < n; i++)
        if (box[i].last > last) last = box[i].last;
    ArenaMark mark = snU_mark(a);
    int64_t *delta = NEWN(a, int64_t, last + 2), live = 0, peak = 0;
    for (int i = 0; i < n; i++) {
        delta[box[i].first] += align_up(box[i].bytes);
        delta[box[i].last + 1] -= align_up(box[i].bytes);
    }
    for (int t = 0; t <= last; t++) {
        live += delta[t];
        if (live > peak) peak = live;
    }
    snU_reset(a, mark);
    return peak;
}

/* Good enough is one percent above the bound; up to five percent only a little more work is spent on it. */
static bool go_on(const Packer *p, int64_t peak, int64_t work) {
    enum { A_LITTLE = 2 * 1000 * 1000, A_LOT = 40 * 1000 * 1000 };        /* steps of find_gap, about a nanosecond each */
    if (p->best_total <= peak + peak / 100) return false;
    return work < (p->best_total <= peak + peak / 20 ? A_LITTLE : A_LOT);
}

int64_t snP_pack(const PlanBox *box, int n, Arena *a, int64_t *offset) {
    if (n == 0) return 0;
    ArenaMark mark = snU_mark(a);
    int64_t peak = snP_live_peak(box, n, a), work = 0, each = (int64_t)n * n / 2;
    Packer p = { box, n, a, NEWN(a, int, n), NEWN(a, Placed, n), NEWN(a, int64_t, n), offset, INT64_MAX };
    for (int kind = 0; kind < N_ORDERS && go_on(&p, peak, work); kind++, work += each) {
        sort_boxes(&p, (OrderKind)kind);
        place_all(&p, kind == BY_TIME);
    }
    enum { ROUNDS = 60 };                                  /* repairs of one order before the next is tried */
    for (int round = 0; round < 2 * N_ORDERS * ROUNDS && go_on(&p, peak, work); round++, work += each) {
        int start = round / ROUNDS;
        if (round % ROUNDS == 0) sort_boxes(&p, (OrderKind)(start % N_ORDERS));
        move_top_forward(&p, place_all(&p, start >= N_ORDERS));
    }
    snU_reset(a, mark);
    return p.best_total;
}

/* -- The plan --------------------------------------------------------------------------------------------- */

typedef struct Planner {
    Graph *g;
    const Groups *groups;
    Arena *a;
    Plan plan;
    int end;                             /* time of the copies, after all groups */
    int *first, *last;                   /* per node: the group that writes it, the last that reads it; NEVER */
    bool *pinned;                        /* graph outputs and what copies read: live to the end */
    NodeId *inside;                      /* per node: the value in whose memory it lies, 0 = its own */
    int64_t *at;                         /* how many bytes into that */
    bool *fixed;                         /* lies in a placed concat, or is one: nothing joins it */
} Planner;

static bool in_same(const Group *grp, NodeId id) {
    for (uint32_t i = 0; i < grp->same.n; i++)
        if (grp->same.v[i] == id) return true;
    return false;
}

static void find_lifetimes(Planner *p) {
    const Graph *g = p->g;
    for (uint32_t t = 0; t < p->groups->group.n; t++) {
        const Group *grp = &p->groups->group.v[t];
        for (uint32_t i = 0; i < grp->inputs.n && grp->kind != G_PLACE; i++) p->last[grp->inputs.v[i]] = (int)t;
        for (uint32_t i = 0; i < grp->outputs.n; i++) {
            NodeId id = grp->outputs.v[i];
            p->first[id] = (int)t;
            if (p->last[id] < (int)t) p->last[id] = (int)t;
        }
    }
    for (uint32_t i = 0; i < g->outputs.n; i++) p->pinned[g->outputs.v[i].node] = true;
}

static void place_leaves(Planner *p) {
    for (uint32_t i = 0; i < p->g->leaves.n; i++) {
        NodeId id = p->g->leaves.v[i].node;
        uint8_t kind = is_storage(p->g, id) ? P_STORAGE : P_INPUT;
        p->plan.place[id] = (Place){ kind, 0, node_bytes(p->g, id), id };
    }
}

/* Placed concats: of storage, they lie where their first part does; else their parts lie in them. */
static void place_rows(Planner *p) {
    for (uint32_t t = 0; t < p->groups->group.n; t++) {
        const Group *grp = &p->groups->group.v[t];
        if (grp->kind != G_PLACE) continue;
        const Place *part = &p->plan.place[grp->parts.v[0].value];
        p->plan.place[grp->anchor] = (Place){ part->kind == P_STORAGE ? P_STORAGE : P_ARENA, 0, node_bytes(p->g, grp->anchor), part->leaf };
        p->fixed[grp->anchor] = true;
        for (uint32_t i = 0; i < grp->parts.n; i++) {
            NodeId x = grp->parts.v[i].value;
            p->inside[x] = grp->anchor, p->at[x] = grp->parts.v[i].at;
            p->fixed[x] = true;
            if (p->plan.place[x].kind == P_NONE) p->plan.place[x] = (Place){ P_ARENA, 0, node_bytes(p->g, x), 0 };
        }
    }
}

/* The value whose memory id lies in, through all that lie in others, and where. */
static NodeId outermost(const Planner *p, NodeId id, int64_t *at) {
    for (*at = 0; p->inside[id]; id = p->inside[id]) *at += p->at[id];
    return id;
}

/* May the group that computes `value` write it from byte `at` of run `row` on, over the old value of `target`? Every reader of
   the target, alone or in a concat, comes before, or is that group and reads each element where it writes it. */
static bool may_overwrite(const Planner *p, NodeId target, NodeId value, NodeId row, int64_t at) {
    int writer = p->first[value];
    if (writer == NEVER || p->plan.place[value].kind != P_NONE) return false;
    for (NodeId x = target; x; x = p->inside[x]) {
        int64_t x_at;
        if (p->pinned[x] || p->last[x] > writer) return false;
        if (p->last[x] < writer) continue;
        bool there = outermost(p, x, &x_at) == row && x_at == at && node_bytes(p->g, x) == node_bytes(p->g, value);
        if (!there || !in_same(&p->groups->group.v[writer], x)) return false;
    }
    return true;
}

static bool is_leaf_value(const Planner *p, NodeId v) { return p->plan.place[v].leaf == v; }

/* An update as the plan sees it: elements of `base` from byte `at` on. */
typedef struct Write { NodeId target, base; int64_t at; bool done; } Write;

/* Updates w[0..n), all of one computed value, written in place: together they are all of it, their targets neighbours. */
static bool write_in_place(Planner *p, Write *w, int n) {
    NodeId value = w[0].base, row = outermost(p, w[0].target, &(int64_t){ 0 }), leaf = 0;
    int64_t total = 0, start = 0;
    outermost(p, w[0].target, &start);
    start -= w[0].at;
    for (int i = 0; i < n; i++) {
        int64_t at;
        if (outermost(p, w[i].target, &at) != row || at - w[i].at != start) return false;
        if (!may_overwrite(p, w[i].target, value, row, start)) return false;
        if (w[i].at == 0) leaf = w[i].target;
        total += node_bytes(p->g, w[i].target);
    }
    if (!leaf || total != node_bytes(p->g, value)) return false;
    p->plan.place[value] = (Place){ P_STORAGE, 0, total, leaf };
    for (int i = 0; i < n; i++) w[i].done = true;
    return true;
}

static int compare_writes(const void *x, const void *y) {
    const Write *a = x, *b = y;
    if (a->base != b->base) return a->base < b->base ? -1 : 1;
    return a->target < b->target ? -1 : a->target > b->target;
}

/* Updates that cannot be in place become copies; returns their number. Leaves that copies read keep their old value to the end. */
static int place_updates(Planner *p, Write *copy) {
    const Graph *g = p->g;
    int n = 0, ncopies = 0;
    Write *w = NEWN(p->a, Write, g->updates.n);
    for (uint32_t i = 0; i < g->updates.n; i++) {
        Update u = g->updates.v[i];
        if (is_leaf_value(p, u.value)) p->pinned[u.value] = true;
        if (u.target == u.value) continue;
        w[n] = (Write){ .target = u.target };
        w[n].base = snP_update_base(g, u.value, &w[n].at);
        n++;
    }
    qsort(w, (size_t)n, sizeof *w, compare_writes);
    for (int i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && w[next].base == w[i].base; next++) {}
        if (write_in_place(p, w + i, next - i)) continue;
        for (int k = i; k < next && !write_in_place(p, w + k, 1); k++) {}
        for (int k = i; k < next; k++) {
            if (w[k].done) continue;
            p->pinned[w[k].base] = true;
            copy[ncopies++] = w[k];
        }
    }
    return ncopies;
}

/* An input that dies in the group that computes a part of a concat, read only at the element that is written, is computed there too:
   the sum of two gradients is added up where it will lie. */
static void join_parts(Planner *p, int t) {
    const Group *grp = &p->groups->group.v[t];
    for (uint32_t i = 0; i < grp->outputs.n && grp->kind != G_PLACE; i++) {
        NodeId out = grp->outputs.v[i];
        if (!p->inside[out] || p->plan.place[out].kind != P_ARENA) continue;
        for (uint32_t k = 0; k < grp->same.n; k++) {
            NodeId in = grp->same.v[k];
            if (p->pinned[in] || p->last[in] != t || p->first[in] == NEVER || p->plan.place[in].kind != P_NONE) continue;
            if (!same_shape_of_memory(p->g, in, out)) continue;
            p->inside[in] = out;
            p->fixed[in] = true;
            p->plan.place[in] = (Place){ P_ARENA, 0, node_bytes(p->g, in), 0 };
            break;
        }
    }
}

/* Outputs of the group at time t: join the buffer of an input that dies here, where the group allows it. */
static void join_outputs(Planner *p, int t) {
    const Group *grp = &p->groups->group.v[t];
    ArenaMark mark = snU_mark(p->a);
    bool *taken = NEWN(p->a, bool, grp->same.n);
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        NodeId out = grp->outputs.v[i];
        if (p->plan.place[out].kind != P_NONE) continue;
        for (uint32_t k = 0; k < grp->same.n; k++) {
            NodeId in = grp->same.v[k];
            if (taken[k] || p->pinned[in] || p->fixed[in] || p->last[in] != t || p->first[in] == NEVER) continue;
            if (p->plan.place[in].kind != P_ARENA || !same_shape_of_memory(p->g, in, out)) continue;
            p->inside[out] = in;
            taken[k] = true;
            break;
        }
        p->plan.place[out] = (Place){ P_ARENA, 0, node_bytes(p->g, out), 0 };
    }
    snU_reset(p->a, mark);
}

/* Copies are one parallel assignment: one that overwrites a leaf waits for those that read its old value; a cycle first
   saves one leaf to a temporary. Copy.temp counts the temporaries from 1 here; saved[] tells their leaves. */
static int order_copies(Planner *p, const Write *copy, int n, NodeId *saved) {
    bool *done = NEWN(p->a, bool, n);
    int *temp = NEWN(p->a, int, n), ntemp = 0;
    for (int left = n; left > 0;) {
        int blocked_at = NEVER;
        bool moved = false;
        for (int i = 0; i < n; i++) {
            bool blocked = false;
            for (int k = 0; k < n && !done[i]; k++)
                blocked |= !done[k] && k != i && !temp[k] && copy[k].base == copy[i].target;
            if (blocked) blocked_at = i;
            if (done[i] || blocked) continue;
            Copy c = { temp[i] ? 0 : copy[i].base, copy[i].target, temp[i], copy[i].at };
            PUSH(p->a, p->plan.copies, c);
            done[i] = moved = true;
            left--;
        }
        if (moved) continue;
        NodeId leaf = saved[ntemp++] = copy[blocked_at].target;
        Copy save = { leaf, 0, ntemp, 0 };
        PUSH(p->a, p->plan.copies, save);
        for (int k = 0; k < n; k++)
            if (!done[k] && copy[k].base == leaf) temp[k] = ntemp;
    }
    return ntemp;
}

/* One box per buffer: a value that lies in another's extends it in time. Temporaries of the copies come last. */
static void assign_offsets(Planner *p, const NodeId *saved, int ntemp) {
    const Graph *g = p->g;
    int *box_of = NEWN(p->a, int, g->nodes.n), n = 0;        /* 1 + box */
    PlanBox *box = NEWN(p->a, PlanBox, (int)g->nodes.n + ntemp);
    for (int t = 0; t < p->end; t++) {
        const Group *grp = &p->groups->group.v[t];
        for (uint32_t i = 0; i < grp->outputs.n; i++) {
            NodeId id = grp->outputs.v[i];
            if (p->plan.place[id].kind != P_ARENA) continue;
            int64_t at;
            NodeId whole = outermost(p, id, &at);
            int last = p->pinned[id] ? p->end : p->last[id];
            if (!box_of[whole]) box[n] = (PlanBox){ p->plan.place[whole].bytes, t, last }, box_of[whole] = ++n;
            PlanBox *b = &box[box_of[whole] - 1];
            if (b->last < last) b->last = last;
        }
    }
    for (int i = 0; i < ntemp; i++) box[n + i] = (PlanBox){ node_bytes(g, saved[i]), p->end, p->end };
    int64_t *offset = NEWN(p->a, int64_t, n + ntemp);
    p->plan.arena_bytes = snP_pack(box, n + ntemp, p->a, offset);
    p->plan.live_peak = snP_live_peak(box, n + ntemp, p->a);
    for (NodeId id = 1; id < g->nodes.n; id++) {
        int64_t at;
        if (p->plan.place[id].kind != P_ARENA) continue;
        p->plan.place[id].offset = offset[box_of[outermost(p, id, &at)] - 1];
        p->plan.place[id].offset += at;
        p->g->nodes.v[id].offset = 1 + p->plan.place[id].offset;
    }
    for (uint32_t i = 0; i < p->plan.copies.n; i++) {
        Copy *c = &p->plan.copies.v[i];
        if (c->temp) c->temp = 1 + offset[n + (int)c->temp - 1];
    }
}

Plan snP_plan(Graph *g, const Groups *groups, Arena *a) {
    uint32_t n = g->nodes.n;
    Planner p = { g, groups, a, .end = (int)groups->group.n };
    p.plan.place = NEWN(a, Place, n);
    p.first = NEWN(a, int, n), p.last = NEWN(a, int, n);
    p.pinned = NEWN(a, bool, n), p.fixed = NEWN(a, bool, n);
    p.inside = NEWN(a, NodeId, n), p.at = NEWN(a, int64_t, n);
    for (uint32_t i = 0; i < n; i++) {
        p.first[i] = p.last[i] = NEVER;
        g->nodes.v[i].offset = 0;
    }
    Write *copy = NEWN(a, Write, g->updates.n);
    NodeId *saved = NEWN(a, NodeId, g->updates.n);
    find_lifetimes(&p);
    place_leaves(&p);
    place_rows(&p);
    int ncopies = place_updates(&p, copy);
    for (int t = p.end - 1; t >= 0; t--) join_parts(&p, t);
    for (int t = 0; t < p.end; t++) join_outputs(&p, t);
    assign_offsets(&p, saved, order_copies(&p, copy, ncopies, saved));
    return p.plan;
}

/* As a pass: groups are a function of the graph, so they are made anew. */
Graph *snP_plan_pass(const Graph *g, const PassOptions *opt) {
    Arena a = {0};
    Groups groups;
    Graph *out = snP_fuse(g, &(FuseOptions){ .without = snP_without(g->ctx, opt->fuse), .groups = &groups, .arena = &a });
    snP_plan(out, &groups, &a);
    snU_free_arena(&a);
    return out;
}
