/* unit_study.c: study files read and refused; and the report on runs whose curves are written here, so that every crossover,
   average and picked value is known by hand. */
#define _GNU_SOURCE
#include "tests/check.h"
#include "tools/report.h"
#include "tools/study.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static char folder[64] = "/tmp/sinter-study-XXXXXX";

static const char *spill(const char *name, const char *text) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (write_text(path, text, strlen(text))) abort();
    return path;
}

/* -- Study files ------------------------------------------------------------------------------------------------- */

/* Reads a text that must be refused; its error line. */
static const char *refused(const char *text) {
    static char line[512];
    StudyFile f;
    char *err = text_fmt("%s/err", folder);
    fflush(stderr);
    int old = dup(2);
    FILE *to = freopen(err, "w", stderr);
    int rc = to ? study_file_read(&f, spill("bad.study", text)) : 0;
    fflush(stderr);
    dup2(old, 2);
    close(old);
    char *got = read_text(err, NULL);
    snprintf(line, sizeof line, "%s", rc == 1 && got ? got : "");
    free(got);
    free(err);
    return line;
}

static void test_files(void) {
    static const struct { const char *text, *says; } bad[] = {
        { "arm ar\n", "bad.study:1: error: `arm` wants" },
        { "\n# x\narm a ar.sn\narm a ar.sn\n", "bad.study:4: error: two arms are called 'a'" },
        { "arm a/b ar.sn\n", "becomes a folder" },
        { "arm .. ar.sn\n", "becomes a folder" },
        { "arm a ar.sn --out x\n", "--out is the study's to choose" },
        { "arm a ar.sn --seed=3\n", "--seed is the study's" },
        { "common -q\narm a ar.sn\n", "-q is the study's" },
        { "seeds 1 2 1\narm a ar.sn\n", "the seed 1 stands here twice" },
        { "seeds 1 x\n", "'x'" },
        { "vary u 32K --unique 32K\n", "`vary` wants" },
        { "vary u 1: -D a=1\nvary u 1: -D a=2\n", "u has two values 1" },
        { "vary u a/b: -D a=1\n", "become folders" },
        { "pick lr\n", "no axis is called 'lr'" },
        { "anneal x ar best --decay 3\n", "no arm above is called 'ar'" },
        { "arm ar ar.sn\nanneal x ar first --decay 3\n", "`best` or `last`" },
        { "arm \"a ar.sn\n", "not closed" },
        { "frobnicate\n", "'frobnicate' is no statement" },
        { "measure\n", "wants options of `sinter eval`" },
        { "measure --ckpt x\n", "--ckpt is the study's to choose" },
        { "vary a 1: --data --epochs 3\n", "--data wants files" },
        { "seeds 1\n", "needs an arm" },
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *line = refused(bad[i].text);
        ok(strstr(line, bad[i].says) != NULL, "refusing `%s`: it says `%s`, not `%s`", bad[i].text, line, bad[i].says);
    }
    StudyFile f, texts;
    ok(study_file_read(&texts, spill("texts.study", "vary t a: --data x y --eod\nvary t b: --data z\narm ar a.sn\nmeasure --next-token 4\n")) == 0 && study_has_data(&texts) &&
       texts.axis[0].v[0].data.n == 2 && texts.axis[0].v[0].options.n == 1 && !strcmp(texts.axis[0].v[1].data.v[0], "z") && texts.measure.n == 2, "each value has a text of its own");
    ok(study_file_read(&texts, spill("some.study", "vary t a: --data x\nvary t b: --eod\narm ar a.sn\n")) == 0 && !study_has_data(&texts), "a value without text");
    const char *good = "data \"a b\" c   # two\ncommon -D width=8\nseeds 4 5\nvary u 1K: --unique 1K\nvary u 2K: --unique 2K\nvary w x: -D w=1\n"
                       "pick w\narm ar ../ar.sn --epochs 3\nanneal an ar last --decay 4\n";
    ok(study_file_read(&f, spill("good.study", good)) == 0, "a good study is read");
    ok(f.data.n == 2 && !strcmp(f.data.v[0], "a b"), "words in quotes hold blanks");
    ok(f.narms == 2 && f.arm[1].parent == 0 && !strcmp(f.arm[1].from, "last"), "an anneal knows its arm");
    char *model = text_fmt("%s/../ar.sn", folder), *cell = study_cell_folder(&f, 3);
    ok(!strcmp(f.arm[0].model, model), "a model lies beside the study file: %s", f.arm[0].model);
    ok(study_ncells(&f) == 4 && study_cell_seed(&f, 3) == 5 && !strcmp(cell, "u=2K,w=x/s5"), "cells: %s", cell);
    ok(f.axis[1].pick && !f.axis[0].pick, "w is picked");
    free(model);
    free(cell);
}

