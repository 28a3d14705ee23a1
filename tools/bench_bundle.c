/* bench_bundle.c: `sinter bench X.snb`: from a file to the first step. In: a bundle. Out: how long opening it (every section's sum), a
   session (code loaded, memory) and the first run of its first graph (initial weights, arena) take, and a run after that.

   Each is a fresh start in this process; the best of several counts. The file is in the page cache: what a disk costs is not in it. */
#include "runtime/program.h"
#include "tools/bench.h"

typedef struct Start { double open, session, first, step; } Start;

static int bind_zeros(sn_session *s, const SnGraphPlan *g) {
    int rc = 0;
    for (int i = 0; i < g->nbuffers && !rc; i++) {
        const SnBuffer *b = &g->buffers[i];
        if (b->kind != SN_BUF_INPUT || b->has_default) continue;
        void *zeros = calloc(1, (size_t)b->bytes + 1);
        rc = zeros ? sn_bind(s, g->name, b->t.name, zeros, (size_t)b->bytes) : -1;
        free(zeros);
    }
    return rc;
}

static int one_start(const BenchOptions *o, Start *t) {
    double t0 = snU_now();
    sn_program *p = sn_program_open(o->file, o->device);
    if (!p) return cmd_fail("%s", sn_rt_error());
    double t1 = snU_now();
    sn_session *s = sn_session_new(p, &(sn_session_desc){ .device = o->device, .seed = 1, .threads = (int)o->threads });
    double t2 = snU_now(), t3 = 0;
    int rc = s ? p->ngraphs ? 0 : cmd_fail("%s has no graph", o->file) : cmd_fail("%s", sn_rt_error());
    if (!rc && bind_zeros(s, &p->graphs[0])) rc = cmd_fail("%s", sn_session_error(s));
    if (!rc && sn_run(s, p->graphs[0].name)) rc = cmd_fail("%s", sn_session_error(s));
    t3 = snU_now();
    if (!rc && sn_run(s, p->graphs[0].name)) rc = cmd_fail("%s", sn_session_error(s));
    *t = (Start){ t1 - t0, t2 - t1, t3 - t2, snU_now() - t3 };
    if (s) sn_session_free(s);
    sn_program_close(p);
    return rc;
}

int bench_bundle(const BenchOptions *o) {
    Start best = {0};
    int rc = bundle_takes(o->file, &o->defines, &o->passes, o->fuse);
    int64_t runs = o->steps ? o->steps : 5;
    for (int64_t i = 0; i < runs && !rc; i++) {
        Start t = {0};
        rc = one_start(o, &t);
        if (!rc && (!i || t.open + t.session + t.first < best.open + best.session + best.first)) best = t;
    }
    if (rc) return rc;
    double launch = best.open + best.session, first = best.first - best.step;
    if (o->json)
        bench_row(json_pack("{s:s s:s s:f s:f s:f s:f s:f}", "kind", "load", "name", o->file, "open_ms", best.open * 1e3, "session_ms", best.session * 1e3,
                            "first_ms", best.first * 1e3, "step_ms", best.step * 1e3, "to_launch_ms", (launch + (first > 0 ? first : 0)) * 1e3));
    else
        printf("%s\n%-44s %10.2f ms\n%-44s %10.2f ms\n%-44s %10.2f ms\n%-44s %10.2f ms\n", o->file, "open: map, sums, manifest", best.open * 1e3,
               "session: code, memory", best.session * 1e3, "first run: initial weights, arena, launches", best.first * 1e3, "a run after it", best.step * 1e3);
    return 0;
}
