/* cmd_run.c: `sinter run`: one graph, once, on the host or in the reference evaluator.

   In:  a graph, tensor files, settings. Out: a tensor file with the outputs and the new values of updated weights and states. */
#include "codegen/family.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "tools/generate.h"
#include "tools/tensors.h"
#include "tools/verify.h"

typedef struct RunJob {
    const char *file, *graph, *out, *device, *passes, *fuse;
    int64_t seed, step, threads;
    PassOptions po;
    Settings set;
    Tensors in;
    Model m;
    Graph *g;                        /* after replacement and passes */
    VEC(sn_tensor) result;
    Arena arena;
} RunJob;

static void keep(RunJob *j, const char *name, const Type *t, void *data) {
    sn_tensor r = { .name = name, .dtype = t->dtype, .rank = t->rank, .data = data,
                    .bytes = (size_t)(snG_count(t) * snG_dtype_size(t->dtype)) };
    for (int i = 0; i < t->rank; i++) r.dim[i] = t->dim[i];
    PUSH(&j->arena, j->result, r);
}

static const char *leaf_name(const Graph *g, NodeId id) { return snU_str(g->ctx, snG_leaf(g, id)->name); }

/* -- Evaluator ------------------------------------------------------------------------------------------------ */

static void keep_value(RunJob *j, const char *name, NodeId id, const EvalVal *vals) {
    const Type *t = snG_type(j->g, id);
    void *data = snU_alloc(&j->arena, (size_t)(snG_count(t) * snG_dtype_size(t->dtype)) + 1);
    snV_pack(t->dtype, vals[id].v, snG_count(t), data);
    keep(j, name, t, data);
}

static bool settings_fit(const RunJob *j) {
    for (uint32_t i = 0; i < j->g->leaves.n; i++)
        for (int k = 0; k < j->set.n; k++) {
            const Leaf *l = &j->g->leaves.v[i];
            if (strcmp(leaf_name(j->g, l->node), j->set.v[k].name)) continue;
            if (!setting_fits(&j->set.v[k], &l->range, (Dtype)snG_type(j->g, l->node)->dtype)) return false;
        }
    return true;
}

static int run_eval(RunJob *j) {
    const Graph *g = j->g;
    int n = (int)j->in.t.n + j->set.n;
    const char **names = NEWN(&j->arena, const char *, n + 1);
    EvalVal *vals = NEWN(&j->arena, EvalVal, n + 1);
    n = 0;
    if (!settings_fit(j)) return EXIT_FAILED;
    for (int i = 0; i < j->set.n; i++, n++) names[n] = j->set.v[i].name, vals[n] = (EvalVal){ &j->set.v[i].value, 1 };
    for (uint32_t i = 0; i < j->in.t.n; i++, n++) names[n] = j->in.t.v[i].name, vals[n] = j->in.t.v[i].val;
    EvalEnv env = { names, vals, n, (uint64_t)j->seed, (uint32_t)j->step, 0 };
    EvalVal *node = NEWN(&j->arena, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, &env, &j->arena, node);
    for (uint32_t i = 0; i < g->outputs.n; i++) keep_value(j, snU_str(g->ctx, g->outputs.v[i].name), g->outputs.v[i].node, node);
    for (uint32_t i = 0; i < g->updates.n; i++) keep_value(j, leaf_name(g, g->updates.v[i].target), g->updates.v[i].value, node);
    return 0;
}

/* -- Host ------------------------------------------------------------------------------------------------------ */

static int feed(RunJob *j, sn_session *s, const char *graph) {
    const Graph *g = j->g;
    for (uint32_t i = 0; i < g->leaves.n; i++) {
        const Leaf *l = &g->leaves.v[i];
        const Type *t = snG_type(g, l->node);
        const NamedTensor *n = tensors_find(&j->in, snU_str(g->ctx, l->name));
        if (!n) continue;
        size_t bytes = (size_t)(snG_count(t) * snG_dtype_size(t->dtype));
        void *data = snU_alloc(&j->arena, bytes + 1);
        snV_pack(t->dtype, n->val.v, n->val.n, data);
        int rc = snG_node(g, l->node)->op == OP_input ? sn_bind(s, graph, n->name, data, bytes) : sn_write(s, n->name, data, bytes);
        if (rc) return rc;
    }
    for (int i = 0; i < j->set.n; i++) {
        int rc = sn_set(s, j->set.v[i].name, j->set.v[i].value);
        if (rc) return rc;
    }
    return 0;
}

