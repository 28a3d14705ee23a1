/* cmd_build.c: `sinter build`: a model compiled for one or several targets into one file.

   In:  a model file and options. Out: a bundle (runtime/bundle.c): the same bytes for the same input (with --cubin: and the same ptxas). */
#include "codegen/family.h"
#include "runtime/bundle.h"
#include "tools/lab.h"

#include <sys/stat.h>

typedef struct BuildJob {
    const char *file, *out, *fuse, *sched;
    StrList defines, targets;
    PassOptions passes;
    int64_t threads;
    bool train, verbose, cubin;
} BuildJob;

/* The graphs as they were elaborated, flat: what can be printed and checked without the source. */
static char *flat_source(const Model *m) {
    StrBuf b = {0};
    for (uint32_t i = 0; i < m->m->graphs.n; i++) snG_print(&b, m->m->graphs.v[i]);
    return b.s ? b.s : strdup("");
}

/* "-t host,opencl:x8 -t ptx:sm_80" */
static void split_targets(const StrList *words, StrList *out) {
    for (int i = 0; i < words->n; i++) {
        char *s = strdup(words->v[i]);
        for (char *t = strtok(s, ","); t; t = strtok(NULL, ",")) list_add(out, t);
    }
    if (!out->n) list_add(out, "host");
}

/* One storage per name, whatever the target: what is saved by one is loaded by the other. */
static int check_weights(const SnProgram *a, const SnProgram *b) {
    bool same = a->nstorage == b->nstorage;
    for (int i = 0; same && i < a->nstorage; i++)
        same = !strcmp(a->storage[i].t.name, b->storage[i].t.name) && a->storage[i].t.dtype == b->storage[i].t.dtype;
    return same ? 0 : cmd_fail("%s and %s have other weights: an error of the compiler", a->target, b->target);
}

static int build_all(BuildJob *j, const Model *m, const StrList *targets, SnProgram **p) {
    for (int i = 0; i < targets->n; i++) {
        BuildOptions bo = { .target = targets->v[i], .train = j->train, .fuse = j->fuse, .threads = (int)j->threads, .verbose = j->verbose,
                            .autocast = j->passes.autocast, .recompute = j->passes.recompute, .sched = j->sched };
        for (int k = 0; k < i; k++)
            if (!strcmp(targets->v[k], targets->v[i])) return cmd_fail("the target %s is named twice", targets->v[i]);
        if (!(p[i] = snK_build(m->m, &bo, NULL))) return model_error(m->c);
        int rc = i ? check_weights(p[0], p[i]) : 0;
        if (rc) return rc;
    }
    return 0;
}

/* -- PTX assembled: --cubin keeps what comes out, -v prints what it takes ---------------------------------------------- */

static void print_ptxas(const SnProgram *p, const PtxasKernel *k) {
    int spills = 0;
    fprintf(stderr, "%-36s %-8s %7s %9s %9s %9s %9s\n", p->target, "family", "threads", "registers", "shared, B", "stack, B", "spills, B");
    for (int i = 0; i < p->nkernels; i++) {
        const SnKernelDesc *d = &p->kernels[i];
        int spilled = k[i].spill_stores + k[i].spill_loads;
        spills += spilled > 0;
        fprintf(stderr, "%-36s %-8s %7d %9d %9lld %9d %9d\n", d->label, d->family, d->threads, k[i].registers, (long long)d->shared_bytes + k[i].shared,
                k[i].stack, spilled);
    }
    fprintf(stderr, "%s by ptxas: %d kernels, %d spill\n", p->target, p->nkernels, spills);
}

static int assemble_one(const BuildJob *j, const Model *m, SnProgram *p) {
    char err[512];
    PtxasKernel *k = calloc((size_t)p->nkernels + 1, sizeof *k);
    void *cubin = NULL;
    if (!k) abort();
    int code = snK_ptxas(m->c, p, k, &cubin, &p->cubin_bytes, err), rc = 0;
    if (!code && j->verbose) print_ptxas(p, k);
    if (code == SN_UNSUPPORTED && !j->cubin) fprintf(stderr, "registers and spills of %s are not known: %s\n", p->target, err);
    else if (code) rc = cmd_fail("%s: %s", p->target, err);
    if (j->cubin) p->cubin = cubin;
    else free(cubin);
    free(k);
    return rc;
}

