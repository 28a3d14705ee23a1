/* sched.c: tile sizes. In: a target and a shape. Out: a schedule struct, from a small model of caches and balance, then rows of
   sched.tab (measured), then the command line's --sched. The thread count is not an input: results and programs must
   not depend on it, so the model balances for several counts at once.

   The gemm model walks even splits of M, N and K. One program costs its padded FMAs, the packing of its A block, its partial
   sums and its epilogue over C, and, unless an earlier program of the worker left it packed, its panel of B. Its constants
   are cycles, measured on Zen 4. Deep steps win: as few partial sums as a block of A in the second cache allows. */
#include "codegen/tile.h"
#include <ctype.h>
#include <math.h>

static const char table[] =
#include "sched_tab.inc"
;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/* -- Text rows ----------------------------------------------------------------------------------------- */

typedef struct Key { const char *name; int *value; } Key;

static void set_keys(const char *s, const char *end, const Key *keys, int n)
{
    while (s < end) {
        while (s < end && (isspace((unsigned char)*s) || *s == ',')) s++;
        const char *eq = s;
        while (eq < end && *eq != '=' && !isspace((unsigned char)*eq)) eq++;
        if (eq >= end || *eq != '=') return;
        for (int k = 0; k < n; k++)
            if (strlen(keys[k].name) == (size_t)(eq - s) && !memcmp(keys[k].name, s, (size_t)(eq - s)))
                *keys[k].value = atoi(eq + 1);
        for (s = eq; s < end && !isspace((unsigned char)*s) && *s != ','; ) s++;
    }
}

static bool word_is(const char *s, size_t n, const char *w) { return strlen(w) == n && !memcmp(s, w, n); }

static bool bucket_is(const char *s, size_t n, const int64_t *dims, int ndims)
{
    const char *end = s + n;
    for (int k = 0; k < ndims; k++) {
        if (s < end && *s == '*') s++;
        else if (s < end && isdigit((unsigned char)*s)) {
            if (strtoll(s, (char **)&s, 10) != dims[k]) return false;
        } else return s == end && k == 1;                 /* a single "*" stands for all */
        if (s < end && *s == 'x') s++;
    }
    return s == end;
}

static void table_rows(const Target *t, const char *family, const int64_t *dims, int ndims, const Key *keys, int nkeys)
{
    char lanes[8];
    snprintf(lanes, sizeof lanes, "v%d", t->f32_lanes);
    for (const char *s = table; *s; ) {
        const char *end = strchr(s, '\n');
        if (!end) end = s + strlen(s);
        const char *w[3];
        size_t len[3];
        const char *p = s;
        for (int k = 0; k < 3; k++) {
            while (p < end && isspace((unsigned char)*p)) p++;
            for (w[k] = p; p < end && !isspace((unsigned char)*p); ) p++;
            len[k] = (size_t)(p - w[k]);
        }
        bool mine = *s != '#' && word_is(w[0], len[0], family) && bucket_is(w[2], len[2], dims, ndims) &&
                    (word_is(w[1], len[1], "*") || word_is(w[1], len[1], lanes) || word_is(w[1], len[1], t->name));
        if (mine) set_keys(p, end, keys, nkeys);
        s = *end ? end + 1 : end;
    }
}

/* Target.sched holds "gemm:bm=96,bn=256 rows:rows=4". */
static void override(const Target *t, const char *family, const Key *keys, int n)
{
    size_t len = strlen(family);
    for (const char *s = t->sched; *s; ) {
        const char *end = s + strcspn(s, " ;");
        if ((size_t)(end - s) > len && s[len] == ':' && !memcmp(s, family, len)) set_keys(s + len + 1, end, keys, n);
        s = *end ? end + 1 : end;
    }
}

void snK_sched_override(sn_ctx *c, Target *t, const char *text)
{
    size_t used = strlen(t->sched), n = strlen(text);
    if (!strchr(text, ':') || !strchr(text, '='))
        snU_fail(c, SN_USAGE, 0, "--sched wants family:key=value,..., not '%s'", text);
    if (used + n + 2 > sizeof t->sched) snU_fail(c, SN_USAGE, 0, "--sched is too long");
    if (used) t->sched[used++] = ' ';
    memcpy(t->sched + used, text, n + 1);
}

