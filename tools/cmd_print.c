/* cmd_print.c: `sinter print`: a graph file -> the flat form, after elaboration or passes; as a DOT picture; counts; or its
   kernels, as tile programs or as kernel IR. */
#include "codegen/family.h"
#include "passes/fuse.h"
#include "passes/pass.h"
#include "tools/cmd.h"

static void print_stats(const Graph *g) {
    uint32_t *count = calloc(snG_num_ops(g->ctx) + 1, sizeof *count);
    int64_t weights = 0;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        count[snG_node(g, id)->op]++;
        if (snG_node(g, id)->op == OP_weight) weights += snG_count(snG_type(g, id));
    }
    printf("graph %s: %u nodes, %u outputs, %u updates, %lld weight elements\n", snU_str(g->ctx, g->name), g->nodes.n - 1,
           g->outputs.n, g->updates.n, (long long)weights);
    for (unsigned op = 1; op < snG_num_ops(g->ctx); op++)
        if (count[op]) printf("%8u  %s\n", count[op], snG_op(g->ctx, op)->cname);
    free(count);
}

static void print_graph(const Graph *g, const char *path, bool dot, bool stats) {
    StrBuf b = {0};
    if (stats) { print_stats(g); return; }
    if (dot) snG_print_dot(&b, g);
    else if (path) snG_print_path(&b, g, path);
    else snG_print(&b, g);
    fwrite(b.s, 1, b.n, stdout);
    snU_free_buf(&b);
}

/* What the plan costs, as a comment below a planned graph. */
static void print_arena(Graph *g) {
    Arena a = {0};
    Groups groups = snP_groups(g, &a);
    Plan p = snP_plan(g, &groups, &a);
    printf("# arena %lld bytes, largest live set %lld, ratio %.4f\n", (long long)p.arena_bytes, (long long)p.live_peak,
           p.live_peak ? (double)p.arena_bytes / (double)p.live_peak : 1.0);
    snU_free_arena(&a);
}

static bool is_planned(const Graph *g) {
    for (NodeId id = 1; id < g->nodes.n; id++)
        if (snG_node(g, id)->offset) return true;
    return false;
}

static bool is_grouped(const Graph *g) {
    for (NodeId id = 1; id < g->nodes.n; id++)
        if (snG_node(g, id)->group) return true;
    return false;
}

/* Every kernel of a graph after `fuse`, in the order of the groups. */
static void print_kernels(const Graph *g, const Target *target, bool lowered) {
    Arena a = {0};
    StrBuf b = {0};
    Groups groups = snP_groups(g, &a);
    for (uint32_t i = 0; i < groups.group.n; i++) {
        if (groups.group.v[i].kind == G_PLACE) continue;
        GroupTiles tiles = snK_group_tiles(g, &groups.group.v[i], target, &a);
        for (uint32_t k = 0; k < tiles.v.n; k++) {
            if (lowered) snK_print(&b, snK_lower(g->ctx, &a, tiles.v.v[k].tile, target));
            else snT_print(&b, tiles.v.v[k].tile);
        }
    }
    fwrite(b.s, 1, b.n, stdout);
    snU_free_buf(&b);
    snU_free_arena(&a);
}

static int list_passes(void) {
    StrBuf b = {0};
    snP_list(&b);
    fwrite(b.s, 1, b.n, stdout);
    snU_free_buf(&b);
    return EXIT_DONE;
}

int cmd_print(const Command *self, int argc, char **argv) {
    StrList defs = {0}, pos = {0};
    const char *passes = NULL, *name = NULL, *path = NULL, *kernels = NULL, *target = "host", *sched = NULL;
    bool dot = false, list = false, source = false, code = false;
    PassOptions po = {0};
    const Opt opts[] = {
        { "define", 'D', OPT_LIST, &defs, "K=V", "a param or dim of the file" },
        { "passes", 'p', OPT_TEXT, &passes, "A,B", "passes to run first, in this order" },
        { "graph", 'g', OPT_TEXT, &name, "NAME", "one graph only" },
        { "path", 0, OPT_TEXT, &path, "PREFIX", "only nodes below this instance path" },
        { "dot", 0, OPT_FLAG, &dot, "", "GraphViz input instead" },
        { "stats", 0, OPT_FLAG, &po.stats, "", "node counts by op instead" },
        PASS_OPTIONS(&po),
        { "kernels", 0, OPT_TEXT, &kernels, "tiles|ir", "the kernels instead, as tile programs or kernel IR; runs the passes up to fuse" },
        { "target", 't', OPT_TEXT, &target, "T", "for --kernels: host, host:CPU such as host:x86-64-v3" },
        { "sched", 0, OPT_TEXT, &sched, "LIST", "for --kernels: gemm:bm=128,bn=256" },
        { "fuse", 0, OPT_TEXT, &po.fuse, "LIST", cmd_fuse_doc() },
        { "source", 0, OPT_FLAG, &source, "", "of a bundle: the model's graphs, flat, as they were built" },
        { "code", 0, OPT_FLAG, &code, "", "of a bundle: its OpenCL C or PTX" },
        { "list-passes", 0, OPT_FLAG, &list, "", "the passes, a line each" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_pass_options(self, &po);
    if (rc >= 0) return rc;
    if (list) return list_passes();
    if (pos.n != 1) return cmd_usage(self, "wants one file");
    if (is_bundle(pos.v[0])) {
        if (dot || path || passes) return cmd_usage(self, "-p, --path and --dot are of models; print X.snb --source gives the model");
        return (rc = bundle_takes(pos.v[0], &defs, &po, po.fuse)) ? rc : print_bundle(pos.v[0], name, source, kernels != NULL, code);
    }
    if (kernels && strcmp(kernels, "tiles") && strcmp(kernels, "ir")) return cmd_usage(self, "--kernels is tiles or ir, not '%s'", kernels);
    if ((rc = cmd_fuse(self, po.fuse)) >= 0) return rc;
    if (kernels && !passes) passes = SNP_ORDER_INFER ",fuse";
    if (!passes && (po.autocast || po.recompute)) return cmd_usage(self, "--autocast and --recompute act through -p with those passes");
    if (passes && (strstr(passes, "fuse") || strstr(passes, "plan"))) po.keep = snP_kept(0);      /* as a build does */
    Model m;
    if ((rc = model_load(&m, pos.v[0], NULL, &defs))) return rc;
    if (name && !model_graph(&m, name, NULL)) { model_free(&m); return EXIT_FAILED; }
    SN_ENTER(m.c, { rc = model_error(m.c); model_free(&m); return rc; });
    Target to;
    snK_target(m.c, target, &to);
    snK_ask_tf32(&to, po.autocast);
    if (sched) snK_sched_override(m.c, &to, sched);
    po.keep = snP_kept(snP_without(m.c, po.fuse));
    for (uint32_t i = 0; i < m.m->graphs.n; i++) {
        const Graph *g = m.m->graphs.v[i];
        if (name && g != snG_get(m.m, name)) continue;
        Graph *after = passes ? snP_run(m.c, g, &po, passes) : NULL;
        if (kernels && !is_grouped(after)) snU_fail(m.c, SN_USAGE, 0, "--kernels wants the pass fuse in -p");
        if (kernels) print_kernels(after, &to, !strcmp(kernels, "ir"));
        else print_graph(after ? after : g, path, dot, po.stats);
        if (after && !dot && !kernels && is_planned(after)) print_arena(after);
        if (after) snG_free(after);
    }
    SN_LEAVE(m.c);
    model_free(&m);
    return fflush(stdout) ? cmd_fail("cannot write to standard output") : EXIT_DONE;
}
