/* program.c: a module to a program: passes, groups, plan, tile programs, kernels, code, launch lists.

   In:  the graphs of a module. Out: an SnProgram: plain data in one block of memory, ready to run or to be stored.

   Equal layers give tile programs that differ in names only. They are found twice: by the text of the tile program with its names
   neutralised, before any lowering, so that a layer is lowered once; and by the text of the kernel, so that programs which differ
   only in their grid share code. All unique kernels of all graphs are compiled as one batch.

     graph -> passes -> fuse -> plan -> group -> tile --text--> KernelDesc --text--> code
                                           |                        ^
                                           +--> launch: kernel, buffers */
#include "codegen/family.h"
#include "passes/pass.h"
#include "runtime/program.h"

_Static_assert((int)RANGE_ABOVE == (int)SN_ABOVE && (int)RANGE_BELOW == (int)SN_BELOW && (int)RANGE_WHOLE == (int)SN_WHOLE, "a range's bits are copied");

/* -- State of a build ---------------------------------------------------------------------------------- */

typedef struct KernelEntry {             /* one tile program, whatever its names */
    uint64_t hash[2];
    int code;                            /* index into Build.code */
    int uses;
    int64_t grid, scratch, shared;
    int threads;
    double flops, bytes;
    int nargs;
    const char *family, *label;
} KernelEntry;

typedef struct CodeEntry { uint64_t hash[2]; Kernel *kernel; } CodeEntry;

typedef struct StorageEntry { Sym name; const char *graph; SnStorage s; } StorageEntry;

typedef struct Build {
    sn_ctx *c;
    Arena arena;
    const BuildOptions *opt;
    BuildStats stats;
    Target target;
    Graph *live[2];                      /* the graph in work: after the passes, after fuse; freed on failure too */
    VEC(KernelEntry) kernels;
    VEC(CodeEntry) code;
    VEC(StorageEntry) storage;
    Layout *layout;                      /* which of them follow each other in memory */
    int64_t storage_align;               /* bytes that each of them is aligned to */
    VEC(SnGraphPlan) graphs;
    HashMap by_tile, by_code;            /* first half of the hash -> 1 + index */
    void *so;                            /* the compiled code, malloc'ed */
} Build;

/* -- Kernels ------------------------------------------------------------------------------------------------ */

static void hash_text(const StrBuf *b, uint64_t out[2]) {
    out[0] = snU_hash(b->s, b->n, 0);
    out[1] = snU_hash(b->s, b->n, 0x5eed);
}

/* The tile program with names that say nothing; labels go to the report only. */
static void hash_tile(Build *b, Tile *t, uint64_t out[2]) {
    StrBuf text = {0};
    t->name = snU_symz(b->c, "k");
    for (uint32_t i = 0; i < t->params.n; i++) t->params.v[i].name = snU_symf(b->c, "p%u", i);
    snT_print(&text, t);
    hash_text(&text, out);
    snU_free_buf(&text);
}

/* Index of the code for this kernel: an equal one, or a new one. */
static int intern_code(Build *b, Kernel *k) {
    CodeEntry e = { .kernel = k };
    StrBuf text = {0};
    k->name = snU_symz(b->c, "k");
    for (uint32_t i = 0; i < k->params.n; i++) k->params.v[i].name = snU_symf(b->c, "p%u", i);
    snK_print(&text, k);
    hash_text(&text, e.hash);
    snU_free_buf(&text);
    uint32_t v, at = snU_first(&b->by_code, e.hash[0]);
    while ((v = snU_at(&b->by_code, e.hash[0], &at)) != 0)
        if (b->code.v[v - 1].hash[1] == e.hash[1]) return (int)v - 1;
    PUSH(&b->arena, b->code, e);
    snU_insert(&b->arena, &b->by_code, e.hash[0], b->code.n);
    return (int)b->code.n - 1;
}

static int64_t grid_size(const Tile *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ngrid; i++) n *= t->grid[i];
    return n;
}

