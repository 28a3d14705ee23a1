/* order.c: the order in which groups run.

   In:  groups in some order in which each comes after those it reads from. Out: when each runs, so that little is live.

   One at a time, of the groups whose inputs are all there: first those that make little or free at least as much as they
   make; else, depth first, the one that reads the most recently made large value, and of several the one that frees most,
   then the earliest. So a chunk of the loss goes backward right after its forward and leaves its buffer to the next one,
   and the gradient of a weight does not wait until what it reads has piled up. Equal graphs get equal orders.

     chunk 0: logits, d logits, dx, dw; chunk 1: logits (in the place of chunk 0's) ... */
#include "passes/fuse.h"

enum { LARGE = 1 << 16 };                /* bytes; what is smaller is no reason to wait or to hurry */

typedef struct Value {
    int64_t bytes;                       /* 0: in storage, or in a placed concat, whose memory its first part brings */
    int made, left;                      /* when; readers that have not run */
    uint32_t reader;                     /* where its readers begin */
} Value;
typedef struct Ready { int group, recent; int64_t freed; bool now; } Ready;

typedef struct Order {
    const Graph *g;
    const Groups *all;
    Arena *a;
    Value *value;                        /* per node */
    int *reader;                         /* groups that read a value */
    int *waits;                          /* per group: inputs that are not made yet, groups behind fences that have not run */
    VEC(int) *held;                      /* per group: those that wait for it behind a fence */
    int *at;                             /* per group: 1 + place in ready */
    VEC(Ready) ready;
} Order;

static int64_t bytes_of(const Graph *g, NodeId id) {
    const Type *t = snG_type(g, id);
    return snG_count(t) * snG_dtype_size((Dtype)t->dtype);
}

/* Updates are written into storage; a placed concat of storage lies there, and what lies in another comes with it. */
static void take_no_memory(Order *o) {
    const Graph *g = o->g;
    for (uint32_t i = 0; i < g->updates.n; i++) o->value[snP_update_base(g, g->updates.v[i].value, &(int64_t){ 0 })].bytes = 0;
    for (uint32_t i = 0; i < o->all->group.n; i++) {
        const Group *grp = &o->all->group.v[i];
        if (grp->kind != G_PLACE) continue;
        if (o->value[grp->parts.v[0].value].bytes == 0) o->value[grp->anchor].bytes = 0;    /* a leaf, or a row of leaves */
        for (uint32_t k = 0; k < grp->parts.n; k++) o->value[grp->parts.v[k].value].bytes = 0;
    }
}

static void find_values(Order *o) {
    const Graph *g = o->g;
    uint32_t total = 0;
    for (uint32_t i = 0; i < o->all->group.n; i++) {
        const Group *grp = &o->all->group.v[i];
        for (uint32_t k = 0; k < grp->outputs.n; k++) o->value[grp->outputs.v[k]].bytes = bytes_of(g, grp->outputs.v[k]);
        for (uint32_t k = 0; k < grp->inputs.n; k++) {
            if (!snG_node(g, grp->inputs.v[k])->group) continue;
            o->value[grp->inputs.v[k]].left++, total++, o->waits[i]++;
        }
        for (uint32_t k = 0; k < grp->after.n; k++) {
            PUSH(o->a, o->held[grp->after.v[k]], (int)i);
            o->waits[i]++;
        }
    }
    take_no_memory(o);
    o->reader = NEWN(o->a, int, total + 1);
    uint32_t *fill = NEWN(o->a, uint32_t, g->nodes.n);
    total = 0;
    for (NodeId id = 0; id < g->nodes.n; id++) o->value[id].reader = fill[id] = total, total += (uint32_t)o->value[id].left;
    o->value[g->nodes.n].reader = total;
    for (uint32_t i = 0; i < o->all->group.n; i++) {
        const Group *grp = &o->all->group.v[i];
        for (uint32_t k = 0; k < grp->inputs.n; k++)
            if (snG_node(g, grp->inputs.v[k])->group) o->reader[fill[grp->inputs.v[k]]++] = (int)i;
    }
    for (uint32_t i = 0; i < g->outputs.n; i++) o->value[g->outputs.v[i].node].left++;       /* read after all groups */
}

/* When the latest large input was made. One that is far smaller than what the group makes is none: the rows of the next chunk do
   not call for its logits. */
