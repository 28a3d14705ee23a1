/* cmd_plan.c: `sinter plan`: what a training run would take, without compiling or allocating anything.

   In:  a model file, its params, how much text. Out: weights, memory of a step (the storage and the arena that a build would plan),
   FLOPs of a step and of the run, and its time at a rate that is given, was reached by another run, or is the device's measured peak.

   FLOPs are counted twice: 6ND, N the weights that a token uses, D the tokens; and the matrix products of the graph, forward ones times three.
   Attention counts all pairs, whatever its mask leaves out; recomputed work is not counted. */
#include <jansson.h>
#include <math.h>

#include "codegen/flops.h"
#include "tools/cmd.h"

typedef struct PlanJob {
    const char *file, *like, *device;
    StrList defines;
    PassOptions passes;
    double tokens, unique, epochs, rate;
    int64_t accum, threads;
    bool json;
} PlanJob;

typedef struct Taken {
    double weights, idle, rows, window;              /* elements; rows, window: of one micro-batch */
    double weight_bytes, state_bytes, arena_bytes;   /* arena: the largest of the graphs that a step runs */
    double forward;                                  /* FLOPs of one micro-batch */
    int groups;
} Taken;

static double bytes_of(const Graph *g, NodeId id) {
    const Type *t = snG_type(g, id);
    return (double)snG_count(t) * snG_dtype_size(t->dtype);
}

/* A param's value as a number. */
static double param(const Module *m, const char *name, double otherwise) {
    for (uint32_t i = 0; i < m->params.n; i++) if (!strcmp(m->params.v[i].name, name)) return strtod(m->params.v[i].value, NULL);
    return otherwise;
}

static int count_graph(const Graph *g, Taken *out) {
    for (uint32_t i = 0; i < g->leaves.n; i++) {
        const Type *t = snG_type(g, g->leaves.v[i].node);
        const char *name = snU_str(g->ctx, g->leaves.v[i].name);
        if (snG_node(g, g->leaves.v[i].node)->op == OP_weight) out->weights += (double)snG_count(t);
        if (!strcmp(name, "tokens") && t->rank == 2) out->rows = (double)t->dim[0], out->window = (double)t->dim[1];
    }
    out->forward = snK_model_flops(g);
    return out->rows > 0 ? 0 : cmd_fail("graph 'train' needs `input tokens: i32[B, T]` to be fed with text");
}

/* Groups and memory of one graph of a step, as a build plans them; storage is counted once, by name. */
static void plan_graph(const Graph *g, const PassOptions *po, const char *order, Layout *layout, HashMap *seen, Arena *a, Taken *out) {
    Groups groups;
    unsigned without = snP_without(g->ctx, NULL);
    PassOptions with = *po;
    with.keep = snP_kept(without);
    Graph *after = snP_run(g->ctx, g, &with, order);
    Graph *fused = snP_fuse(after, &(FuseOptions){ without, layout, &groups, a });
    Plan p = snP_plan(fused, &groups, a);
    for (uint32_t i = 0; i < fused->leaves.n; i++) {
        Leaf l = fused->leaves.v[i];
        unsigned op = snG_node(fused, l.node)->op;
        if (op == OP_input || snU_find(seen, (uint64_t)l.name + 1)) continue;
        snU_insert(a, seen, (uint64_t)l.name + 1, 1);
        *(op == OP_weight ? &out->weight_bytes : &out->state_bytes) += bytes_of(fused, l.node);
    }
    if ((double)p.arena_bytes > out->arena_bytes) out->arena_bytes = (double)p.arena_bytes;
    out->groups += (int)groups.group.n;
    snG_free(fused);
    snG_free(after);
}

static int measure(const PlanJob *j, const Model *m, Taken *out) {
    const Graph *g = snG_get(m->m, "train");
    Arena a = {0};
    HashMap seen = {0};
    if (!g) return cmd_fail("%s has no graph `train`", j->file);
    SN_ENTER(m->c, { snU_free_arena(&a); return model_error(m->c); });
    int rc = count_graph(g, out);
    Layout *layout = snP_layout(&a);
    out->idle = param(m->m, "idle_weights", 0);
    if (!rc && j->accum == 1) plan_graph(g, &j->passes, SNP_ORDER_TRAIN, layout, &seen, &a, out);
    if (!rc && j->accum > 1) {
        plan_graph(g, &j->passes, SNP_ORDER_ACCUM, layout, &seen, &a, out);
        plan_graph(g, &j->passes, SNP_ORDER_APPLY, layout, &seen, &a, out);
    }
    SN_LEAVE(m->c);
    snU_free_arena(&a);
    return rc;
}

