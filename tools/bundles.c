/* bundles.c: bundles in the place of model files: told apart, refused what would need a compiler, and shown (`sinter print X.snb`). */
#include "runtime/bundle.h"
#include "tools/cmd.h"

bool is_bundle(const char *path) { return snR_bundle_is(path); }

int bundle_takes(const char *path, const StrList *defines, const PassOptions *po, const char *fuse) {
    const char *what = defines && defines->n ? "-D" : po && po->autocast ? "--autocast" : po && po->recompute ? "--recompute" : fuse && strcmp(fuse, "all") ? "--fuse" : NULL;
    return what ? cmd_fail("%s is compiled already, %s cannot change it; give %s to `sinter build` (what --set changes needs no build)", path, what, what) : 0;
}

/* -- sinter print X.snb --------------------------------------------------------------------------------------------- */

static double megabytes(int64_t n) { return (double)n * 1e-6; }

static void print_tensor(const SnTensorDesc *t) {
    printf("%s[", snR_dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) printf("%s%lld", i ? ", " : "", (long long)t->dim[i]);
    printf("]");
}

static void print_graph_plan(const SnProgram *p, const SnGraphPlan *g) {
    double flops = 0;
    for (int i = 0; i < g->nlaunches; i++) flops += p->kernels[g->launches[i].kernel].flops;
    printf("  graph %-10s %5d launches  %10.3f GFLOP  arena %10.2f MB, %.3f of the largest live set\n", g->name, g->nlaunches, flops * 1e-9,
           megabytes(g->arena_bytes), g->live_peak ? (double)g->arena_bytes / (double)g->live_peak : 1.0);
    for (int i = 0; i < g->nbuffers; i++) {
        const SnBuffer *b = &g->buffers[i];
        if (b->kind != SN_BUF_INPUT) continue;
        printf("    input  %-20s ", b->t.name);
        print_tensor(&b->t);
        if (b->has_default) printf(" = %g", b->dflt);
        if (b->range) {
            char range[96];
            snR_range_text(b, range);
            printf(", %s", range);
        }
        printf("\n");
    }
    for (int i = 0; i < g->noutputs; i++) {
        printf("    output %-20s ", g->outputs[i].name);
        print_tensor(&g->buffers[g->outputs[i].buffer].t);
        printf("\n");
    }
}

static void print_program(const SnProgram *p, const char *graph, bool kernels) {
    int64_t weights = 0, states = 0;
    for (int i = 0; i < p->nstorage; i++) {
        const SnTensorDesc *t = &p->storage[i].t;
        *(p->storage[i].is_state ? &states : &weights) += snR_tensor_bytes(t->dtype, t->rank, t->dim);
    }
    printf("  weights %.2f MB, states %.2f MB, hash %016llx\n", megabytes(weights), megabytes(states), (unsigned long long)p->hash);
    for (int i = 0; i < p->ngraphs; i++)
        if (!graph || !strcmp(graph, p->graphs[i].name)) print_graph_plan(p, &p->graphs[i]);
    for (int i = 0; kernels && i < p->nkernels; i++) {
        const SnKernelDesc *k = &p->kernels[i];
        if (!i) printf("  %-36s %-10s %8s %8s %10s %9s %9s\n", "kernel", "family", "grid", "threads", "scratch, B", "Mflop", "MB");
        printf("  %-36s %-10s %8lld %8d %10lld %9.2f %9.3f\n", k->label, k->family, (long long)k->grid, k->threads, (long long)k->scratch_bytes,
               k->flops * 1e-6, k->bytes * 1e-6);
    }
}

/* source: the model itself; else what was made of it. */
/* The code of a target that is a text: OpenCL C, PTX. */
static int print_code(Bundle *b, const char *path) {
    char err[ERR_TEXT];
    for (int i = 0; i < snR_bundle_count(b); i++) {
        if (!strncmp(snR_bundle_target(b, i), "host", 4)) continue;
        SnProgram *p = snR_bundle_program(b, i, err);
        if (!p) return cmd_fail("%s", err);
        fwrite(p->code, 1, p->code_bytes, stdout);
        snR_program_free(p);
        return 0;
    }
    return cmd_fail("%s holds no code that is a text (opencl, ptx)", path);
}

int print_bundle(const char *path, const char *graph, bool source, bool kernels, bool code_only) {
    char err[ERR_TEXT];
    Bundle *b = snR_bundle_open(path, err);
    int rc = b ? 0 : cmd_fail("%s", err);
    if (!rc && code_only) {
        rc = print_code(b, path);
        snR_bundle_close(b);
        return rc;
    }
    if (!rc && source) fputs(snR_bundle_source(b), stdout);
    for (int i = 0; !rc && !source && i < snR_bundle_count(b); i++) {
        SnProgram *p = snR_bundle_program(b, i, err);
        int64_t manifest, code = snR_bundle_code(b, i, &manifest);
        if (!p) { rc = cmd_fail("%s", err); break; }
        if (!i) {
            printf("%s: from %s", path, snR_bundle_model(b));
            for (int k = 0; k < p->nparams; k++) printf("%s%s=%s", k ? " " : "; ", p->params[k].name, p->params[k].value);
            printf("\n");
        }
        printf("%s: code %.2f MB", p->target, megabytes(code));
        if (p->cubin) printf(", cubin %.2f MB", megabytes((int64_t)p->cubin_bytes));
        printf(", manifest %.2f MB%s%s\n", megabytes(manifest), *snR_bundle_needs(b, i) ? "; needs " : "", snR_bundle_needs(b, i));
        print_program(p, graph, kernels);
        snR_program_free(p);
    }
    snR_bundle_close(b);
    return rc;
}