/* -- Matrix products --------------------------------------------------------------------------------- */

void snK_micro(const Target *t, int64_t m, int64_t n, int *mr, int *nr)
{
    static const struct { int regs, mr, nv; double rate; } kinds[] = {
        { 16, 6, 2, 1 }, { 16, 4, 3, .98 }, { 16, 12, 1, .8 }, { 16, 3, 4, .9 }, { 16, 2, 5, .8 }, { 16, 1, 8, .6 },
        { 32, 14, 2, 1 }, { 32, 9, 3, .99 }, { 32, 6, 4, .97 }, { 32, 24, 1, .8 }, { 32, 4, 6, .9 }, { 32, 2, 8, .8 },
        { 32, 1, 8, .6 },
    };
    double best = 0;
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (kinds[k].regs != (t->vregs >= 32 ? 32 : 16)) continue;
        int64_t nc = (int64_t)kinds[k].nv * t->f32_lanes, mc = kinds[k].mr;
        double rate = kinds[k].rate * (double)(m * n) / ((double)round_up(m, mc) * (double)round_up(n, nc));
        if (rate > best) best = rate, *mr = (int)mc, *nr = (int)nc;
    }
}

typedef struct GemmModel {
    int64_t batch, m, n, k;
    int mr, nr, lanes;
    bool ta, tb;
    double keep, l2, l3;             /* bytes a packed panel of B may take; of the caches */
} GemmModel;

/* Rows that micro-kernels compute in tiles of `tile`, the last one cut short. */
static double padded(int64_t size, int64_t tile, int64_t micro)
{
    int64_t whole = (size - 1) / tile;
    return (double)(whole * tile + round_up(size - whole * tile, micro));
}

/* Cycles to bring an operand of `bytes` closer, per element: the memory's part of packing it. */
static double fetch_cost(const GemmModel *g, double bytes) { return bytes > g->l3 ? 1.5 : bytes > g->l2 ? 1 : .3; }

/* A micro-kernel stores a piece of each of its rows and goes on below. Back at the same rows, a row of micro-kernels later, the
   hardware still knows their pages, if they were few, and has fetched what comes next. Cycles per element of a large result. */
static double scatter_cost(const GemmModel *g, GemmSched s)
{
    enum { PAGE = 4096, KNOWN = 16, FORGOTTEN = 96 };                /* bytes; rows, measured on Sapphire Rapids */
    double bytes = (double)g->m * (double)g->n * 4, part = (double)(s.bm - KNOWN) / (FORGOTTEN - KNOWN);
    if (g->n * 4 < PAGE || bytes < 8 * g->l2) return 0;
    return part < 0 ? 0 : part > 1 ? 1.2 : 1.2 * part;
}

/* Cycles of one program, its tile of the mean size m x n, without packing its panel of B. */
static double program_cost(const GemmModel *g, GemmSched s, double m, double n, double fma)
{
    double k = (double)g->k, steps = ceil(k / s.kc), micro = m * n / (g->mr * g->nr) * steps;
    double held = (double)s.bm * s.kc * 4 + 4.0 * g->nr * s.kc, tile = (double)s.bm * s.bn * 4, over = held / g->l2 - .8;
    double a = m * k * (fetch_cost(g, (double)g->m * k * 4) + (g->ta ? 2.4 : 4) / g->lanes) + (g->ta ? k * 60 : m * steps * 8);
    double c = m * n * (.3 + scatter_cost(g, s)) + micro * (steps > 1 ? 100 : 40);
    if (steps > 1 && held + tile > g->l2 * .8) c += m * n * steps * .5;                   /* partial sums go to the third cache and back */
    if (over > 0) fma += ceil(n / g->nr) * m * k * 4 / 16 * (over < 1 ? over : 1);   /* the block of A comes from there */
    return fma + a + c;
}

