/* bench_predict.c: `sinter bench M.sn --predict CARD`: how long a step would take on a card that is not here, kernel by kernel.

   In:  a model and a card's name. Out: per kernel its work, what it takes of a multiprocessor, what bounds it, the predicted time beside its
   floor; of the step the sums, tokens/s. The model is codegen/card.c's. Registers are ptxas's where it is installed; else they bound nothing.
   Nothing runs. A kernel of rows that are counted on the device (a masked loss) is taken by --counted of its rows, and marked with <. */
#include "codegen/card.h"
#include "codegen/flops.h"
#include "runtime/program.h"
#include "tools/bench.h"

typedef struct Row {
    const char *name, *family, *dir;
    Work work;                       /* of the first launch */
    Prediction p;
    double seconds, floor, flops, bytes;     /* of all launches */
    int launches, spills;
    bool counted;
} Row;

typedef struct Job {
    const BenchOptions *o;
    const Card *card;
    Model m;
    BuildTrace trace;
    SnProgram *p;
    const SnGraphPlan *g;
    const BuiltGraph *built;
    PtxasKernel *ptxas;              /* NULL: there is none */
    Row *row;                        /* kernels of equal work and launch are one */
    int rows;
    double seconds, floor, flops, bytes;
    int64_t tokens;                  /* 0: the graph has none */
} Job;

/* -- Building ------------------------------------------------------------------------------------------------------------ */

/* The graph `train` as a step; of a file without one, its first graph as it is. */
static int build(Job *j) {
    const BenchOptions *o = j->o;
    int rc = model_load(&j->m, o->file, NULL, &o->defines);
    if (rc) return rc;
    bool train = snG_get(j->m.m, "train") != NULL;
    if (train) lab_choose_graphs(j->m.m, "train");
    BuildOptions bo = { .target = o->target ? o->target : j->card->target, .train = train, .trace = &j->trace, .fuse = o->fuse, .threads = (int)o->threads,
                        .autocast = o->passes.autocast, .recompute = o->passes.recompute, .sched = o->sched };
    if (strncmp(bo.target, "ptx:", 4)) return cmd_fail("--predict: a card runs ptx:sm_NN, not %s", bo.target);
    if (!(j->p = snK_build(j->m.m, &bo, NULL))) return model_error(j->m.c);
    j->g = &j->p->graphs[0], j->built = &j->trace.graphs.v[0];
    for (int i = 0; train && i < j->p->ngraphs; i++)
        if (!strcmp(j->p->graphs[i].name, "train")) j->g = &j->p->graphs[i];
    for (uint32_t i = 0; i < j->trace.graphs.n; i++)
        if (!strcmp(j->trace.graphs.v[i].name, j->g->name)) j->built = &j->trace.graphs.v[i];
    return 0;
}

static int read_registers(Job *j) {
    char err[512];
    void *cubin = NULL;
    size_t bytes;
    j->ptxas = calloc((size_t)j->p->nkernels + 1, sizeof *j->ptxas);
    int code = j->ptxas ? snK_ptxas(j->m.c, j->p, j->ptxas, &cubin, &bytes, err) : 0;
    free(cubin);
    if (!code) return 0;
    free(j->ptxas);
    j->ptxas = NULL;
    if (code != SN_UNSUPPORTED) return cmd_fail("%s", err);
    fprintf(stderr, "registers are not known: %s\n", err);
    return 0;
}

/* -- Predicting ---------------------------------------------------------------------------------------------------------- */

static Work work_of(const Job *j, int launch, const char *ptx) {
    int id = j->g->launches[launch].kernel, k = j->built->group_of.v[launch];
    const SnKernelDesc *d = &j->p->kernels[id];
    const Group *grp = k >= 0 ? &j->built->groups.group.v[k] : NULL;
    const Graph *g = j->built->g;
    bool first = grp && (!launch || j->built->group_of.v[launch - 1] != k);
    Work w = { .products = d->flops, .bytes = d->bytes, .grid = d->grid, .threads = d->threads, .shared = d->shared_bytes };
    if (grp && grp->kind == G_ATTENTION) w.products *= snK_visited_share(g, grp);
    if (first) w.elementwise = snK_ewise_flops(g, grp);
    if (j->ptxas) w.registers = j->ptxas[id].registers, w.shared += j->ptxas[id].shared;
    if (d->flops > 0) w.loop = snK_product_loop(ptx, d->symbol);
    return w;
}