/* -- The rate ------------------------------------------------------------------------------------------------------- */

/* What another run reached by its last line of training: its FLOPs a token times its tokens a second. */
static int rate_of_run(const char *folder, double *rate) {
    char *config = text_fmt("%s/config.json", folder), *log = text_fmt("%s/log.jsonl", folder), *text = read_text(log, NULL);
    json_t *o = json_load_file(config, 0, NULL);
    double tokens = 0, speed = 0;
    for (char *line = text; line && *line; ) {
        size_t n = strcspn(line, "\n");
        json_t *row = json_loadb(line, n, 0, NULL);
        if (row && json_object_get(row, "tokens_per_s")) speed = json_number_value(json_object_get(row, "tokens_per_s"));
        if (row) json_decref(row);
        line += n + (line[n] == '\n');
    }
    if (o) tokens = json_number_value(json_object_get(o, "batch")) * json_number_value(json_object_get(o, "accum")) * json_number_value(json_object_get(o, "window"));
    if (tokens > 0) *rate = speed * json_number_value(json_object_get(o, "flops_per_step")) / tokens;
    if (o) json_decref(o);
    free(config);
    free(log);
    free(text);
    return *rate > 0 ? 0 : cmd_fail("--like %s: no run with steps in its log is there", folder);
}

static int find_rate(PlanJob *j, const char **what) {
    *what = "given";
    if (j->rate > 0) return 0;
    *what = "reached by that run";
    if (j->like) return rate_of_run(j->like, &j->rate);
    *what = "the measured peak, which no run reaches";
    j->rate = 1e9 * sn_measure_device(j->device ? j->device : "host", j->passes.autocast ? SN_PEAK_BF16 : SN_PEAK_F32, (int)j->threads);
    return j->rate > 0 ? 0 : cmd_fail("the rate of %s cannot be measured; give --rate FLOPS", j->device);
}

/* -- What it says ---------------------------------------------------------------------------------------------------------- */

static const char *large(char out[32], double x) {
    static const char unit[] = " KMGTPEZY";
    int k = 0;
    while (x >= 999.5 && unit[k + 1]) x /= 1000, k++;
    snprintf(out, 32, k ? "%.3g %c" : "%.4g", x, unit[k]);
    return out;
}

static const char *time_of(char out[32], double s) {
    if (s < 120) snprintf(out, 32, "%.3g s", s);
    else if (s < 7200) snprintf(out, 32, "%.3g minutes", s / 60);
    else if (s < 2 * 86400) snprintf(out, 32, "%.3g hours", s / 3600);
    else snprintf(out, 32, "%.4g days", s / 86400);
    return out;
}

typedef struct Run { double per_step, tokens, steps, six, graph, six_step, graph_step; } Run;

static Run run_of(const PlanJob *j, const Taken *t) {
    Run r = { .per_step = t->rows * t->window * (double)j->accum, .tokens = j->tokens > 0 ? j->tokens : j->unique * j->epochs };
    r.six_step = 6 * (t->weights - t->idle) * r.per_step;
    r.graph_step = 3 * t->forward * (double)j->accum;
    r.steps = ceil(r.tokens / r.per_step);
    r.six = r.six_step * r.steps;
    r.graph = r.graph_step * r.steps;
    return r;
}

