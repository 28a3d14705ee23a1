/* unit_plan.c: the memory plan. In: [files.sn], else the models; out: `N passed, N failed`.

   1. Packing alone, over random lifetimes and over the shape of a training step: no two live boxes overlap, offsets are
      aligned, the arena holds the live set; the ratio of the two is reported.
   2. Whole plans of small graphs and of files given as arguments: the launches are played on a memory whose bytes remember which
      value they hold, and every read must find the value that it means, updates that commit together included. */
#include "passes/fuse.h"
#include "passes/pass.h"

static int passed, failed;

static void expect(bool ok, const char *what) {
    if (ok) passed++;
    else failed++, printf("FAILED %s\n", what);
}

/* -- Packing ----------------------------------------------------------------------------------------------- */

static uint64_t rng_state = 42;
static uint32_t rnd(uint32_t n) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33) % n;
}

static bool packing_valid(const PlanBox *box, const int64_t *at, int n, int64_t total) {
    for (int i = 0; i < n; i++) {
        if (at[i] < 0 || at[i] % 64 || at[i] + box[i].bytes > total) return false;
        for (int k = 0; k < i; k++) {
            bool meet = box[i].first <= box[k].last && box[k].first <= box[i].last;
            if (meet && at[i] < at[k] + box[k].bytes && at[k] < at[i] + box[i].bytes) return false;
        }
    }
    return true;
}

static double pack_and_check(const PlanBox *box, int n, const char *what, double most, double *ms) {
    Arena a = {0};
    int64_t *at = NEWN(&a, int64_t, n), peak = snP_live_peak(box, n, &a);
    double t0 = snU_now();
    int64_t total = snP_pack(box, n, &a, at);
    *ms = (snU_now() - t0) * 1e3;
    double ratio = peak ? (double)total / (double)peak : 1;
    expect(packing_valid(box, at, n, total), what);
    expect(total >= peak && ratio <= most, what);
    snU_free_arena(&a);
    return ratio;
}

static void test_random_boxes(void) {
    double worst = 1, mean = 0, ms;
    enum { ROUNDS = 300 };
    for (int r = 0; r < ROUNDS; r++) {
        int n = 1 + (int)rnd(r % 10 ? 60 : 400), times = 1 + (int)rnd(80);
        PlanBox box[400];
        for (int i = 0; i < n; i++) {
            int first = (int)rnd((uint32_t)times), life = rnd(4) ? (int)rnd(6) : (int)rnd((uint32_t)times);
            int64_t bytes = 1 + (int64_t)rnd(1u << (4 + rnd(16)));
            box[i] = (PlanBox){ bytes, first, first + life };
        }
        double ratio = pack_and_check(box, n, "random boxes", 1.10, &ms);
        mean += ratio / ROUNDS;
        if (ratio > worst) worst = ratio;
    }
    printf("random boxes: arena over largest live set: mean %.4f, worst %.4f\n", mean, worst);
}

/* Forward: saved activations and short-lived temporaries; backward frees them in reverse. */
static void test_training_boxes(int layers) {
    static const int64_t unit[] = { 1, 3, 1, 1, 4, 4, 1, 2 };
    enum { PER = 20, SAVED = 8 };
    PlanBox box[64 * 40];
    int n = 0, end = 2 * layers * PER;
    for (int l = 0; l < layers; l++)
        for (int i = 0; i < PER; i++) {
            int t = l * PER + i;
            int64_t bytes = 393216 * unit[i % 8];
            box[n++] = (PlanBox){ bytes, t, i < SAVED ? end - 1 - t : t + 1 + i % 3 };
            box[n++] = (PlanBox){ bytes / 3 * (1 + i % 4), end - 1 - t, end - 1 - t + 1 + i % 2 };
        }
    double ms, ratio = pack_and_check(box, n, "training boxes", 1.05, &ms);
    printf("training, %d layers: %d buffers, arena %.4f of the largest live set, %.1f ms\n", layers, n, ratio, ms);
}

/* -- Whole plans ----------------------------------------------------------------------------------------------- */