static bool same_work(const Work *a, const Work *b) {
    return a->products == b->products && a->elementwise == b->elementwise && a->bytes == b->bytes && a->grid == b->grid && a->shared == b->shared &&
           a->threads == b->threads && a->registers == b->registers && a->loop.instructions == b->loop.instructions && a->loop.products == b->loop.products;
}

static Row *row_for(Job *j, const Row *like) {
    for (int i = 0; i < j->rows; i++) {
        Row *r = &j->row[i];
        if (!strcmp(r->family, like->family) && !strcmp(r->dir, like->dir) && r->counted == like->counted && same_work(&r->work, &like->work)) return r;
    }
    j->row[j->rows] = *like;
    return &j->row[j->rows++];
}

static void add_launch(Job *j, int launch, const char *ptx) {
    int id = j->g->launches[launch].kernel, k = j->built->group_of.v[launch];
    const SnKernelDesc *d = &j->p->kernels[id];
    const Graph *g = j->built->g;
    NodeId anchor = k >= 0 ? j->built->groups.group.v[k].anchor : 0;
    Work w = work_of(j, launch, ptx);
    bool counted = anchor && snG_node(g, anchor)->op == OP_matmul_some;
    if (counted && j->o->counted > 0) w.products *= j->o->counted, w.elementwise *= j->o->counted;
    Prediction p = snK_predict(j->card, &w);
    Row *r = row_for(j, &(Row){ .name = d->label, .family = d->family, .dir = anchor ? node_direction(g, anchor) : "optim", .work = w, .p = p, .counted = counted,
                                .spills = j->ptxas ? j->ptxas[id].spill_stores + j->ptxas[id].spill_loads : 0 });
    r->launches++;
    r->seconds += p.seconds, r->floor += p.floor, r->flops += w.products + w.elementwise, r->bytes += w.bytes;
    j->seconds += p.seconds, j->floor += p.floor, j->flops += w.products + w.elementwise, j->bytes += w.bytes;
}

static int predict(Job *j) {
    char *ptx = strndup(j->p->code, j->p->code_bytes);
    j->row = calloc((size_t)j->g->nlaunches + 1, sizeof *j->row);
    if (!ptx || !j->row) abort();
    for (int i = 0; i < j->g->nlaunches; i++) add_launch(j, i, ptx);
    free(ptx);
    const SnBuffer *b = lab_input(j->g, "tokens");
    j->tokens = b && b->t.rank == 2 ? b->t.dim[0] * b->t.dim[1] : 0;
    for (int i = 0; i < j->rows; i++)
        if (!j->row[i].p.resident)
            return cmd_fail("%s does not fit a multiprocessor of %s: %d threads, %lld bytes of shared memory, %d registers a thread", j->row[i].name, j->card->name,
                            j->row[i].work.threads, (long long)j->row[i].work.shared, j->row[i].work.registers);
    return 0;
}