static int assemble(const BuildJob *j, const Model *m, SnProgram **p, int n) {
    int found = 0, rc = 0;
    for (int i = 0; i < n && !rc && (j->cubin || j->verbose); i++) {
        if (strncmp(p[i]->target, "ptx", 3) != 0) continue;
        found++;
        rc = assemble_one(j, m, p[i]);
    }
    return rc || found || !j->cubin ? rc : cmd_fail("--cubin is of targets ptx:sm_NN: name one with -t");
}

static int write_bundle(const BuildJob *j, const Model *m, SnProgram *const *p, int n) {
    char err[ERR_TEXT], *source = flat_source(m);
    const char *name = strrchr(j->file, '/');
    int rc = snR_bundle_write(j->out, (const SnProgram *const *)p, n, name ? name + 1 : j->file, source, err) ? cmd_fail("%s", err) : 0;
    free(source);
    struct stat st;
    if (rc || stat(j->out, &st)) return rc;
    fprintf(stderr, "%s: %.2f MB", j->out, (double)st.st_size * 1e-6);
    for (int i = 0; i < n; i++) fprintf(stderr, "%s%s, %d kernels", i ? "; " : ": ", p[i]->target, p[i]->nkernels);
    fprintf(stderr, "\n");
    return 0;
}

int cmd_build(const Command *self, int argc, char **argv) {
    StrList pos = {0}, targets = {0};
    BuildJob j = { .fuse = "all" };
    const Opt opts[] = {
        { "target", 't', OPT_LIST, &j.targets, "T,...", "host (this CPU), host:x86-64-v3, host:x86-64-v4, opencl[:x4|x8|x16|gpu], ptx:sm_80 ...;\n"
          "                             several make one file for several machines" },
        { "train", 0, OPT_FLAG, &j.train, "", "the graph `train` becomes what trains: train, accum and apply" },
        { "out", 'o', OPT_TEXT, &j.out, "X.snb", "the bundle" },
        { "define", 'D', OPT_LIST, &j.defines, "K=V", "a param or dim of the file" },
        PASS_OPTIONS(&j.passes),
        { "fuse", 0, OPT_TEXT, &j.fuse, "LIST", cmd_fuse_doc() },
        { "sched", 0, OPT_TEXT, &j.sched, "LIST", "tile sizes: gemm:bm=128,bn=256" },
        { "threads", 0, OPT_INT, &j.threads, "N", "of the compiler; 0 = all cores" },
        { "cubin", 0, OPT_FLAG, &j.cubin, "", "ptx: also assembled, by ptxas (CUDA toolkit): a card of that generation need not compile when it loads" },
        { "verbose", 'v', OPT_FLAG, &j.verbose, "", "a line per kernel, and the plan of every graph; of ptx where there is ptxas: registers, spills" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_pass_options(self, &j.passes);
    if (rc < 0) rc = cmd_fuse(self, j.fuse);
    if (rc >= 0) return rc;
    if (pos.n != 1 || !j.out) return cmd_usage(self, "wants one model file, and -o X.snb");
    j.file = pos.v[0];
    split_targets(&j.targets, &targets);
    Model m;
    if ((rc = model_load(&m, j.file, NULL, &j.defines))) return rc;
    if (j.train) lab_choose_graphs(m.m, NULL);
    SnProgram **p = calloc((size_t)targets.n + 1, sizeof *p);
    if (!p) abort();
    rc = build_all(&j, &m, &targets, p);
    if (!rc) rc = assemble(&j, &m, p, targets.n);
    if (!rc) rc = write_bundle(&j, &m, p, targets.n);
    for (int i = 0; i < targets.n; i++) {
        if (p[i]) free((void *)p[i]->cubin);             /* ours */
        snR_program_free(p[i]);
    }
    free(p);
    model_free(&m);
    return rc;
}