/* -- The report ------------------------------------------------------------------------------------------------------ */

enum { EVALS = 5 };

static void put_run(const char *cell, const char *arm, bool bound, const double *val, const double *test) {
    char *dir = text_fmt("%s/out/%s/%s", folder, cell, arm);
    StrBuf log = {0}, config = {0};
    if (make_folder(dir)) abort();
    snU_putf(&config, "{\"objective\": \"%s\", \"weights\": 1000, \"batch\": 2, \"accum\": 1, \"window\": 8, \"flops_per_step\": 100, \"steps\": 50, "
             "\"windows_per_epoch\": 20, \"flops_executed_per_step\": {\"fixed\": 60, \"counted\": 20}}",
             bound ? "nelbo" : "nll");
    for (int i = 0; i < EVALS; i++)                          /* AR counts all rows, the DLM a half and later a quarter */
        snU_putf(&log, "{\"kind\":\"train\",\"step\":%d%s}\n{\"kind\":\"val\",\"step\":%d,\"epoch\":%d,\"val\":%.9g,\"val_se\":0.1,\"test\":%.9g,\"test_se\":0.1}\n", 10 * (i + 1),
                 !bound ? "" : i < 2 ? ",\"counted\":0.5" : ",\"counted\":0.25", 10 * (i + 1), i + 1,
                 val[i], test[i]);
    if (strcmp(cell, "lr=2/s2") || bound) snU_puts(&log, "{\"kind\":\"end\",\"step\":50}\n");
    StrBuf measure = {0};
    for (int i = 0; i < 2; i++)                              /* a choice, then another measure, which is not the curve's */
        snU_putf(&measure, "{\"kind\":\"choice\",\"step\":%d,\"acc\":{\"p\":%g},\"gap\":%g}\n", 20 * (i + 1), 0.25 * (i + 1) + (val[0] > 3.4) * 0.1, (double)i);
    snU_puts(&measure, "{\"kind\":\"eval\",\"step\":20,\"loss\":1}\n{\"kind\":\"next_token\",\"step\":20,\"acc\":0.9}\n");
    char *a = text_fmt("%s/config.json", dir), *b = text_fmt("%s/log.jsonl", dir), *c = text_fmt("%s/measure.jsonl", dir);
    if (write_text(a, config.s, config.n) || write_text(b, log.s, log.n) || write_text(c, measure.s, measure.n)) abort();
    snU_free_buf(&measure);
    free(c);
    snU_free_buf(&log);
    snU_free_buf(&config);
    free(a);
    free(b);
    free(dir);
}

static bool near(double a, double b) { return fabs(a - b) < 1e-9; }