/* -- Reporting ----------------------------------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b) {
    const Row *x = a, *y = b;
    return x->seconds != y->seconds ? (x->seconds < y->seconds) - (x->seconds > y->seconds) : strcmp(x->name, y->name);
}

static void put_json(const Job *j, const Row *r) {
    bench_row(json_pack("{s:s s:s s:s s:s s:s s:i s:f s:f s:I s:i s:I s:i s:i s:i s:f s:f s:s s:b s:f s:f s:f}", "kind", "prediction", "name", r->name, "family",
                        r->family, "dir", r->dir, "card", j->card->name, "launches", r->launches, "gflop", r->flops * 1e-9, "mbytes", r->bytes * 1e-6, "grid",
                        (json_int_t)r->work.grid, "threads", r->work.threads, "shared_bytes", (json_int_t)r->work.shared, "registers", r->work.registers,
                        "spill_bytes", r->spills, "blocks", r->p.resident, "occupancy", r->p.occupancy, "waves", r->p.waves, "bound", snK_bound_name(r->p.bound),
                        "counted", r->counted, "ms", r->seconds * 1e3, "floor_ms", r->floor * 1e3, "ratio", r->seconds > 0 ? r->floor / r->seconds : 0));
}

static void put_line(const char *name, const char *family, const char *dir, int launches, double flops, double bytes, bool counted, double seconds, double floor) {
    printf("%-34.34s %-8.8s %-5s %4d %s%9.2f %9.1f %9.3f %9.3f %6.2f", name, family, dir, launches, counted ? "<" : " ", flops * 1e-9, bytes * 1e-6, seconds * 1e3,
           floor * 1e3, seconds > 0 ? floor / seconds : 0);
}

static void put_row(const Row *r) {
    put_line(r->name, r->family, r->dir, r->launches, r->flops, r->bytes, r->counted, r->seconds, r->floor);
    printf("  %-8s %7lld %7d %9lld %5d %6d %6.2f %8.2f\n", snK_bound_name(r->p.bound), (long long)r->work.grid, r->work.threads, (long long)r->work.shared,
           r->work.registers, r->p.resident, r->p.occupancy, r->p.waves);
}

static void put_total(const Job *j) {
    double ms = j->seconds * 1e3, floor = j->floor * 1e3;
    if (j->o->json) {
        bench_row(json_pack("{s:s s:s s:s s:s s:s s:i s:f s:f s:f s:f s:f s:f s:f}", "kind", "predicted_step", "name", j->o->file, "card", j->card->name, "target",
                            j->p->target, "dtype", bench_dtype(j->o), "launches", j->g->nlaunches, "gflop", j->flops * 1e-9, "mbytes", j->bytes * 1e-6, "ms", ms,
                            "floor_ms", floor, "ratio", floor / ms, "tokens_per_s", (double)j->tokens / j->seconds, "floor_tokens_per_s", (double)j->tokens / j->floor));
        return;
    }
    printf("\n%s on %s (%s), %s: %d launches, %.1f GFLOP, %.1f GB\npredicted %.2f ms, floor %.2f ms (%.2f)\n", j->o->file, j->card->what, j->p->target,
           bench_dtype(j->o), j->g->nlaunches, j->flops * 1e-9, j->bytes * 1e-9, ms, floor, floor / ms);
    if (j->tokens) printf("%.0f tokens/s predicted, %.0f at the floor\n", (double)j->tokens / j->seconds, (double)j->tokens / j->floor);
}

static void report(Job *j) {
    Row rest = { 0 };
    qsort(j->row, (size_t)j->rows, sizeof *j->row, by_time);
    if (!j->o->json)
        printf("%-34s %-8s %-5s %4s %10s %9s %9s %9s %6s  %-8s %7s %7s %9s %5s %6s %6s %8s\n", "kernel", "family", "dir", "uses", "GFLOP", "MB", "ms", "floor, ms", "ratio",
               "bound", "blocks", "threads", "shared, B", "regs", "at once", "occup.", "waves");
    for (int i = 0; i < j->rows; i++) {
        const Row *r = &j->row[i];
        if (j->o->json) put_json(j, r);
        else if (i < j->o->top) put_row(r);
        else rest.launches += r->launches, rest.seconds += r->seconds, rest.floor += r->floor, rest.flops += r->flops, rest.bytes += r->bytes;
    }
    if (rest.launches) put_line("the others", "", "", rest.launches, rest.flops, rest.bytes, false, rest.seconds, rest.floor), printf("\n");
    put_total(j);
}

int bench_predict(const BenchOptions *o) {
    Job j = { .o = o, .card = snK_card(o->predict) };
    if (!j.card) return cmd_fail("--predict knows %s, not '%s'", snK_card_names(), o->predict);
    int rc = build(&j);
    if (!rc) rc = read_registers(&j);
    if (!rc) rc = predict(&j);
    if (!rc) report(&j);
    snK_free_trace(&j.trace);
    if (j.p) snR_program_free(j.p);
    free(j.ptxas);
    free(j.row);
    model_free(&j.m);
    return rc;
}