static int keep_read(RunJob *j, sn_session *s, const char *graph, const char *name, NodeId id) {
    const Type *t = snG_type(j->g, id);
    size_t bytes = (size_t)(snG_count(t) * snG_dtype_size(t->dtype));
    void *data = snU_alloc(&j->arena, bytes + 1);
    int rc = sn_read(s, graph, name, data, bytes);
    if (!rc) keep(j, name, t, data);
    return rc;
}

static int run_session(RunJob *j, sn_session *s) {
    const Graph *g = j->g;
    const char *graph = snU_str(g->ctx, g->name);
    int rc = feed(j, s, graph);
    if (!rc) rc = sn_step(s, (uint32_t)j->step, 0);
    if (!rc) rc = sn_run(s, graph);
    for (uint32_t i = 0; i < g->outputs.n && !rc; i++)
        rc = keep_read(j, s, graph, snU_str(g->ctx, g->outputs.v[i].name), g->outputs.v[i].node);
    for (uint32_t i = 0; i < g->updates.n && !rc; i++)
        rc = keep_read(j, s, graph, leaf_name(g, g->updates.v[i].target), g->updates.v[i].target);
    return rc ? cmd_fail("%s", sn_session_error(s)) : 0;
}

static int run_compiled(RunJob *j) {
    Module one = { .ctx = j->m.c, .graphs = { &j->g, 1, 1 } };
    one.params.v = j->m.m->params.v;
    one.params.n = j->m.m->params.n;
    char target[64];
    if (sn_device_target(j->device, target)) return cmd_fail("%s", sn_rt_error());
    BuildOptions bo = { .target = target, .fuse = j->fuse, .threads = (int)j->threads,
                        .autocast = j->po.autocast, .recompute = j->po.recompute };
    sn_program *p = snK_build(&one, &bo, NULL);
    if (!p) return model_error(j->m.c);
    sn_session *s = sn_session_new(p, &(sn_session_desc){ .device = j->device, .seed = (uint64_t)j->seed, .threads = (int)j->threads });
    int rc = s ? run_session(j, s) : cmd_fail("%s", sn_rt_error());
    if (s) sn_session_free(s);
    snR_program_free(p);
    return rc;
}

/* -- What comes out ------------------------------------------------------------------------------------------------- */

static void note_unused(const RunJob *j) {
    int unused = 0;
    for (uint32_t i = 0; i < j->in.t.n; i++) unused += !j->in.t.v[i].used;
    if (!unused) return;
    fprintf(stderr, "sinter: note: %d tensors of --in name nothing in the graph:", unused);
    for (uint32_t i = 0, k = 0; i < j->in.t.n && k < 4; i++)
        if (!j->in.t.v[i].used) fprintf(stderr, " %s", j->in.t.v[i].name), k++;
    fprintf(stderr, "%s\n", unused > 4 ? " ..." : "");
}

static int write_result(RunJob *j) {
    char err[256];
    if (!j->out) {
        for (uint32_t i = 0; i < j->result.n; i++) {
            const sn_tensor *t = &j->result.v[i];
            double v = 0;
            if (t->rank == 0) snV_unpack(t->dtype, t->data, 1, &v), printf("%-16s %.9g\n", t->name, v);
            else printf("%-16s %zu bytes (see --out)\n", t->name, t->bytes);
        }
        return 0;
    }
    return sn_file_write(j->out, j->result.v, (int)j->result.n, NULL, err) ? cmd_fail("%s", err) : 0;
}

/* -- A bundle ------------------------------------------------------------------------------------------------------ */