/* What lies in memory: for every value its own stretch of the arena, of a run of storage, or of an input; a write ends the life of
   all values it touches. A copy into a leaf counts as a value of its own. */
typedef struct Stretch { Sym run; int64_t at, bytes; } Stretch;       /* run 0: the arena */
typedef struct Memory {
    const Graph *g;
    const Plan *plan;
    const Layout *layout;
    bool *valid, *copied;                                             /* per node; copied: per target, what a copy put there */
    Copy *copy;
} Memory;

static bool overlap(Stretch a, Stretch b) { return a.run == b.run && a.at < b.at + b.bytes && b.at < a.at + a.bytes; }

static Stretch stretch_of(const Memory *m, NodeId id) {
    const Place *p = &m->plan->place[id];
    Stretch s = { 0, p->offset, p->bytes };
    if (p->kind == P_NONE) s.bytes = 0;
    if (p->kind != P_STORAGE && p->kind != P_INPUT) return s;
    s.run = snP_layout_find(m->layout, snG_node(m->g, p->leaf)->name, &s.at);
    s.at += p->offset;
    return s;
}

static void clobber(Memory *m, Stretch s) {
    for (NodeId id = 1; id < m->g->nodes.n; id++) {
        if (m->plan->place[id].kind == P_NONE) continue;
        Stretch o = stretch_of(m, id);
        if (overlap(s, o)) m->valid[id] = m->copied[id] = false;
    }
}

static void write_value(Memory *m, NodeId v) {
    clobber(m, stretch_of(m, v));
    m->valid[v] = true;
}

/* A placed concat is there when its parts are, one after the other. */
static const char *place_value(Memory *m, const Group *grp) {
    Stretch whole = stretch_of(m, grp->anchor);
    int64_t at = 0;
    for (uint32_t i = 0; i < grp->parts.n; i++) {
        NodeId x = grp->parts.v[i].value;
        Stretch s = stretch_of(m, x);
        if (!m->valid[x]) return "a part of a concat was gone";
        if (s.run != whole.run || s.at != whole.at + at || grp->parts.v[i].at != at) return "a part of a concat lies elsewhere";
        at += s.bytes;
    }
    m->valid[grp->anchor] = true;
    return at == whole.bytes ? NULL : "a concat of another size than its parts";
}

static const char *play_copies(Memory *m) {
    NodeId temp[64] = {0};
    for (uint32_t i = 0; i < m->plan->copies.n; i++) {
        Copy c = m->plan->copies.v[i];
        int64_t slot = c.temp ? (c.temp - 1) / 64 % 64 : 0;
        if (c.temp && c.from) {
            if (!m->valid[c.from]) return "a saved value was gone";
            clobber(m, (Stretch){ 0, c.temp - 1, m->plan->place[c.from].bytes });
            temp[slot] = c.from;
            continue;
        }
        if (c.temp) c.from = temp[slot];
        else if (!m->valid[c.from]) return "a copy's source was gone";
        clobber(m, stretch_of(m, c.to_leaf));
        m->copied[c.to_leaf] = true;
        m->copy[c.to_leaf] = c;
    }
    return NULL;
}

/* Does the target's storage hold the update's value in the end? */
static bool committed(const Memory *m, Update u) {
    int64_t at;
    NodeId base = snP_update_base(m->g, u.value, &at);
    if (u.value == u.target) return m->valid[u.target];
    if (m->copied[u.target]) return m->copy[u.target].from == base && m->copy[u.target].at == at;
    Stretch to = stretch_of(m, u.target), from = stretch_of(m, base);
    return m->plan->place[base].kind == P_STORAGE && m->valid[base] && from.run == to.run && from.at + at == to.at;
}