/* Index of the kernel for this tile program; lowers it when it is the first of its kind. */
static int intern_tile(Build *b, Tile *t, const char *label) {
    KernelEntry e = { .uses = 1, .grid = grid_size(t), .flops = t->flops, .bytes = t->bytes, .nargs = snT_nargs(t),
                      .family = t->family, .label = label };
    hash_tile(b, t, e.hash);
    uint32_t v, at = snU_first(&b->by_tile, e.hash[0]);
    while ((v = snU_at(&b->by_tile, e.hash[0], &at)) != 0) {
        if (b->kernels.v[v - 1].hash[1] != e.hash[1]) continue;
        b->kernels.v[v - 1].uses++;
        return (int)v - 1;
    }
    Kernel *k = snK_lower(b->c, &b->arena, t, &b->target);
    e.scratch = k->scratch, e.shared = k->shared, e.threads = k->threads;
    e.code = intern_code(b, k);
    PUSH(&b->arena, b->kernels, e);
    snU_insert(&b->arena, &b->by_tile, e.hash[0], b->kernels.n);
    return (int)b->kernels.n - 1;
}

/* out[i] = in[i]: n elements, a row tile per program. */
static Tile *copy_tile(Build *b, Dtype d, int64_t n) {
    int32_t width = n < 4096 ? (int32_t)n : 4096;
    Tile *t = snT_new(b->c, &b->arena, "copy", "copy");
    int in = snT_param(t, "in", d, n, false), out = snT_param(t, "out", d, n, true);
    t->ngrid = 1;
    t->grid[0] = (n + width - 1) / width;
    TVal base = snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, width));
    TVal valid = n % width ? snT_ix(t, T_isub, snT_idx(t, n), base) : 0;
    snT_store(t, out, base, snT_load(t, in, 1, width, base, width, 1, 0, valid), width, 1, 0, valid);
    t->bytes = 2.0 * (double)n * snG_dtype_size(d);
    return t;
}

/* -- Storage and buffers ------------------------------------------------------------------------------------- */

static SnTensorDesc describe(const Type *t, const char *name) {
    SnTensorDesc d = { name, t->dtype, t->rank, {0} };
    for (int i = 0; i < t->rank; i++) d.dim[i] = t->dim[i];
    return d;
}

static bool same_desc(const SnTensorDesc *a, const SnTensorDesc *b) {
    return a->dtype == b->dtype && a->rank == b->rank && !memcmp(a->dim, b->dim, sizeof a->dim[0] * a->rank);
}

