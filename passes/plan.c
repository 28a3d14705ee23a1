/* plan.c: where every value lives.

   In:  a graph with its groups (fuse.h). Out: a Plan: a place per value in memory, the copies that commit updates, the size of
   the arena; node.offset is set so that the plan prints.

   Three steps. Updates first: the value of an update is written straight into its storage when nobody reads the old value later.
   Then lifetimes: a group is a point of time; an output that may replace an input which dies there joins its buffer. Last,
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
    NodeId *joined;                      /* per node: the input whose buffer it takes over, 0 = its own */
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
        for (uint32_t i = 0; i < grp->inputs.n; i++) p->last[grp->inputs.v[i]] = (int)t;
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

/* May the group that computes `value` write it over the old value of `target`? */
static bool may_overwrite(const Planner *p, NodeId target, NodeId value) {
    int writer = p->first[value];
    if (writer == NEVER || p->pinned[target] || p->plan.place[value].kind != P_NONE) return false;
    if (node_bytes(p->g, target) != node_bytes(p->g, value)) return false;
    return p->last[target] < writer
        || (p->last[target] == writer && in_same(&p->groups->group.v[writer], target));
}

static bool is_leaf_value(const Planner *p, NodeId v) { return p->plan.place[v].leaf == v; }

/* Updates that cannot be in place become copies; returns their number. Leaves that copies read keep their old value to the end. */
static int place_updates(Planner *p, Update *copy) {
    const Graph *g = p->g;
    int n = 0;
    for (uint32_t i = 0; i < g->updates.n; i++)
        if (is_leaf_value(p, g->updates.v[i].value)) p->pinned[g->updates.v[i].value] = true;
    for (uint32_t i = 0; i < g->updates.n; i++) {
        Update u = g->updates.v[i];
        if (u.target == u.value) continue;
        if (may_overwrite(p, u.target, u.value)) {
            p->plan.place[u.value] = (Place){ P_STORAGE, 0, node_bytes(g, u.value), u.target };
        } else {
            p->pinned[u.value] = true;
            copy[n++] = u;
        }
    }
    return n;
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
            if (taken[k] || p->pinned[in] || p->last[in] != t || p->first[in] == NEVER) continue;
            if (p->plan.place[in].kind != P_ARENA || p->plan.place[in].bytes != node_bytes(p->g, out)) continue;
            p->joined[out] = in;
            taken[k] = true;
            break;
        }
        p->plan.place[out] = (Place){ P_ARENA, 0, node_bytes(p->g, out), 0 };
    }
    snU_reset(p->a, mark);
}

/* Copies are one parallel assignment: one that overwrites a leaf waits for those that read its old value; a cycle first
   saves one leaf to a temporary. Copy.temp counts the temporaries from 1 here; saved[] tells their leaves. */
static int order_copies(Planner *p, const Update *copy, int n, NodeId *saved) {
    bool *done = NEWN(p->a, bool, n);
    int *temp = NEWN(p->a, int, n), ntemp = 0;
    for (int left = n; left > 0;) {
        int blocked_at = NEVER;
        bool moved = false;
        for (int i = 0; i < n; i++) {
            bool blocked = false;
            for (int k = 0; k < n && !done[i]; k++)
                blocked |= !done[k] && k != i && !temp[k] && copy[k].value == copy[i].target;
            if (blocked) blocked_at = i;
            if (done[i] || blocked) continue;
            Copy c = { temp[i] ? 0 : copy[i].value, copy[i].target, temp[i] };
            PUSH(p->a, p->plan.copies, c);
            done[i] = moved = true;
            left--;
        }
        if (moved) continue;
        NodeId leaf = saved[ntemp++] = copy[blocked_at].target;
        Copy save = { leaf, 0, ntemp };
        PUSH(p->a, p->plan.copies, save);
        for (int k = 0; k < n; k++)
            if (!done[k] && copy[k].value == leaf) temp[k] = ntemp;
    }
    return ntemp;
}

/* One box per buffer: a value that joined another's extends it. Temporaries of the copies come last. */
static void assign_offsets(Planner *p, const NodeId *saved, int ntemp) {
    const Graph *g = p->g;
    int *box_of = NEWN(p->a, int, g->nodes.n), n = 0;
    PlanBox *box = NEWN(p->a, PlanBox, (int)g->nodes.n + ntemp);
    for (int t = 0; t < p->end; t++) {
        const Group *grp = &p->groups->group.v[t];
        for (uint32_t i = 0; i < grp->outputs.n; i++) {
            NodeId id = grp->outputs.v[i];
            if (p->plan.place[id].kind != P_ARENA) continue;
            int last = p->pinned[id] ? p->end : p->last[id];
            box_of[id] = p->joined[id] ? box_of[p->joined[id]] : n++;
            PlanBox *b = &box[box_of[id]];
            if (!p->joined[id]) *b = (PlanBox){ p->plan.place[id].bytes, t, last };
            b->last = last;
        }
    }
    for (int i = 0; i < ntemp; i++) box[n + i] = (PlanBox){ node_bytes(g, saved[i]), p->end, p->end };
    int64_t *offset = NEWN(p->a, int64_t, n + ntemp);
    p->plan.arena_bytes = snP_pack(box, n + ntemp, p->a, offset);
    p->plan.live_peak = snP_live_peak(box, n + ntemp, p->a);
    for (NodeId id = 1; id < g->nodes.n; id++) {
        if (p->plan.place[id].kind != P_ARENA) continue;
        p->plan.place[id].offset = offset[box_of[id]];
        p->g->nodes.v[id].offset = 1 + offset[box_of[id]];
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
    p.pinned = NEWN(a, bool, n), p.joined = NEWN(a, NodeId, n);
    for (uint32_t i = 0; i < n; i++) {
        p.first[i] = p.last[i] = NEVER;
        g->nodes.v[i].offset = 0;
    }
    Update *copy = NEWN(a, Update, g->updates.n);
    NodeId *saved = NEWN(a, NodeId, g->updates.n);
    find_lifetimes(&p);
    place_leaves(&p);
    int ncopies = place_updates(&p, copy);
    for (int t = 0; t < p.end; t++) join_outputs(&p, t);
    assign_offsets(&p, saved, order_copies(&p, copy, ncopies, saved));
    return p.plan;
}

/* As a pass: groups are a function of the graph, so they are made anew. */
Graph *snP_plan_pass(const Graph *g, const PassOptions *opt) {
    Graph *out = snP_fuse_pass(g, opt);
    Arena a = {0};
    Groups groups = snP_groups(out, &a);
    snP_plan(out, &groups, &a);
    snU_free_arena(&a);
    return out;
}