static void print_text(const PlanJob *j, const Taken *t, const Run *r, const char *what) {
    char a[32], b[32], c[32], d[32];
    double all = t->weight_bytes + t->state_bytes + t->arena_bytes;
    printf("%s: %s weights", j->file, large(a, t->weights));
    if (t->idle > 0) printf(", %s of them active", large(a, t->weights - t->idle));
    printf("; a step: %.0f x %.0f tokens, %d kernels\n", t->rows * (double)j->accum, t->window, t->groups);
    printf("memory: %sB = weights %sB, optimizer's states %sB, values of a step %sB\n", large(a, all), large(b, t->weight_bytes), large(c, t->state_bytes),
           large(d, t->arena_bytes));
    printf("a step: %sFLOP by 6ND, %sFLOP by the graph (attention counts all pairs)\n", large(a, r->six_step), large(b, r->graph_step));
    if (r->tokens > 0)
        printf("the run: %stokens, %s steps, %sFLOP by 6ND, %sFLOP by the graph\n", large(a, r->tokens), large(b, r->steps), large(c, r->six), large(d, r->graph));
    printf("time at %sFLOP/s (%s): %s a step", large(a, j->rate), what, time_of(b, r->graph_step / j->rate));
    if (r->tokens > 0) printf(", %s in all", time_of(c, r->graph / j->rate));
    printf("\n");
}

static void print_json(const PlanJob *j, const Taken *t, const Run *r, const char *what) {
    json_t *o = json_pack("{s:s s:f s:f s:f s:f s:f s:f s:f s:f s:f s:s s:f}", "model", j->file, "weights", t->weights, "active_weights", t->weights - t->idle,
                          "weight_bytes", t->weight_bytes, "state_bytes", t->state_bytes, "arena_bytes", t->arena_bytes, "tokens_per_step", r->per_step,
                          "flops_6nd_per_step", r->six_step, "flops_graph_per_step", r->graph_step, "rate", j->rate, "rate_is", what, "seconds_per_step",
                          r->graph_step / j->rate);
    if (r->tokens > 0) {
        json_object_set_new(o, "tokens", json_real(r->tokens));
        json_object_set_new(o, "steps", json_real(r->steps));
        json_object_set_new(o, "flops_6nd", json_real(r->six));
        json_object_set_new(o, "flops_graph", json_real(r->graph));
        json_object_set_new(o, "seconds", json_real(r->graph / j->rate));
    }
    char *line = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));
    printf("%s\n", line);
    free(line);
    json_decref(o);
}

int cmd_plan(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    PlanJob j = { .accum = 1 };
    const Opt opts[] = {
        { "define", 'D', OPT_LIST, &j.defines, "K=V", "a param or dim of the file: preset=1b" },
        { "accum", 0, OPT_INT, &j.accum, "K", "micro-steps per optimizer step (default 1)" },
        { "tokens", 0, OPT_NUM, &j.tokens, "N", "length of the run: 96e9" },
        { "unique", 0, OPT_NUM, &j.unique, "N", "or: unique tokens, and" },
        { "epochs", 0, OPT_NUM, &j.epochs, "N", "passes over them" },
        { "rate", 0, OPT_NUM, &j.rate, "F", "FLOP/s of the graph's count: 400e12" },
        { "like", 0, OPT_TEXT, &j.like, "DIR", "or: what the run in this folder reached" },
        { "device", 'd', OPT_TEXT, &j.device, "D", "or: the measured peak of this device (default: host)" },
        { "threads", 0, OPT_INT, &j.threads, "N", "for that; 0 = all cores" },
        PASS_OPTIONS(&j.passes),
        { "json", 0, OPT_FLAG, &j.json, "", "one JSON object instead" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_pass_options(self, &j.passes);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one model file");
    if (j.accum < 1) return cmd_usage(self, "--accum is at least 1");
    if (j.tokens < 0 || j.unique < 0 || j.epochs < 0 || j.rate < 0) return cmd_usage(self, "--tokens, --unique, --epochs and --rate are positive");
    if ((j.unique > 0) != (j.epochs > 0) || (j.unique > 0 && j.tokens > 0)) return cmd_usage(self, "give --tokens, or --unique and --epochs");
    j.file = pos.v[0];
    if (is_bundle(j.file)) return cmd_fail("%s is compiled already: `sinter print` says what it takes", j.file);
    Model m;
    Taken t = {0};
    const char *what = "";
    if ((rc = model_load(&m, j.file, NULL, &j.defines))) return rc;
    rc = measure(&j, &m, &t);
    if (!rc) rc = find_rate(&j, &what);
    Run r = run_of(&j, &t);
    if (!rc && j.json) print_json(&j, &t, &r, what);
    else if (!rc) print_text(&j, &t, &r, what);
    model_free(&m);
    return rc;
}