static const char *type_text(Build *b, const SnTensorDesc *t) {
    StrBuf s = {0};
    snU_putf(&s, "%s[", snG_dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) snU_putf(&s, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    snU_puts(&s, "]");
    const char *text = snU_strdup(&b->arena, s.s, s.n);
    snU_free_buf(&s);
    return text;
}

/* One storage per name over all graphs. */
static int intern_storage(Build *b, const Graph *g, const char *graph, const Leaf *l) {
    const char *name = snU_str(b->c, l->name);
    bool is_state = snG_node(g, l->node)->op == OP_state;
    SnStorage s = { describe(snG_type(g, l->node), name), is_state, l->init, l->a, l->b };
    for (uint32_t i = 0; i < b->storage.n; i++) {
        const StorageEntry *e = &b->storage.v[i];
        if (e->name != l->name) continue;
        if (!same_desc(&e->s.t, &s.t))
            snU_fail(b->c, SN_TYPE, snG_node(g, l->node)->loc, "'%s' is %s in graph '%s' but %s in graph '%s'", name,
                     type_text(b, &s.t), graph, type_text(b, &e->s.t), e->graph);
        if (e->s.is_state != is_state)
            snU_fail(b->c, SN_TYPE, snG_node(g, l->node)->loc, "'%s' is a %s in graph '%s' but a %s in graph '%s'", name,
                     is_state ? "state" : "weight", graph, is_state ? "weight" : "state", e->graph);
        return (int)i;
    }
    StorageEntry e = { l->name, graph, s };
    PUSH(&b->arena, b->storage, e);
    return (int)b->storage.n - 1;
}

/* One graph on its way into the program. */
typedef struct GraphBuild {
    Build *b;
    Graph *g;
    const char *name;
    Plan plan;
    Arena *arena;                        /* of what a trace keeps: the trace's own */
    VEC(int) group_of;                   /* per launch */
    int32_t *buffer_of;                  /* per node: 1 + buffer */
    VEC(SnBuffer) buffers;
    VEC(SnLaunch) launches;
    VEC(SnOutput) outputs;
} GraphBuild;

/* The buffer behind a node in memory. A value that was written into its storage shares the leaf's buffer; one that is the storage
   of several leaves has a buffer of its own over them. */
static int32_t buffer_of(GraphBuild *gb, NodeId id) {
    const Place *pl = &gb->plan.place[id];
    if (pl->leaf && pl->leaf != id && pl->bytes == gb->plan.place[pl->leaf].bytes) return buffer_of(gb, pl->leaf);
    if (gb->buffer_of[id]) return gb->buffer_of[id] - 1;
    Build *b = gb->b;
    SN_ASSERT(pl->kind != P_NONE, "graph %s: %s is read but lives nowhere", gb->name, snG_node_name(gb->g, id));
    const Leaf *l = pl->leaf ? snG_leaf(gb->g, pl->leaf) : NULL;
    const char *name = l && pl->leaf == id ? snU_str(b->c, l->name) : snU_str(b->c, snG_node(gb->g, id)->name);
    SnBuffer buf = { .t = describe(snG_type(gb->g, id), name), .bytes = pl->bytes, .storage = -1 };
    buf.kind = pl->kind == P_ARENA ? SN_BUF_ARENA : pl->kind == P_INPUT ? SN_BUF_INPUT : SN_BUF_STORAGE;
    if (pl->kind == P_ARENA) buf.offset = pl->offset;
    if (pl->kind == P_STORAGE) buf.storage = intern_storage(b, gb->g, gb->name, l);
    if (pl->kind == P_INPUT && l->init == INIT_FULL) {
        buf.has_default = 1, buf.dflt = l->a;
        buf.range = l->range.bits, buf.lo = l->range.lo, buf.hi = l->range.hi;
    }
    PUSH(&b->arena, gb->buffers, buf);
    gb->buffer_of[id] = (int32_t)gb->buffers.n;
    return gb->buffer_of[id] - 1;
}

static void add_launch(GraphBuild *gb, int group, int kernel, const int32_t *args, int n) {
    PUSH(gb->arena, gb->group_of, group);
    SnLaunch l = { kernel, n, snU_copy(&gb->b->arena, args, sizeof *args * (size_t)n) };
    PUSH(&gb->b->arena, gb->launches, l);
}

/* Bytes that the address of a buffer is a multiple of. */
static int32_t alignment_of(const Build *b, const SnBuffer *buf) {
    int64_t all = 64 | buf->offset | (buf->kind == SN_BUF_STORAGE ? b->storage_align : 0);
    return (int32_t)(all & -all);
}

/* Storage lies one behind the other where an optimizer updates it as one; how, is known only after the last graph. Any order of
   sizes that this divides is aligned to it. */
static int64_t storage_alignment(const Module *m) {
    int64_t all = 64;
    for (uint32_t i = 0; i < m->graphs.n; i++) {
        const Graph *g = m->graphs.v[i];
        for (uint32_t k = 0; k < g->leaves.n; k++) {
            const Type *t = snG_type(g, g->leaves.v[k].node);
            int op = snG_node(g, g->leaves.v[k].node)->op;
            if (op == OP_weight || (op == OP_state && t->rank)) all |= snG_count(t) * snG_dtype_size((Dtype)t->dtype);
        }
    }
    return all & -all;
}

/* -- One graph ----------------------------------------------------------------------------------------------------- */

static void add_group(GraphBuild *gb, const Group *grp) {
    Build *b = gb->b;
    int group = (int)snG_node(gb->g, grp->anchor)->group - 1;
    const char *label = snU_fmt(&b->arena, "%s", snG_node_name(gb->g, grp->anchor));
    GroupTiles tiles = snK_group_tiles(gb->g, grp, &b->target, &b->arena);
    for (uint32_t i = 0; i < tiles.v.n; i++) {
        const GroupTile *gt = &tiles.v.v[i];
        const Tile *t = gt->tile;
        SN_ASSERT(gt->args.n == t->params.n, "%s: %u nodes for %u params", label, gt->args.n, t->params.n);
        int32_t *args = NEWN(&b->arena, int32_t, gt->args.n), n = 0;
        for (uint32_t k = 0; k < gt->args.n; k++) {
            if (t->params.v[k].local) continue;
            args[n] = buffer_of(gb, gt->args.v[k]);
            if (b->target.gpu) gt->tile->params.v[k].align = alignment_of(b, &gb->buffers.v[args[n]]);
            n++;
        }
        add_launch(gb, group, intern_tile(b, gt->tile, label), args, n);
    }
}

/* A temporary of the plan's copies. */
static int32_t temp_buffer(GraphBuild *gb, NodeId like, int64_t offset) {
    SnBuffer buf = { .kind = SN_BUF_ARENA, .t = describe(snG_type(gb->g, like), ""), .bytes = gb->plan.place[like].bytes,
                     .offset = offset, .storage = -1 };
    PUSH(&gb->b->arena, gb->buffers, buf);
    return (int32_t)gb->buffers.n - 1;
}

/* As many elements of `from` as the leaf has, from byte `at` on. */
static int32_t copy_source(GraphBuild *gb, const Copy *c) {
    int32_t whole = buffer_of(gb, c->from);
    if (!c->to_leaf || gb->plan.place[c->from].bytes == gb->plan.place[c->to_leaf].bytes) return whole;
    SnBuffer buf = gb->buffers.v[whole];
    buf.t = describe(snG_type(gb->g, c->to_leaf), "");
    buf.bytes = gb->plan.place[c->to_leaf].bytes;
    buf.offset += c->at;
    PUSH(&gb->b->arena, gb->buffers, buf);
    return (int32_t)gb->buffers.n - 1;
}

static void add_copies(GraphBuild *gb) {
    for (uint32_t i = 0; i < gb->plan.copies.n; i++) {
        Copy c = gb->plan.copies.v[i];
        NodeId like = c.to_leaf ? c.to_leaf : c.from;
        const Type *t = snG_type(gb->g, like);
        int32_t args[2];
        args[0] = c.from ? copy_source(gb, &c) : temp_buffer(gb, like, c.temp - 1);
        args[1] = c.to_leaf ? buffer_of(gb, c.to_leaf) : temp_buffer(gb, like, c.temp - 1);
        const char *label = snU_fmt(&gb->b->arena, "copy %s", snG_node_name(gb->g, c.to_leaf ? c.to_leaf : c.from));
        add_launch(gb, -1, intern_tile(gb->b, copy_tile(gb->b, t->dtype, snG_count(t)), label), args, 2);
    }
}

static void finish_graph(GraphBuild *gb) {
    Build *b = gb->b;
    for (uint32_t i = 0; i < gb->g->outputs.n; i++) {
        Output o = gb->g->outputs.v[i];
        SnOutput out = { snU_str(b->c, o.name), buffer_of(gb, o.node) };
        PUSH(&b->arena, gb->outputs, out);
    }
    SnGraphPlan p = { gb->name, (int)gb->buffers.n, (int)gb->launches.n, (int)gb->outputs.n, gb->buffers.v, gb->launches.v,
                      gb->outputs.v, gb->plan.arena_bytes, gb->plan.live_peak };
    PUSH(&b->arena, b->graphs, p);
}

static void keep_graph(BuildTrace *t, GraphBuild *gb, Groups groups) {
    BuiltGraph kept = { snU_strdup(&t->arena, gb->name, strlen(gb->name)), gb->g, groups, { 0 }, gb->buffer_of };
    kept.group_of.v = gb->group_of.v, kept.group_of.n = gb->group_of.n;
    PUSH(&t->arena, t->graphs, kept);
}

void snK_free_trace(BuildTrace *t) {
    for (uint32_t i = 0; i < t->graphs.n; i++) snG_free(t->graphs.v[i].g);
    snU_free_arena(&t->arena);
    *t = (BuildTrace){ 0 };
}

/* Passes `order`, fuse, plan, kernels, launches: one graph of the program under the name `name`. */
static void build_graph(Build *b, const Graph *source, const char *name, const char *order) {
    Groups groups;
    Arena *arena = b->opt->trace ? &b->opt->trace->arena : &b->arena;
    FuseOptions fo = { snP_without(b->c, b->opt->fuse), b->layout, &groups, arena };
    PassOptions po = { .fuse = b->opt->fuse, .keep = snP_kept(fo.without), .autocast = b->opt->autocast, .recompute = b->opt->recompute };
    double t0 = snU_now();
    b->live[0] = snP_run(b->c, source, &po, order);
    double t1 = snU_now();
    b->live[1] = snP_fuse(b->live[0], &fo);
    GraphBuild gb = { b, b->live[1], name };
    gb.arena = arena;
    gb.plan = snP_plan(gb.g, &groups, &b->arena);
    gb.buffer_of = NEWN(gb.arena, int32_t, gb.g->nodes.n);
    double t2 = snU_now();
    for (uint32_t i = 0; i < gb.g->leaves.n; i++) buffer_of(&gb, gb.g->leaves.v[i].node);
    for (uint32_t i = 0; i < groups.group.n; i++)
        if (groups.group.v[i].kind != G_PLACE) add_group(&gb, &groups.group.v[i]);
    add_copies(&gb);
    finish_graph(&gb);
    if (!strcmp(name, "train")) b->stats.train_s = t2 - t0;
    b->stats.passes_s += t1 - t0;
    b->stats.plan_s += t2 - t1;
    b->stats.lower_s += snU_now() - t2;
    b->stats.nodes += (int)gb.g->nodes.n - 1;
    b->stats.groups += (int)groups.group.n;
    b->stats.kernels += (int)gb.launches.n;
    if (gb.plan.arena_bytes > b->stats.arena_bytes) b->stats.arena_bytes = gb.plan.arena_bytes;
    if (gb.plan.live_peak > b->stats.live_peak) b->stats.live_peak = gb.plan.live_peak;
    if (b->opt->trace) keep_graph(b->opt->trace, &gb, groups), b->live[1] = NULL;
    for (int i = 0; i < 2; i++) if (b->live[i]) snG_free(b->live[i]), b->live[i] = NULL;
}

static void build_graphs(Build *b, const Module *m) {
    b->storage_align = storage_alignment(m);
    for (uint32_t i = 0; i < m->graphs.n; i++) {
        const Graph *g = m->graphs.v[i];
        const char *name = snU_str(b->c, g->name);
        if (!b->opt->train || strcmp(name, "train") != 0) {
            build_graph(b, g, name, b->opt->order ? b->opt->order : SNP_ORDER_INFER);
            continue;
        }
        build_graph(b, g, "train", SNP_ORDER_TRAIN);
        build_graph(b, g, "accum", SNP_ORDER_ACCUM);
        build_graph(b, g, "apply", SNP_ORDER_APPLY);
    }
}

/* -- Code and the program itself -------------------------------------------------------------------------------- */

static bool is_timeless(const Kernel *k) {
    for (uint32_t i = 1; i < k->ins.n; i++)
        if (k->ins.v[i].op == K_sysarg) return false;
    return true;
}

static void compile_code(Build *b, SnProgram *p) {
    double t0 = snU_now();
    int n = (int)b->code.n;
    const Kernel **k = NEWN(&b->arena, const Kernel *, n + 1);
    const char **symbols = NEWN(&b->arena, const char *, n + 1);
    void *so = NULL;
    for (int i = 0; i < n; i++) k[i] = b->code.v[i].kernel;
    if (n) snK_compile(b->c, k, n, &b->target, b->opt->threads, &so, &p->code_bytes, symbols, &b->arena);
    b->so = so;
    p->code = so;
    p->nkernels = (int)b->kernels.n;
    p->kernels = NEWN(&b->arena, SnKernelDesc, p->nkernels + 1);
    for (int i = 0; i < p->nkernels; i++) {
        const KernelEntry *e = &b->kernels.v[i];
        p->kernels[i] = (SnKernelDesc){ symbols[e->code], e->family, e->label, e->grid, e->scratch, e->flops, e->bytes, e->nargs,
                                          e->threads, e->shared, is_timeless(k[e->code]) };
    }
    b->stats.unique_kernels = n;
    b->stats.compile_s = snU_now() - t0;
}

/* Storage that the layout puts behind another's. */
static void fill_storage(Build *b, SnProgram *p) {
    p->nstorage = (int)b->storage.n;
    p->storage = NEWN(&b->arena, SnStorage, p->nstorage + 1);
    HashMap of = {0};
    for (uint32_t i = 0; i < b->storage.n; i++) snU_insert(&b->arena, &of, b->storage.v[i].name, i + 1);
    for (int i = 0; i < p->nstorage; i++) {
        p->storage[i] = b->storage.v[i].s;
        Sym first = snP_layout_find(b->layout, b->storage.v[i].name, &p->storage[i].offset);
        if (first != b->storage.v[i].name) p->storage[i].inside = (int32_t)snU_find(&of, first);
    }
}

static void fill_program(Build *b, const Module *m, SnProgram *p) {
    p->target = b->target.name;
    fill_storage(b, p);
    p->ngraphs = (int)b->graphs.n;
    p->graphs = b->graphs.v;
    p->nparams = (int)m->params.n;
    p->params = NEWN(&b->arena, SnParam, p->nparams + 1);
    for (int i = 0; i < p->nparams; i++) p->params[i] = (SnParam){ m->params.v[i].name, m->params.v[i].value };
}

/* The program and everything behind it into one block. Run twice: without a block, it copies into the arena and counts bytes;
   then it fills the block. */
typedef struct Packer { Arena *arena; char *block; size_t used; } Packer;

static void *put(Packer *k, const void *from, size_t bytes) {
    size_t at = k->used;
    k->used += (bytes + 15) & ~(size_t)15;
    void *to = k->block ? k->block + at : snU_alloc(k->arena, bytes + 1);
    return bytes ? memcpy(to, from, bytes) : to;
}

static const char *put_text(Packer *k, const char *s) { return put(k, s ? s : "", strlen(s ? s : "") + 1); }

static void put_graph(Packer *k, SnGraphPlan *g) {
    g->name = put_text(k, g->name);
    g->buffers = put(k, g->buffers, sizeof *g->buffers * (size_t)g->nbuffers);
    for (int i = 0; i < g->nbuffers; i++) g->buffers[i].t.name = put_text(k, g->buffers[i].t.name);
    g->launches = put(k, g->launches, sizeof *g->launches * (size_t)g->nlaunches);
    for (int i = 0; i < g->nlaunches; i++) {
        SnLaunch *l = &g->launches[i];
        l->args = put(k, l->args, sizeof *l->args * (size_t)l->nargs);
    }
    g->outputs = put(k, g->outputs, sizeof *g->outputs * (size_t)g->noutputs);
    for (int i = 0; i < g->noutputs; i++) g->outputs[i].name = put_text(k, g->outputs[i].name);
}

static SnProgram *put_program(Packer *k, const SnProgram *from) {
    SnProgram *p = put(k, from, sizeof *from);
    p->target = put_text(k, p->target);
    p->kernels = put(k, p->kernels, sizeof *p->kernels * (size_t)p->nkernels);
    for (int i = 0; i < p->nkernels; i++) {
        p->kernels[i].symbol = put_text(k, p->kernels[i].symbol);
        p->kernels[i].family = put_text(k, p->kernels[i].family);
        p->kernels[i].label = put_text(k, p->kernels[i].label);
    }
    p->storage = put(k, p->storage, sizeof *p->storage * (size_t)p->nstorage);
    for (int i = 0; i < p->nstorage; i++) p->storage[i].t.name = put_text(k, p->storage[i].t.name);
    p->graphs = put(k, p->graphs, sizeof *p->graphs * (size_t)p->ngraphs);
    for (int i = 0; i < p->ngraphs; i++) put_graph(k, &p->graphs[i]);
    p->params = put(k, p->params, sizeof *p->params * (size_t)p->nparams);
    for (int i = 0; i < p->nparams; i++) {
        p->params[i].name = put_text(k, p->params[i].name);
        p->params[i].value = put_text(k, p->params[i].value);
    }
    p->code = put(k, p->code, p->code_bytes);
    return p;
}

static SnProgram *pack_program(Build *b, const SnProgram *p) {
    Packer measure = { &b->arena, NULL, 0 };
    put_program(&measure, p);
    char *block = calloc(1, measure.used);
    if (!block) snU_fail(b->c, SN_NOMEM, 0, "out of memory: %zu bytes for the program", measure.used);
    SnProgram *out = put_program(&(Packer){ &b->arena, block, 0 }, p);
    out->memory = block;
    return out;
}

/* -- Hash: text of everything, so that neither padding nor addresses enter it ------------------------------------- */

static void hash_desc(StrBuf *s, const SnTensorDesc *t) {
    snU_putf(s, " %s:%d", t->name, t->dtype);
    for (int i = 0; i < t->rank; i++) snU_putf(s, ",%lld", (long long)t->dim[i]);
}

static void hash_graph(StrBuf *s, const SnGraphPlan *g) {
    snU_putf(s, "graph %s arena %lld %lld\n", g->name, (long long)g->arena_bytes, (long long)g->live_peak);
    for (int i = 0; i < g->nbuffers; i++) {
        const SnBuffer *u = &g->buffers[i];
        snU_putf(s, "buffer %d", u->kind);
        hash_desc(s, &u->t);
        snU_putf(s, " %lld %lld %d %d %a", (long long)u->bytes, (long long)u->offset, u->storage, u->has_default, u->dflt);
        if (u->range) snU_putf(s, " %d %a %a", u->range, u->lo, u->hi);
        snU_puts(s, "\n");
    }
    for (int i = 0; i < g->nlaunches; i++) {
        snU_putf(s, "launch %d", g->launches[i].kernel);
        for (int k = 0; k < g->launches[i].nargs; k++) snU_putf(s, " %d", g->launches[i].args[k]);
        snU_puts(s, "\n");
    }
    for (int i = 0; i < g->noutputs; i++) snU_putf(s, "output %s %d\n", g->outputs[i].name, g->outputs[i].buffer);
}

static uint64_t hash_program(const SnProgram *p) {
    StrBuf s = {0};
    snU_putf(&s, "target %s\n", p->target);
    for (int i = 0; i < p->nkernels; i++) {
        const SnKernelDesc *k = &p->kernels[i];
        snU_putf(&s, "kernel %s %s %s %lld %lld %a %a %d %d %lld\n", k->symbol, k->family, k->label, (long long)k->grid,
                 (long long)k->scratch_bytes, k->flops, k->bytes, k->nargs, k->threads, (long long)k->shared_bytes);
    }
    for (int i = 0; i < p->nstorage; i++) {
        snU_putf(&s, "storage %d %d %a %a %d %lld", p->storage[i].is_state, p->storage[i].init, p->storage[i].a, p->storage[i].b,
                 p->storage[i].inside, (long long)p->storage[i].offset);
        hash_desc(&s, &p->storage[i].t);
        snU_puts(&s, "\n");
    }
    for (int i = 0; i < p->ngraphs; i++) hash_graph(&s, &p->graphs[i]);
    for (int i = 0; i < p->nparams; i++) snU_putf(&s, "param %s %s\n", p->params[i].name, p->params[i].value);
    uint64_t code = snU_hash(p->code ? p->code : "", p->code_bytes, 0), h = snU_hash(s.s, s.n, code);
    snU_free_buf(&s);
    return h;
}

/* -- Report ---------------------------------------------------------------------------------------------------------- */

static void report(const Build *b) {
    const BuildStats *s = &b->stats;
    fprintf(stderr, "%-36s %-8s %5s %8s %9s %9s %9s\n", "kernel", "family", "uses", "grid", "scratch", "Mflop", "MB");
    for (uint32_t i = 0; i < b->kernels.n; i++) {
        const KernelEntry *e = &b->kernels.v[i];
        fprintf(stderr, "%-36s %-8s %5d %8lld %9lld %9.2f %9.3f\n", e->label, e->family, e->uses, (long long)e->grid,
                (long long)e->scratch, e->flops * 1e-6, e->bytes * 1e-6);
    }
    for (uint32_t i = 0; i < b->graphs.n; i++) {
        const SnGraphPlan *g = &b->graphs.v[i];
        fprintf(stderr, "graph %s: %d launches, arena %.2f MB, %.3f of the largest live set\n", g->name, g->nlaunches,
                (double)g->arena_bytes * 1e-6, g->live_peak ? (double)g->arena_bytes / (double)g->live_peak : 1.0);
    }
    fprintf(stderr, "%d nodes, %d groups, %d launches of %u kernels, %d compiled; "
                    "passes %.1f ms, plan %.1f ms, lower %.1f ms, compile %.1f ms\n",
            s->nodes, s->groups, s->kernels, b->kernels.n, s->unique_kernels, s->passes_s * 1e3, s->plan_s * 1e3,
            s->lower_s * 1e3, s->compile_s * 1e3);
}

/* -- Entry ------------------------------------------------------------------------------------------------------------- */

static void free_build(Build *b) {
    for (int i = 0; i < 2; i++)
        if (b->live[i]) snG_free(b->live[i]);
    free(b->so);
    snU_free_arena(&b->arena);
    free(b);
}

static SnProgram *build_program(Build *b, Module *m) {
    SnProgram p = {0};
    snK_target(b->c, b->opt->target ? b->opt->target : "host", &b->target);
    snK_ask_tf32(&b->target, b->opt->autocast);
    if (b->opt->sched) snK_sched_override(b->c, &b->target, b->opt->sched);
    build_graphs(b, m);
    fill_program(b, m, &p);
    compile_code(b, &p);
    p.hash = hash_program(&p);
    if (b->opt->verbose) report(b);
    return pack_program(b, &p);
}

struct SnProgram *snK_build(Module *m, const BuildOptions *o, BuildStats *stats) {
    sn_ctx *c = m->ctx;
    Build *b = calloc(1, sizeof *b);
    SN_ASSERT(b, "out of memory");
    b->c = c;
    b->opt = o;
    b->layout = snP_layout(&b->arena);
    SN_ENTER(c, { free_build(b); return NULL; });
    SnProgram *p = build_program(b, m);
    SN_LEAVE(c);
    if (stats) *stats = b->stats;
    free_build(b);
    return p;
}