static int64_t elements(const SnTensorDesc *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

/* A tensor of --in for an input, weight or state of this type; NULL after an error line when it does not fit. */
static void *packed(RunJob *j, const NamedTensor *n, const SnTensorDesc *t, size_t *bytes) {
    *bytes = (size_t)elements(t) * (size_t)snG_dtype_size((Dtype)t->dtype);
    if (n->val.n != elements(t)) {
        cmd_fail("'%s' of --in has %lld elements, the program's %lld", n->name, (long long)n->val.n, (long long)elements(t));
        return NULL;
    }
    void *data = snU_alloc(&j->arena, *bytes + 1);
    snV_pack((Dtype)t->dtype, n->val.v, n->val.n, data);
    return data;
}

static int feed_bundle(RunJob *j, const SnProgram *p, const SnGraphPlan *g, sn_session *s) {
    int rc = 0;
    size_t bytes;
    for (int i = 0; i < g->nbuffers && !rc; i++) {
        NamedTensor *n = g->buffers[i].kind == SN_BUF_INPUT ? tensors_find(&j->in, g->buffers[i].t.name) : NULL;
        void *data = n ? packed(j, n, &g->buffers[i].t, &bytes) : NULL;
        if (!n) continue;
        if (!data) return EXIT_FAILED;
        n->used = true;
        rc = sn_bind(s, g->name, n->name, data, bytes);
    }
    for (int i = 0; i < p->nstorage && !rc; i++) {
        NamedTensor *n = tensors_find(&j->in, p->storage[i].t.name);
        void *data = n ? packed(j, n, &p->storage[i].t, &bytes) : NULL;
        if (!n) continue;
        if (!data) return EXIT_FAILED;
        n->used = true;
        rc = sn_write(s, n->name, data, bytes);
    }
    for (int i = 0; i < j->set.n && !rc; i++) rc = sn_set(s, j->set.v[i].name, j->set.v[i].value);
    return rc ? cmd_fail("%s", sn_session_error(s)) : 0;
}

static int keep_desc(RunJob *j, sn_session *s, const char *graph, const char *name, const SnTensorDesc *t) {
    Type ty = { .dtype = t->dtype, .rank = t->rank };
    for (int i = 0; i < t->rank; i++) ty.dim[i] = t->dim[i];
    size_t bytes = (size_t)elements(t) * (size_t)snG_dtype_size((Dtype)t->dtype);
    void *data = snU_alloc(&j->arena, bytes + 1);
    int rc = sn_read(s, graph, name, data, bytes);
    if (!rc) keep(j, name, &ty, data);
    return rc;
}

static int run_graph(RunJob *j, const SnProgram *p, const SnGraphPlan *g, sn_session *s) {
    int rc = feed_bundle(j, p, g, s);
    if (rc) return rc;
    rc = sn_step(s, (uint32_t)j->step, 0);
    if (!rc) rc = sn_run(s, g->name);
    for (int i = 0; i < g->noutputs && !rc; i++) rc = keep_desc(j, s, g->name, g->outputs[i].name, &g->buffers[g->outputs[i].buffer].t);
    for (int i = 0; i < p->nstorage && !rc && j->out; i++) rc = keep_desc(j, s, NULL, p->storage[i].t.name, &p->storage[i].t);
    return rc ? cmd_fail("%s", sn_session_error(s)) : 0;
}

static int run_bundle(RunJob *j) {
    sn_program *p = sn_program_open(j->file, j->device);
    if (!p) return cmd_fail("%s", sn_rt_error());
    const SnGraphPlan *g = NULL;
    for (int i = 0; i < p->ngraphs && !g; i++) if (!j->graph || !strcmp(j->graph, p->graphs[i].name)) g = &p->graphs[i];
    sn_session *s = g ? sn_session_new(p, &(sn_session_desc){ .device = j->device, .seed = (uint64_t)j->seed, .threads = (int)j->threads }) : NULL;
    int rc = s ? run_graph(j, p, g, s) : g ? cmd_fail("%s", sn_rt_error()) : cmd_fail("%s has no graph '%s'", j->file, j->graph ? j->graph : "");
    if (s) sn_session_free(s);
    if (!rc) note_unused(j);
    if (!rc) rc = write_result(j);
    sn_program_close(p);                                 /* the names are its */
    return rc;
}

/* -- The command ------------------------------------------------------------------------------------------------ */

static int run_job(RunJob *j) {
    const Graph *g = model_graph(&j->m, j->graph, NULL);
    if (!g) return EXIT_FAILED;
    SN_ENTER(j->m.c, return model_error(j->m.c));
    Graph *replaced = tensors_replace(g, &j->in);
    j->g = j->passes ? snP_run(j->m.c, replaced, &j->po, j->passes) : replaced;
    if (j->g != replaced) {
        for (uint32_t i = 0; i < j->g->leaves.n; i++) {
            NamedTensor *t = tensors_find(&j->in, snU_str(j->m.c, j->g->leaves.v[i].name));
            if (t) t->used = true;
        }
        snG_free(replaced);
    }
    int rc = !strcmp(j->device, "eval") ? run_eval(j) : run_compiled(j);
    SN_LEAVE(j->m.c);
    snG_free(j->g);
    if (!rc) note_unused(j);
    return rc ? rc : write_result(j);
}

int cmd_run(const Command *self, int argc, char **argv) {
    StrList defs = {0}, pos = {0}, ins = {0}, sets = {0};
    RunJob j = { .fuse = "all", .seed = 1, .step = 1 };
    bool grad = false;
    const Opt opts[] = {
        { "define", 'D', OPT_LIST, &defs, "K=V", "a param or dim of the file" },
        { "graph", 'g', OPT_TEXT, &j.graph, "NAME", "which graph (default: the first)" },
        { "in", 'i', OPT_LIST, &ins, "FILE", "tensors by name; a named node of the graph is replaced by its tensor; of a checkpoint, its params, too, where -D says nothing" },
        { "set", 0, OPT_LIST, &sets, "K=V", "a scalar input" },
        { "out", 'o', OPT_TEXT, &j.out, "FILE", "where outputs and updated values go; without it, scalars are printed" },
        { "device", 'd', OPT_TEXT, &j.device, "D", "host, opencl[:N][:gpu], cuda[:N], emu[:sm_NN], null, or eval: the reference evaluator in f64" },
        { "grad", 0, OPT_FLAG, &grad, "", "differentiate the output `loss` first: outputs grad.<weight>" },
        { "passes", 'p', OPT_TEXT, &j.passes, "A,B", "passes to run first, after replacing nodes" },
        PASS_OPTIONS(&j.po),
        { "fuse", 0, OPT_TEXT, &j.fuse, "LIST", cmd_fuse_doc() },
        { "seed", 0, OPT_INT, &j.seed, "N", "of initial values and random ops (default 1)" },
        { "step", 0, OPT_INT, &j.step, "N", "counter of random ops (default 1)" },
        { "threads", 0, OPT_INT, &j.threads, "N", "0 = all cores" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_settings(self, &sets, &j.set);
    if (rc < 0) rc = cmd_pass_options(self, &j.po);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one model file or bundle");
    j.file = pos.v[0];
    if ((rc = cmd_fuse(self, j.fuse)) >= 0) return rc;
    bool bundle = is_bundle(j.file);
    if (!j.device && !bundle) j.device = "host";
    if (bundle && (grad || j.passes)) return cmd_usage(self, "--grad and -p are of models; a bundle is compiled");
    if (bundle && (rc = bundle_takes(j.file, &defs, &j.po, j.fuse))) return rc;
    if (j.po.recompute && !grad && !j.passes) return cmd_usage(self, "--recompute wants --grad");
    if (grad && !j.passes) j.passes = j.po.autocast || j.po.recompute ? SNP_ORDER_GRAD : "canon,recognise,grad";
    rc = 0;
    for (int i = 0; i < ins.n && !rc; i++) rc = tensors_read(&j.in, ins.v[i]);
    for (int i = 0; i < ins.n && !rc && !bundle; i++) rc = checkpoint_params(ins.v[i], j.file, &defs);
    if (!rc && bundle) rc = run_bundle(&j);
    if (!rc && !bundle) rc = model_load(&j.m, j.file, NULL, &defs);
    if (!rc && !bundle) rc = run_job(&j);
    model_free(&j.m);
    tensors_free(&j.in);
    snU_free_arena(&j.arena);
    return rc;
}
