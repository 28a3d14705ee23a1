/* unit_bench.c: the benchmark's own parts: twins and shares, memory, and that a planted difference does not pass. */
#include "codegen/flops.h"
#include "tests/check.h"
#include "tools/bench.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static const char TEXT[] =
    "graph train {\n"
    "  input tokens: i32[4, 8]\n"
    "  weight embed: f32[17, 24] = normal(1)\n"
    "  weight gain: f32[24] = ones()\n"
    "  weight w: f32[24, 17] = normal(0.2)\n"
    "  x = gather(embed, tokens)\n"
    "  output loss = mean(xent(silu(rmsnorm(x, gain)) @ w, tokens))\n"
    "}\n";

static int feed(Lab *lab, const SnGraphPlan *g, void *user) {
    int32_t tokens[32];
    (void)user;
    for (int i = 0; i < 32; i++) tokens[i] = i * 7 % 17;
    return sn_bind(lab->s, g->name, "tokens", tokens, sizeof tokens) ? lab_error(lab) : 0;
}

static int open_pair(Pair *p, const char *fused, const char *unfused) {
    PairOptions o = { .file = "unit", .text = TEXT, .graph = "train", .fuse = { fused, unfused }, .feed = feed, .threads = 2 };
    return pair_open(p, &o);
}

/* pair_compare, its error line kept from the terminal and returned. */
static int compare_quietly(Pair *p, char *line, size_t cap) {
    char path[] = "/tmp/sinter-bench-XXXXXX";
    int fd = mkstemp(path), old = dup(2);
    fflush(stderr);
    dup2(fd, 2);
    int rc = pair_compare(p);
    fflush(stderr);
    dup2(old, 2);
    ssize_t n = pread(fd, line, cap - 1, 0);
    line[n > 0 ? n : 0] = 0;
    close(fd), close(old), unlink(path);
    return rc;
}

static void planted(const char *input, double value, const char *named) {
    Pair p;
    char line[512];
    int rc = open_pair(&p, "all", "none");
    ok(!rc, "the pair opens");
    if (!rc) {
        sn_set(p.side[0].lab.s, input, value);
        rc = compare_quietly(&p, line, sizeof line);
        if (named) ok(rc == 1 && strstr(line, "beyond rounding") && strstr(line, named) && strchr(line, '\n') == line + strlen(line) - 1,
                      "%s = %g on one side must fail with one line that names %s: %d, '%s'", input, value, named, rc, line);
        else ok(rc == 0, "%s = %g is the same on both sides: %s", input, value, line);
    }
    pair_close(&p);
}

static void shares(const char *fused) {
    Pair p;
    int rc = open_pair(&p, fused, "none");
    if (!rc) rc = pair_time(&p, 2, 0);
    ok(!rc, "fuse %s runs", fused);
    if (!rc) {
        KernelRows a = side_rows(&p, 0), b = side_rows(&p, 1);
        double given = 0, parts = 0, all = 0;
        int launches = 0;
        for (int i = 0; i < a.n; i++) given += a.v[i].unfused, parts += a.v[i].parts, launches += a.v[i].launches;
        for (int i = 0; i < b.n; i++) all += b.v[i].seconds;
        ok(fabs(given - all) <= 1e-9 * all, "fuse %s: regions hold all of the unfused time: %g of %g", fused, given, all);
        ok(fabs(parts - p.side[1].g->nlaunches) < 1e-6, "fuse %s: regions hold all unfused kernels: %g of %d", fused, parts, p.side[1].g->nlaunches);
        ok(launches == p.side[0].g->nlaunches, "fuse %s: rows hold all launches", fused);
        free(a.v), free(b.v);
        for (int i = 0; i < 2; i++) {
            Memory m = side_memory(&p.side[i]);
            ok(m.activations > 0 && m.activations <= m.arena, "activations lie within the arena: %lld of %lld", (long long)m.activations, (long long)m.arena);
            ok(m.storage == 3 * 4 * (17 * 24 + 24 + 24 * 17), "weights and moments: %lld", (long long)m.storage);
        }
    }
    pair_close(&p);
}

/* The share of 64 x 64 blocks that a mask leaves of 128 x 128 scores. */
static void visited(const char *mask, double want) {
    char text[1024];
    snprintf(text, sizeof text, "graph train {\n  input tokens: i32[4, 8]\n  weight q: f32[2, 3, 128, 16] = normal(1)\n  weight k: f32[2, 3, 128, 16] = normal(1)\n"
             "  r = iota([128, 1], 0)\n  c = iota([1, 128], 1)\n  doc = cast(slice(q, axis=3, start=0, size=1) > 0, i32)\n"
             "  m = expand(%s, [2, 3, 128, 128])\n  output loss = mean(attention(q, k, k, m, 0.0, 1.0))\n}\n", mask);
    Pair p;
    PairOptions o = { .file = "unit", .text = text, .graph = "train", .fuse = { "all" }, .feed = feed, .threads = 2 };
    int rc = pair_open(&p, &o), found = 0;
    ok(!rc, "attention under %s compiles", mask);
    for (uint32_t i = 0; !rc && i < p.side[0].built->groups.group.n; i++) {
        const Group *grp = &p.side[0].built->groups.group.v[i];
        if (grp->kind != G_ATTENTION) continue;
        double got = snK_visited_share(p.side[0].built->g, grp);
        ok(got == want, "%s leaves %g of the blocks, not %g", mask, want, got);
        found++;
    }
    ok(rc || found >= 2, "%s: forward and backward kernels of attention: %d", mask, found);
    pair_close(&p);
}

/* The head's gradient is added up over chunks of the loss where it will lie: not an activation, at any time. */
static void running_sums(void) {
    static const char text[] =
        "graph train {\n  input tokens: i32[4, 8]\n  weight embed: f32[4000, 24] = normal(1)\n  weight w: f32[24, 4000] = normal(0.2)\n"
        "  output loss = mean(linear_xent(gather(embed, tokens), w, tokens, true, chunk=8))\n}\n";
    Pair p;
    PairOptions o = { .file = "unit", .text = text, .graph = "train", .fuse = { "all" }, .feed = feed, .threads = 2 };
    int rc = pair_open(&p, &o);
    ok(!rc, "a loss in chunks compiles");
    Memory m = rc ? (Memory){ 0 } : side_memory(&p.side[0]);
    ok(rc || (m.activations >= 4 * 8 * 4000 && m.activations < 4 * 16 * 4000), "a chunk of logits is all that is large: %lld", (long long)m.activations);
    pair_close(&p);
}

int main(void) {
    running_sums();
    visited("r >= c", 0.75);
    visited("r >= c and r - c < 3", 0.75);
    visited("r >= c or c < 64", 0.75);
    visited("r / 64 == c / 64", 0.5);
    visited("r < 0 or c < 128", 1);
    visited("doc == reshape(doc, [2, 3, 1, 128])", 1);
    planted("lr", 1e-3, NULL);
    planted("lr", 1.001e-3, "lr_now");
    planted("beta1", 0.9001, "adam.m");
    shares("all");
    shares("rows");
    shares("none");
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
