/* bench_case.c: one family on one shape: a small graph text through the whole compiler, fused against unfused.

   In:  a text, and which of its kernels count. Out: their seconds on both sides, after the results were compared, and the bytes that
   a single kernel for all of them would move. */
#include "passes/pass.h"
#include "tools/bench.h"

#include <math.h>

bool next_item(const char **list, char *out, size_t cap) {
    size_t n = strcspn(*list, ",");
    if (!**list) return false;
    snprintf(out, cap, "%.*s", (int)n, *list);
    *list += n + ((*list)[n] == ',');
    return true;
}

bool case_dir(const BenchOptions *o, const char *dir) {
    char item[32];
    for (const char *p = o->dirs ? o->dirs : "fwd,bwd"; next_item(&p, item, sizeof item); ) if (!strcmp(item, dir)) return true;
    return false;
}

/* -- Feeding: floats of about N(0, 1); targets, documents and weights by name -------------------------------------------- */

static uint32_t draw(uint32_t *x) { return (*x = *x * 1664525u + 1013904223u) >> 8; }

static double about_normal(uint32_t *x) {
    double s = -2;
    for (int i = 0; i < 4; i++) s += draw(x) / 16777216.0;
    return s * 1.7320508075688772;
}

static int feed_input(Lab *lab, const SnGraphPlan *g, const SnBuffer *b, const Case *c) {
    int64_t n = b->bytes / 4, row = b->t.rank > 1 ? b->t.dim[b->t.rank - 1] : n;
    union { float f; int32_t i; } *v = calloc((size_t)n + 1, sizeof *v);
    uint32_t x = 2463534242u;
    for (int64_t i = 0; i < n; i++) {
        if (!strcmp(b->t.name, "targets")) v[i].i = (int32_t)(draw(&x) % (uint32_t)c->vocab);
        else if (!strcmp(b->t.name, "doc")) v[i].i = (int32_t)(i % row * c->docs / row);
        else if (!strcmp(b->t.name, "weight")) v[i].f = draw(&x) / 16777216.0 < c->share ? 1.0f / (float)n : 0.0f;
        else v[i].f = (float)about_normal(&x);
    }
    int rc = sn_bind(lab->s, g->name, b->t.name, v, (size_t)b->bytes) ? lab_error(lab) : 0;
    free(v);
    return rc;
}

static int feed(Lab *lab, const SnGraphPlan *g, void *user) {
    int rc = 0;
    for (int i = 0; i < g->nbuffers && !rc; i++)
        if (g->buffers[i].kind == SN_BUF_INPUT && g->buffers[i].t.rank > 0) rc = feed_input(lab, g, &g->buffers[i], user);
    return rc;
}

/* -- What counts ---------------------------------------------------------------------------------------------------------- */

static bool in_dir(const Side *s, int group, const char *only) {
    const BuiltGraph *b = s->built;
    return !only || (group >= 0 && !strcmp(node_direction(b->g, b->groups.group.v[group].anchor), only));
}

static bool handed_on(const Graph *g, NodeId id) {
    for (uint32_t i = 0; i < g->outputs.n; i++) if (g->outputs.v[i].node == id) return true;
    for (uint32_t i = 0; i < g->updates.n; i++) if (g->updates.v[i].value == id) return true;
    return false;
}

static double bytes_of(const Graph *g, NodeId id, int64_t n) { return (double)n * snG_dtype_size((Dtype)snG_type(g, id)->dtype); }

/* Inputs that come from elsewhere, the most that one kernel touches of each, and what leaves the graph. */
static double least_bytes(const Side *s, const char *only) {
    const Graph *g = s->built->g;
    const Groups *all = &s->built->groups;
    int64_t *most = calloc(g->nodes.n + 1, sizeof *most);
    double sum = 0;
    for (uint32_t k = 0; k < all->group.n; k++) {
        const Group *grp = &all->group.v[k];
        if (!in_dir(s, (int)k, only) || grp->kind == G_PLACE) continue;
        for (uint32_t i = 0; i < grp->inputs.n; i++) {
            NodeId id = grp->inputs.v[i];
            uint32_t from = snG_node(g, id)->group;
            if (from && in_dir(s, (int)from - 1, only)) continue;
            if (grp->touched.v[i] > most[id]) most[id] = grp->touched.v[i];
        }
        for (uint32_t i = 0; i < grp->outputs.n; i++)
            if (handed_on(g, grp->outputs.v[i])) sum += bytes_of(g, grp->outputs.v[i], snG_count(snG_type(g, grp->outputs.v[i])));
    }
    for (NodeId id = 1; id < g->nodes.n; id++) sum += bytes_of(g, id, most[id]);
    free(most);
    return sum;
}

static void measure_side(const Side *s, const char *only, double *seconds, int *launches) {
    *seconds = 0, *launches = 0;
    for (int i = 0; i < s->g->nlaunches; i++) {
        if (!in_dir(s, s->built->group_of.v[i], only)) continue;
        *seconds += s->best[i];
        ++*launches;
    }
}

int case_run(const BenchOptions *o, const Case *c, CaseTime *out) {
    Pair p = {0};
    PairOptions po = { .file = c->name, .text = c->text, .order = c->grad ? SNP_ORDER_GRAD ",split" : SNP_ORDER_INFER, .graph = "g", .passes = o->passes,
                       .fuse = { o->fuse ? o->fuse : "all", "none" }, .set = &o->set, .feed = feed, .user = (void *)c, .threads = (int)o->threads,
                       .device = o->device, .target = o->target, .sched = o->sched, .bf16 = o->dtype && !strcmp(o->dtype, "bf16") };
    if (o->alone) po.fuse[1] = NULL;
    int rc = pair_open(&p, &po);
    if (!rc && p.sides == 2) rc = pair_compare(&p);
    if (!rc) rc = pair_time(&p, o->steps, 0.5);
    memset(out, 0, sizeof *out);
    for (int i = 0; i < p.sides && !rc; i++) {
        measure_side(&p.side[i], c->only, &out->seconds[i], &out->launches[i]);
        out->arena[i] = p.side[i].g->arena_bytes;
    }
    if (!rc) out->bytes = least_bytes(&p.side[0], c->only), out->peak = p.peak, out->bandwidth = p.bandwidth;
    pair_close(&p);
    return rc;
}