/* Time over ideal time, averaged over machines of 2, 8 and 32 cores. */
static double gemm_cost(const GemmModel *g, GemmSched s)
{
    static const struct { double cores, weight; } machine[] = { { 2, .75 }, { 8, .2 }, { 32, .05 } };
    int64_t gm = ceil_div(g->m, s.bm), gn = ceil_div(g->n, s.bn), tasks = gm * gn * g->batch;
    double flop_rate = 2.0 * g->lanes, m = (double)g->m / (double)gm, n = (double)g->n / (double)gn, k = (double)g->k;
    double fma = padded(g->m, s.bm, g->mr) / (double)gm * padded(g->n, s.bn, g->nr) / (double)gn * k / flop_rate;
    double b = n * k * (fetch_cost(g, (double)g->n * k * 4) + (g->tb ? 3.2 : .8) / g->lanes) + (g->tb ? n * 12 : k * 6);
    bool kept = k * (double)s.bn * 4 <= g->keep;
    double each = program_cost(g, s, m, n, fma) + (kept ? n * k * 4 / 64 : 0);     /* the kept panel streams from the third cache */
    each *= .5 + .5 * s.bm * s.bn / (m * n);             /* smaller tiles at the edges: some workers wait */
    double cost = 0;
    for (unsigned i = 0; i < 3; i++) {
        double per = ceil((double)tasks / machine[i].cores);
        double panels = kept ? 1 + floor((per - 1) / (double)gm) : per;
        double ideal = (double)g->batch * (double)g->m * (double)g->n * k / flop_rate / machine[i].cores;
        cost += machine[i].weight * (per * each + panels * b) / ideal;
    }
    return cost;
}

/* -- Blocks of threads ------------------------------------------------------------------------------------ */

/* What a card runs at once, about: blocks beyond it wait for a second wave. */
static int64_t blocks_at_once(const Target *t) { return t->sm ? 216 : 64; }

/* The block's tile and a step of both operands are on chip: the tile in registers, the operands in shared memory. Of the
   tiles that fit the one with the least time: waves of blocks, each its products plus what it reads of shared memory for them. */
static GemmSched gpu_gemm(const Target *t, int64_t batch, int64_t m, int64_t n, int64_t k, Dtype d)
{
    bool mma = t->sm && (d != SN_F32 || t->tf32);         /* tensor cores: a larger tile, two steps of both operands at least */
    int64_t depth = mma && d == SN_F32 ? 16 : 32;         /* of a step; two of mma's either way, as tf32 has half the depth */
    int64_t step = d == SN_F32 ? (mma ? 8 : 4) : mma ? 4 : 2;
    static const int rows[] = { 8, 16, 32, 64, 128 }, cols[] = { 8, 16, 32, 64, 128 };
    GemmSched s = { 8, 8, (int)(k < depth ? k : depth) };
    double best = INFINITY;
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            int bm = rows[i], bn = cols[j];
            if (step * (bm + bn + 16) * (depth + 8) > t->shared_bytes / 2 || bm * bn > (mma ? 128 : 64) * 128) continue;
            double blocks = (double)(batch * ceil_div(m, bm) * ceil_div(n, bn)), waves = blocks / (double)blocks_at_once(t);
            double cost = (waves < 1 ? 1 : waves) * ((double)bm * bn + 16.0 * (bm + bn) + 512);
            if (cost < best * .9999) best = cost, s.bm = bm, s.bn = bn;
        }
    return s;
}

/* Registers of a thread that the sums of a backward block take, and its scores with what a cap or dropout keeps beside them: of
   these a quarter more, for addresses and what is being computed. ptxas spills from 186 on, of tf32, whose fragments are words, from 160. */
static int64_t backward_registers(AttentionSched s, AttentionShape a)
{
    return (s.bk * (a.d + a.dv) + (2 + a.beside) * (int64_t)s.bq * s.bk * 5 / 4) / 128;
}