static const char *play_group(Memory *m, const Group *grp) {
    for (uint32_t i = 0; i < grp->inputs.n; i++)
        if (!m->valid[grp->inputs.v[i]]) return "an input of a group was gone";
    if (grp->kind == G_PLACE) return place_value(m, grp);
    for (uint32_t i = 0; i < grp->outputs.n; i++) {
        Stretch o = stretch_of(m, grp->outputs.v[i]);
        for (uint32_t k = 0; k < grp->inputs.n; k++) {
            Stretch in = stretch_of(m, grp->inputs.v[k]);
            bool same = false;
            for (uint32_t s = 0; s < grp->same.n; s++) same |= grp->same.v[s] == grp->inputs.v[k];
            if (overlap(o, in) && !(same && o.at == in.at && o.bytes == in.bytes)) return "output over an input";
        }
    }
    for (uint32_t i = 0; i < grp->outputs.n; i++) write_value(m, grp->outputs.v[i]);
    for (uint32_t i = 0; i < grp->outputs.n; i++)
        if (!m->valid[grp->outputs.v[i]]) return "two outputs of a group overlap";
    return NULL;
}

static const char *play(const Graph *g, const Groups *groups, const Plan *plan, const Layout *layout, Arena *a) {
    Memory m = { g, plan, layout, NEWN(a, bool, g->nodes.n), NEWN(a, bool, g->nodes.n), NEWN(a, Copy, g->nodes.n) };
    for (uint32_t i = 0; i < g->leaves.n; i++) m.valid[g->leaves.v[i].node] = true;
    for (uint32_t t = 0; t < groups->group.n; t++) {
        const char *wrong = play_group(&m, &groups->group.v[t]);
        if (wrong) return wrong;
    }
    const char *wrong = play_copies(&m);
    if (wrong) return wrong;
    for (uint32_t i = 0; i < g->updates.n; i++)
        if (!committed(&m, g->updates.v[i])) return "an update was lost";
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (!m.valid[g->outputs.v[i].node]) return "an output was gone";
    return NULL;
}

static void check_graph(sn_ctx *c, const Graph *source, const char *order, const char *fuse, int copies, const char *what) {
    Arena a = {0};
    PassOptions po = { .fuse = fuse };
    FuseOptions fo = { snP_without(c, fuse), snP_layout(&a) };
    SN_ENTER(c, { expect(false, c->message); return; });
    Graph *g = snP_run(c, source, &po, order), *f = snP_fuse(g, &fo);
    Groups groups = snP_groups(f, &a);
    double t0 = snU_now();
    Plan plan = snP_plan(f, &groups, &a);
    double ms = (snU_now() - t0) * 1e3;
    SN_LEAVE(c);
    const char *wrong = play(f, &groups, &plan, fo.layout, &a);
    char text[256];
    snprintf(text, sizeof text, "%s (fuse %s): %s", what, fuse, wrong ? wrong : "");
    expect(!wrong, text);
    if (copies >= 0) {
        snprintf(text, sizeof text, "%s (fuse %s): %u copies, not %d", what, fuse, plan.copies.n, copies);
        expect((int)plan.copies.n == copies, text);
    } else {
        double ratio = plan.live_peak ? (double)plan.arena_bytes / (double)plan.live_peak : 1;
        printf("%s (fuse %s): %u groups, arena %.2f MB, %.4f of the largest live set, %u copies, %.1f ms\n", what, fuse,
               groups.group.n, (double)plan.arena_bytes * 1e-6, ratio, plan.copies.n, ms);
        expect(ratio <= 1.05, what);
    }
    snG_free(f);
    snG_free(g);
    snU_free_arena(&a);
}