static int latest(const Order *o, int group) {
    const Group *grp = &o->all->group.v[group];
    int64_t least = LARGE;
    int when = 0;
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        int64_t share = o->value[grp->outputs.v[i]].bytes / 8;
        if (share > least) least = share;
    }
    for (uint32_t i = 0; i < grp->inputs.n; i++) {
        const Value *v = &o->value[grp->inputs.v[i]];
        if (v->bytes >= least && v->made > when) when = v->made;
    }
    return when;
}

/* What speaks for running the group next. What its readers are waiting with counts as if it read it itself. */
static void weigh(const Order *o, Ready *r) {
    const Group *grp = &o->all->group.v[r->group];
    int64_t makes = 0;
    r->recent = latest(o, r->group), r->freed = 0;
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        const Value *v = &o->value[grp->outputs.v[i]];
        makes += v->bytes;
        for (uint32_t k = v->reader; k < v[1].reader; k++) {
            int when = latest(o, o->reader[k]);
            if (when > r->recent) r->recent = when;
        }
    }
    for (uint32_t i = 0; i < grp->inputs.n; i++) {
        const Value *v = &o->value[grp->inputs.v[i]];
        if (v->left == 1 && v->bytes >= LARGE) r->freed += v->bytes;
    }
    r->now = makes < LARGE || r->freed >= makes || grp->kind == G_PLACE;
}

static void add_ready(Order *o, int group) {
    Ready r = { .group = group };
    weigh(o, &r);
    PUSH(o->a, o->ready, r);
    o->at[group] = (int)o->ready.n;
}

static bool before(const Ready *a, const Ready *b) {
    if (a->now != b->now) return a->now;
    if (!a->now && a->recent != b->recent) return a->recent > b->recent;
    if (!a->now && a->freed != b->freed) return a->freed > b->freed;
    return a->group < b->group;
}

static int take_best(Order *o) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < o->ready.n; i++)
        if (before(&o->ready.v[i], &o->ready.v[best])) best = i;
    int group = o->ready.v[best].group;
    o->ready.v[best] = o->ready.v[--o->ready.n];
    o->at[o->ready.v[best].group] = (int)best + 1;
    o->at[group] = 0;
    return group;
}

/* The group waits with one more value: what it waits for is weighed again. */
static void hurry(Order *o, int group) {
    const Group *grp = &o->all->group.v[group];
    for (uint32_t i = 0; i < grp->inputs.n; i++) {
        const Value *v = &o->value[grp->inputs.v[i]];
        int maker = (int)snG_node(o->g, grp->inputs.v[i])->group - 1;
        if (maker >= 0 && !v->made && o->at[maker]) weigh(o, &o->ready.v[o->at[maker] - 1]);
    }
}

/* The group has run: its inputs have a reader less, its outputs are there. */
static void run(Order *o, int group, int when) {
    const Group *grp = &o->all->group.v[group];
    o->waits[group] = -1;
    for (uint32_t i = 0; i < o->held[group].n; i++)
        if (--o->waits[o->held[group].v[i]] == 0) add_ready(o, o->held[group].v[i]);
    for (uint32_t i = 0; i < grp->inputs.n; i++) {
        Value *v = &o->value[grp->inputs.v[i]];
        if (!snG_node(o->g, grp->inputs.v[i])->group || --v->left != 1) continue;
        int *r = &o->reader[v->reader], *end = &o->reader[v[1].reader];
        while (r < end && o->waits[*r] < 0) r++;
        if (r < end && o->at[*r]) weigh(o, &o->ready.v[o->at[*r] - 1]);
    }
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        Value *v = &o->value[grp->outputs.v[i]];
        v->made = when + 1;
        for (uint32_t k = v->reader; k < v[1].reader; k++) {
            if (--o->waits[o->reader[k]] == 0) add_ready(o, o->reader[k]);
            else if (v->bytes >= LARGE) hurry(o, o->reader[k]);
        }
    }
}

void snP_order(const Graph *g, const Groups *all, Arena *a, uint32_t *when) {
    Order o = { .g = g, .all = all, .a = a };
    int n = (int)all->group.n;
    o.value = NEWN(a, Value, g->nodes.n + 1);
    o.waits = NEWN(a, int, n + 1), o.at = NEWN(a, int, n + 1);
    o.held = snU_alloc(a, sizeof *o.held * (size_t)(n + 1));
    find_values(&o);
    for (int i = 0; i < n; i++)
        if (!o.waits[i]) add_ready(&o, i);
    for (int t = 0; t < n; t++) {
        SN_ASSERT(o.ready.n, "groups wait for each other");
        int group = take_best(&o);
        when[group] = (uint32_t)t;
        run(&o, group, t);
    }
}