/* Bytes of shared memory of the stages, and of p and ds, where elements are words. */
static int64_t attention_bytes(AttentionSched s, AttentionShape a)
{
    int64_t across = a.d > a.dv ? a.d : a.dv, stages = (a.backward ? 2 * s.bq + 3 * s.bk : s.bq + 2 * s.bk) * across;
    return 4 * (stages + (a.backward ? 2 : 1) * (int64_t)s.bq * s.bk);
}

/* The largest square blocks of queries and keys that find room in shared memory, and in registers; fewer queries where two blocks then
   find it (rings and padding take a quarter more). */
static AttentionSched gpu_attention(const Target *t, AttentionShape a)
{
    AttentionSched s = { .bq = 64, .bk = 64 };
    while (s.bq > 16 && attention_bytes(s, a) > t->shared_bytes * 7 / 8) s.bq /= 2, s.bk /= 2;
    bool alone = attention_bytes(s, a) > t->shared_bytes * 9 / 20;
    for (AttentionSched two = s; a.backward && t->tf32 && alone && two.bq >= 16; two.bq /= 2)
        if (attention_bytes(two, a) <= t->shared_bytes * 3 / 8) { s = two; break; }
    while (a.backward && s.bq > 16 && backward_registers(s, a) > (t->tf32 ? 160 : 186)) s.bq /= 2;
    s.bq = (int)(a.queries < s.bq ? a.queries : s.bq), s.bk = (int)(a.keys < s.bk ? a.keys : s.bk);
    return s;
}

/* The size of a tile when a dimension is cut into `parts`. */
static int even(int64_t size, int64_t parts, int64_t micro) { return (int)round_up(ceil_div(size, parts), micro); }
static int64_t next_count(int64_t i) { return i + 1 + i / 16; }

GemmSched snK_sched_gemm(const Target *t, int64_t batch, int64_t m, int64_t n, int64_t k, bool ta, bool tb, Dtype d)
{
    enum { MOST = 1024, DEEPEST = 2048, LEAST_DEPTH = 128 };
    if (t->gpu) {
        GemmSched b = gpu_gemm(t, batch, m, n, k, d);
        override(t, "gemm", (Key[]){ { "bm", &b.bm }, { "bn", &b.bn }, { "kc", &b.kc } }, 3);
        return b;
    }
    bool pairs = d == SN_BF16 && t->bf16_dot;             /* in words of two bf16 along K the model is the same */
    int64_t depth = k;
    if (pairs) k = ceil_div(k, 2);
    GemmModel g = { batch, m, n, k, 6, 16, t->f32_lanes, ta, tb, (double)SN_KEEP_BYTES * 15 / 16, (double)t->l2_bytes, (double)t->l3_bytes };
    snK_micro(t, m < MOST ? m : MOST, n < MOST ? n : MOST, &g.mr, &g.nr);
    GemmSched s = { g.mr, g.nr, (int)(k < LEAST_DEPTH ? k : LEAST_DEPTH) };
    double best = INFINITY;
    for (int64_t x = ceil_div(k, DEEPEST); x == ceil_div(k, DEEPEST) || ceil_div(k, x) >= LEAST_DEPTH; x = next_count(x))
        for (int64_t i = ceil_div(m, MOST); i <= ceil_div(m, g.mr); i = next_count(i))
            for (int64_t j = ceil_div(n, MOST); j <= ceil_div(n, g.nr); j = next_count(j)) {
                GemmSched tried = { even(m, i, g.mr), even(n, j, g.nr), x == 1 ? (int)k : even(k, x, 8) };
                double cost = gemm_cost(&g, tried);
                if (cost < best * .9999) best = cost, s = tried;
            }
    if (pairs) s.kc = (int)(s.kc < k ? 2 * s.kc : depth);
    Key keys[] = { { "bm", &s.bm }, { "bn", &s.bn }, { "kc", &s.kc } };
    table_rows(t, "gemm", (int64_t[]){ m, n, depth }, 3, keys, 3);
    override(t, "gemm", keys, 3);
    return s;
}

/* -- Rows ---------------------------------------------------------------------------------------------- */