#define DECL "state a: f32[64, 8] = zeros()\nstate b: f32[64, 8] = zeros()\nstate c: f32[64, 8] = zeros()\n"
#define HALVES "z = concat(reshape(a, [512]), reshape(b, [512]), axis=0) * 2.0 + 1.0\n"
static const struct { const char *what, *body; int copies; } cases[] = {
    { "in place", DECL "update a = a + 1.0\noutput y = sum(b)", 0 },
    { "swap of leaves", DECL "update a = b\nupdate b = a", 3 },
    { "rotation of leaves", DECL "update a = b\nupdate b = c\nupdate c = a", 4 },
    { "chain of leaves", DECL "update a = b\nupdate b = c", 2 },
    { "old value is an output", DECL "update a = a * 2.0\noutput y = a + b", -2 },
    { "crossed", DECL "update a = b * 2.0\nupdate b = a * 3.0", -2 },
    { "one value, two targets", DECL "x = a * b\nupdate a = x\nupdate b = x\noutput y = x", -2 },
    { "leaf and computed", DECL "update a = b\nupdate b = sum(a, axis=[0]) + b", -2 },
    { "one value, neighbours", DECL HALVES "update a = reshape(slice(z, axis=0, start=0, size=512), [64, 8])\n"
      "update b = reshape(slice(z, axis=0, start=512, size=512), [64, 8])\noutput y = sum(c)", 0 },
    { "one value, halves crossed", DECL HALVES "update b = reshape(slice(z, axis=0, start=0, size=512), [64, 8])\n"
      "update a = reshape(slice(z, axis=0, start=512, size=512), [64, 8])\noutput y = sum(c)", 2 },
    { "one value, half of it", DECL HALVES "update a = reshape(slice(z, axis=0, start=0, size=512), [64, 8])\noutput y = sum(c)", 1 },
    { "one value, an old one read late", DECL HALVES "update a = reshape(slice(z, axis=0, start=0, size=512), [64, 8])\n"
      "update b = reshape(slice(z, axis=0, start=512, size=512), [64, 8])\noutput y = sum(z) + sum(reshape(b, [8, 64]) * 2.0)", -2 },
    { "three rows, two orders", DECL HALVES "w = concat(reshape(b, [512]), reshape(a, [512]), axis=0)\nv = concat(reshape(b, [512]), reshape(c, [512]), axis=0)\n"
      "output y = w * z\noutput x = v * z", 0 },
    { "added up in a part", "input x: f32[16, 8]\ninput y: f32[16, 4]\ninput z: f32[16, 4]\nq = matmul(x, y, ta=1) + matmul(x, z * 2.0, ta=1)\n"
      "output e = exp(concat(reshape(q, [32]), reshape(sum(x, axis=[1]), [16]), axis=0))", -2 },
    { "transposed reader", DECL "update a = reshape(permute(a, [1, 0]), [64, 8])\noutput y = sum(a)", -2 },
};

static void test_cases(void) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sn_ctx *c = sn_ctx_new();
        StrBuf text = {0};
        snU_putf(&text, "graph g {\n%s\n}\n", cases[i].body);
        Module *m = snG_parse(c, cases[i].what, text.s, text.n, NULL, 0);
        if (!m) {
            expect(false, snU_fmt(&c->arena, "%s: %s", cases[i].what, c->message));
        } else {
            for (int none = 0; none < 2; none++)
                check_graph(c, m->graphs.v[0], SNP_ORDER_INFER, none ? "none" : "all", cases[i].copies, cases[i].what);
            snG_free_module(m);
        }
        snU_free_buf(&text);
        sn_ctx_free(c);
    }
}

static void test_file(const char *path) {
    static const struct { const char *name, *order; } orders[] = {
        { "train", SNP_ORDER_TRAIN }, { "accum", SNP_ORDER_ACCUM }, { "apply", SNP_ORDER_APPLY }, { NULL, SNP_ORDER_INFER } };
    sn_ctx *c = sn_ctx_new();
    Module *m = snG_load(c, path, NULL, 0);
    expect(m != NULL, path);
    for (uint32_t i = 0; m && i < m->graphs.n; i++) {
        const char *name = snU_str(c, m->graphs.v[i]->name);
        bool train = !strcmp(name, "train");
        for (size_t k = train ? 0 : 3; k < (train ? 3 : 4); k++)
            for (int none = 0; none < 2; none++)
                check_graph(c, m->graphs.v[i], orders[k].order, none ? "none" : "all", -1,
                            snU_fmt(&c->arena, "%s %s", path, train ? orders[k].name : name));
    }
    if (m) snG_free_module(m);
    sn_ctx_free(c);
}

int main(int argc, char **argv) {
    test_random_boxes();
    test_training_boxes(12);
    test_training_boxes(48);
    test_cases();
    for (int i = 1; i < argc; i++) test_file(argv[i]);
    if (argc == 1) test_file("models/ar.sn"), test_file("models/dlm.sn");
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