static void test_report(void) {
    /* AR is best at epoch 2, then climbs; the DLM falls. Seed 2 is 0.5 higher on both sides. lr 2 is worse for AR, better for the DLM. */
    static const double ar[EVALS] = { 3, 2, 2.5, 3, 3.5 }, dlm[EVALS] = { 4, 3.5, 3, 2.5, 1.9 };
    StudyFile f;
    const char *text = "seeds 1 2\nvary lr 1: --set lr=1\nvary lr 2: --set lr=2\npick lr\narm ar a.sn\narm dlm d.sn\n";
    char *out = text_fmt("%s/out", folder);
    if (study_file_read(&f, spill("r.study", text)) || make_folder(out) || study_write_manifest(&f, out)) abort();
    for (int seed = 1; seed <= 2; seed++)
        for (int lr = 1; lr <= 2; lr++) {
            double a[EVALS], d[EVALS], at[EVALS], dt[EVALS], shift = seed == 2 ? 0.5 : 0;
            char cell[32];
            snprintf(cell, sizeof cell, "lr=%d/s%d", lr, seed);
            for (int i = 0; i < EVALS; i++) {
                a[i] = ar[i] + shift + (lr == 2), d[i] = dlm[i] + shift + (lr == 1);
                at[i] = a[i] + 0.25, dt[i] = d[i] + 0.25;
            }
            put_run(cell, "ar", false, a, at);
            put_run(cell, "dlm", true, d, dt);
        }
    StudyGroups g;
    ok(groups_there(out) && groups_read(&g, out) == 0, "the study is read");
    ok(g.n == 1 && g.narms == 2 && g.missing == 0 && g.unfinished == 1, "one group: the only axis is picked");
    const Curve *ca = &g.v[0].curve[0], *cd = &g.v[0].curve[1];
    ok(!strcmp(ca->picked, "lr=1") && !strcmp(cd->picked, "lr=2"), "each arm takes its own lr: %s, %s", ca->picked, cd->picked);
    ok(near(ca->best.mid, 2.25) && near(ca->best.lo, 2) && near(ca->best.hi, 2.5) && ca->best.n == 2, "best of AR: %g [%g, %g]", ca->best.mid,
       ca->best.lo, ca->best.hi);
    ok(near(ca->test.mid, 2.5) && near(ca->best_epoch, 2), "test loss there");
    ok(ca->n == EVALS && near(ca->val[4], 3.75) && near(ca->tokens[4], 50 * 16) && near(ca->flops[4], 5000), "curves");
    ok(near(ca->executed[4], 50 * 80) && near(cd->executed[1], 20 * 70) && near(cd->executed[4], 50 * (60 + 20 * (20 * 0.5 + 30 * 0.25) / 50)),
       "executed FLOPs: AR %g, DLM %g, then %g", ca->executed[4], cd->executed[1], cd->executed[4]);
    ok(ca->na == 2 && near(ca->a_tokens[1], 40 * 16) && near(ca->a_epoch[1], 4) && near(ca->acc[1], 0.55) && near(ca->acc_lo[1], 0.5) && near(ca->acc_hi[1], 0.6) &&
       near(ca->gap[1], 1), "accuracy of checkpoints: %g [%g, %g] at epoch %g, gap %g", ca->acc[1], ca->acc_lo[1], ca->acc_hi[1], ca->a_epoch[1], ca->gap[1]);
    Cost cost = cost_at_best(ca);
    ok(near(cost.tokens, 2 * 160) && near(cost.nd, 6 * 1000 * 320) && near(cost.graph, 2000) && near(cost.executed, 1600), "what AR's best cost: %g tokens, %g, %g, %g FLOPs",
       cost.tokens, cost.nd, cost.graph, cost.executed);
    int chosen = 0;
    for (int i = 0; i < g.v[0].nsweep; i++) chosen += g.v[0].sweep[i].picked;
    ok(g.v[0].nsweep == 4 && chosen == 2, "values of picked axes: %d, %d of them chosen", g.v[0].nsweep, chosen);
    const Sweep *w = &g.v[0].sweep[1];
    ok(w->arm == 0 && !strcmp(w->values, "lr=2") && !w->picked && near(w->best.mid, 3.25) && near(w->best.lo, 3) && w->best.n == 2, "AR at lr=2: %s, %g", w->values, w->best.mid);
    /* Differences of validation losses: 1, 1.5, 0.5, -0.5, -1.6: from epoch 4 on. On the test text against 2.25: 1.25 -> -0.1 at epoch 5. */
    const Cross *p = &g.v[0].paper, *s = &g.v[0].strict;
    ok(p->seeds == 2 && p->found == 2 && near(p->epoch.mid, 4) && near(p->epoch.lo, 4) && near(p->last.mid, -1.6), "crossover (a): %g, last %g",
       p->epoch.mid, p->last.mid);
    ok(s->seeds == 2 && s->found == 2 && near(s->epoch.mid, 5) && near(s->last.mid, -0.1), "crossover (b): %g, last %g", s->epoch.mid, s->last.mid);
    ok(groups_write(&g) == 0, "files are written");
    for (int i = 0; i < 10; i++) {
        static const char *const names[] = { "sweeps.csv", "measures.csv", "plots/all.loss-executed.svg", "plots/all.accuracy-6nd.svg", "plots/all.gap-epochs.svg", "report.html", "curves.csv", "arms.csv", "crossovers.csv", "summary.json" };
        char *path = text_fmt("%s/%s", out, names[i]);
        ok(file_exists(path), "%s is there", names[i]);
        free(path);
    }
    /* A DLM that dips below once and rises again has not crossed; a missing run leaves one seed, without interval. */
    double back[EVALS] = { 4, 1, 4, 4, 4 };
    put_run("lr=2/s1", "dlm", true, back, back);
    put_run("lr=1/s1", "dlm", true, back, back);
    char *gone = text_fmt("%s/lr=1/s2/dlm/log.jsonl", out), *gone2 = text_fmt("%s/lr=2/s2/dlm/log.jsonl", out);
    unlink(gone);
    unlink(gone2);
    ok(groups_read(&g, out) == 0 && g.missing == 2, "two runs are missing");
    ok(g.v[0].paper.seeds == 1 && isinf(g.v[0].paper.epoch.mid) && g.v[0].paper.found == 0 && g.v[0].paper.epoch.n == 1, "never, of one seed");
    free(gone);
    free(gone2);
    free(out);
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    test_files();
    test_report();
    char *rm = text_fmt("rm -rf '%s'", folder);
    if (system(rm)) failed++;
    free(rm);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