RowsSched snK_sched_rows(const Target *t, int64_t rows, int64_t cols, int nloads, bool whole_rows)
{
    int64_t row_bytes = cols * 4 * (nloads + 1), want = t->gpu ? 32 << 10 : 64 << 10;   /* bytes a program moves */
    int64_t total = rows * row_bytes;
    if (t->gpu && total < want * 512) want = total / 512 > 2048 ? total / 512 : 2048;
    else if (total < want * 16) want = total / 16 > 4096 ? total / 16 : 4096;
    RowsSched s = { .rows = 1, .cols = (int)(cols < INT32_MAX ? cols : INT32_MAX) };
    int64_t r = want / (row_bytes ? row_bytes : 1);
    if (r >= 1) s.rows = (int)(r < rows ? r : rows);
    else if (!whole_rows) {
        int64_t c = round_up(want / (4 * (nloads + 1)), t->f32_lanes * 4);
        s.cols = (int)(c < cols ? c : cols);
    }
    Key keys[] = { { "rows", &s.rows }, { "cols", &s.cols } };
    table_rows(t, "rows", (int64_t[]){ rows, cols }, 2, keys, 2);
    override(t, "rows", keys, 2);
    return s;
}

/* -- Attention ------------------------------------------------------------------------------------------- */

/* Time over ideal time of `tasks` equal tasks: the geometric mean over machines of 2, 8 and 32 cores. */
static double imbalance(int64_t tasks)
{
    static const struct { int64_t cores; double weight; } machine[] = { { 2, .75 }, { 8, .2 }, { 32, .05 } };
    double sum = 0;
    for (unsigned i = 0; i < 3; i++) sum += machine[i].weight * log((double)round_up(tasks, machine[i].cores) / (double)tasks);
    return exp(sum);
}

/* Rows of a block: under a mask 64, so that its edges meet the corners of blocks of 64 or 128 keys; else, and of few rows, whole
   micro-kernels, the last block nearly full. */
static int query_block(const Target *t, int64_t heads, int64_t queries, int64_t bk, bool masked)
{
    double best = 1e30;
    int size = 2, most = masked ? 64 : 144;
    if (masked && queries >= 512) return most;
    for (int64_t b = 2; b <= most && b <= round_up(queries, 2); b += 2) {
        int mr = 1, nr = 1;
        int64_t blocks = ceil_div(queries, b);
        snK_micro(t, b, bk, &mr, &nr);
        double cost = (double)(blocks * round_up(b, mr)) * imbalance(heads * blocks) * (1 + 8 / (double)b);
        if (cost < best) best = cost, size = (int)b;
    }
    return size;
}

AttentionSched snK_sched_attention(const Target *t, AttentionShape a)
{
    int64_t most = a.masked || a.backward || a.d + a.dv > 128 ? 128 : 256;   /* keys: few, so that masks are met closely and q k^T stays near */
    int64_t nr = 2 * t->f32_lanes, blocks = a.keys <= 192 ? 1 : ceil_div(a.keys, most);
    AttentionSched s = { .bk = (int)(blocks == 1 ? a.keys : round_up(ceil_div(a.keys, blocks), nr)) };
    if (t->gpu) s = gpu_attention(t, a);
    else s.bq = query_block(t, a.heads, a.queries, s.bk, a.masked);
    if (a.backward && !t->gpu) {                                       /* 5 products in a task a head, or 7 in one a block */
        s.bq = query_block(t, 1 << 20, a.queries, s.bk, a.masked);
        s.whole = 5 * imbalance(a.heads) <= 7 * imbalance(a.heads * ceil_div(a.queries, s.bq));
    }
    Key q[] = { { "bq", &s.bq }, { "bk", &s.bk }, { "whole", &s.whole } };
    const char *family = a.backward ? "attention_grad" : "attention";
    table_rows(t, family, (int64_t[]){ a.queries, a.keys, a.d + a.dv }, 3, q, 3);
    override(t, family, q, 3);
    s.bq = s.bq > 2 ? s.bq : 2, s.bk = s.bk > 2 ? s.bk : 2;    /* a product's tile has rows and columns */
    return s;
}
