/* card.c: how long a kernel would take on a card that is not here.

   In: a card's figures, and of a kernel its work (FLOPs, bytes), its launch (blocks, threads, shared memory, registers) and its PTX. Out: seconds, what
   bounds them, occupancy, waves, and the roofline of the same work, its floor.

     resident  = min(blocks, warps / block's warps, registers / block's registers, shared / (block's + 1 KB)) of a multiprocessor
     waves     = grid / (units x resident)
     busy      = (grid / units) / ceil(grid / units): the unit with most blocks ends last
     hidden    = min(1, warps at work / 8): two warps for each of a unit's four schedulers hide what one waits for
     tensor    = products / (peak of the instruction x busy x hidden)
     issue     = products / FLOPs of one instruction x instructions a product / (4 a clock x units x busy x hidden)
     vector    = elementwise steps / (f32 peak / 2 x busy x hidden)
     memory    = bytes / (bandwidth x min(1, bytes in flight / (bandwidth x 0.8 us)))
     seconds   = max(tensor, issue, vector, memory) + 1.5 us
     floor     = max(products / best peak of their type, elementwise / (f32 peak / 2), bytes / bandwidth)

   Instructions a product: of the innermost loop around most products, all its PTX instructions but mov over its mma.sync (4096 FLOPs a warp) or fma (64).
   Both arms of an `if` count, an exp is the instructions that it expands to. In flight: 32 bytes a thread, or three quarters of the block's
   shared memory where that is more (rings of cp.async). 1.5 us is a node of a CUDA graph that waits for the one before: start and drain.
   What is not in it: L2 and its hits (bytes are each tensor once), bank conflicts, power limits (a card under products clocks lower than its
   boost clock: an H200 has been seen at 0.8 of its data sheet), how well a loop is scheduled. So it is a bound to compare kernels by, not a measurement.

   Cards: NVIDIA's data sheets and architecture white papers of A100 (2020), Hopper (2022), Ada (2022), the data sheet of H200 (2023), and the table of
   compute capabilities in the CUDA C++ Programming Guide. bf16 by mma.sync on Hopper: 0.62 of the data sheet, which only wgmma reaches (Luo et al.,
   Benchmarking and Dissecting the Nvidia Hopper GPU Architecture, 2024). */
#include "codegen/card.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const Card cards[] = {
    { "a100", "A100 SXM, 80 GB", "ptx:sm_80", 108, 1.41, 312, 312, 19.5, 2039, 164, 65536, 64, 32 },
    { "h100", "H100 SXM, 80 GB", "ptx:sm_90", 132, 1.83, 989, 613, 66.9, 3352, 228, 65536, 64, 32 },
    { "h200", "H200 SXM, 141 GB", "ptx:sm_90", 132, 1.83, 989, 613, 66.9, 4800, 228, 65536, 64, 32 },
    { "rtx4090", "GeForce RTX 4090, 24 GB", "ptx:sm_89", 128, 2.52, 165.2, 165.2, 82.6, 1008, 100, 65536, 48, 24 },
};
enum { NCARDS = sizeof cards / sizeof *cards, SCHEDULERS = 4, HIDING_WARPS = 8, RESERVED = 1024, MMA_FLOPS = 2 * 16 * 8 * 16, FMA_FLOPS = 2 * 32 };
static const double LATENCY = 0.8e-6, LAUNCH = 1.5e-6;

const Card *snK_card(const char *name) {
    for (int i = 0; i < NCARDS; i++)
        if (!strcmp(cards[i].name, name)) return &cards[i];
    return NULL;
}

const char *snK_card_names(void) { return "a100, h100, h200, rtx4090"; }

/* -- A kernel's PTX ---------------------------------------------------------------------------------------------------- */

enum { MOST_LABELS = 4096 };
typedef struct Place { const char *name; int length, instructions, products; } Place;    /* counts before it */

typedef struct Scan {
    Place label[MOST_LABELS];
    int labels, instructions, products;
    const char *product;             /* mnemonic */
    Loop best;
} Scan;

/* A branch back to a label: the loop between, if it is the innermost with products so far. Loops end from inside out. */
static void close_loop(Scan *s, const char *name, int length) {
    for (int i = 0; i < s->labels; i++) {
        const Place *p = &s->label[i];
        if (p->length != length || strncmp(p->name, name, (size_t)length)) continue;
        int products = s->products - p->products, instructions = s->instructions - p->instructions;
        bool around = products == s->best.products && instructions > s->best.instructions;       /* the same products, from further out */
        if (products > 0 && products >= s->best.products && !around) s->best.products = products, s->best.instructions = instructions;
        return;
    }
}

static void scan_line(Scan *s, const char *line, size_t n) {
    while (n && isspace((unsigned char)*line)) line++, n--;
    while (n && isspace((unsigned char)line[n - 1])) n--;
    if (!n || *line == '.' || *line == '/' || *line == '{' || *line == '}') return;
    if (line[n - 1] == ':') {
        if (s->labels < MOST_LABELS) s->label[s->labels++] = (Place){ line, (int)n - 1, s->instructions, s->products };
        return;
    }
    if (*line == '@') {                          /* @%p1 bra ... */
        size_t skip = strcspn(line, " \t");
        line += skip, n -= skip < n ? skip : n;
        while (n && isspace((unsigned char)*line)) line++, n--;
    }
    if (!strncmp(line, "mov", 3)) return;       /* between virtual registers: ptxas leaves next to none */
    s->instructions++;
    s->products += !strncmp(line, s->product, strlen(s->product));
    if (strncmp(line, "bra", 3)) return;
    const char *to = line + strcspn(line, " \t");
    while (*to == ' ' || *to == '\t') to++;
    close_loop(s, to, (int)strcspn(to, ";\n"));
}

static Loop scan(const char *from, const char *to, const char *product, Unit unit) {
    Scan *s = calloc(1, sizeof *s);
    if (!s) return (Loop){ 0 };
    s->product = product;
    for (const char *line = from; line < to;) {
        size_t n = strcspn(line, "\n");
        if (line + n > to) n = (size_t)(to - line);
        scan_line(s, line, n);
        line += n + (line[n] == '\n');
    }
    Loop l = s->best;
    if (!l.products) l = (Loop){ .products = s->products, .instructions = s->instructions };
    l.unit = l.products ? unit : BY_NOTHING;
    free(s);
    return l;
}

Loop snK_product_loop(const char *ptx, const char *symbol) {
    size_t n = strlen(symbol);
    for (const char *at = ptx; (at = strstr(at, ".entry ")) != NULL; at++) {
        const char *name = at + 7;
        if (strncmp(name, symbol, n) || name[n] != '(') continue;
        const char *body = strchr(name, '{'), *end = strstr(name, ".entry ");
        if (!body) break;
        if (!end) end = body + strlen(body);
        Loop l = scan(body, end, "mma.sync", BY_MMA);
        return l.unit ? l : scan(body, end, "fma.rn.f32", BY_FMA);
    }
    return (Loop){ 0 };
}

/* -- The model ------------------------------------------------------------------------------------------------------------ */

static int least(int a, int64_t b) { return b < a ? (int)b : a; }

static int resident_blocks(const Card *c, const Work *w) {
    int warps = (w->threads + 31) / 32, r = c->blocks;
    r = least(r, c->warps / (warps ? warps : 1));
    if (w->registers) r = least(r, c->registers / ((int64_t)(w->registers + 7) / 8 * 8 * 32 * warps));
    return least(r, ((int64_t)c->shared_kb << 10) / (w->shared + RESERVED));
}

static void take(Prediction *p, Bound bound, double seconds) {
    if (seconds > p->seconds) p->seconds = seconds, p->bound = bound;
}

Prediction snK_predict(const Card *c, const Work *w) {
    Prediction p = { .resident = resident_blocks(c, w) };
    double warps = (w->threads + 31) / 32, each = (double)w->grid / c->units, most = ceil(each);
    if (!p.resident || w->grid < 1) return p;
    bool mma = w->loop.unit == BY_MMA;
    double at_once = fmin(p.resident, most), busy = each / most, rate = busy * fmin(1, at_once * warps / HIDING_WARPS);
    p.occupancy = p.resident * warps / c->warps;
    p.waves = (double)w->grid / ((double)c->units * p.resident);
    double peak = (mma ? c->mma : c->f32) * 1e12, vector = c->f32 * 0.5e12, bandwidth = c->gbs * 1e9;
    if (w->products > 0) {
        double around = w->loop.products ? (double)w->loop.instructions / w->loop.products : 1;
        take(&p, BOUND_TENSOR, w->products / (peak * rate));
        take(&p, BOUND_ISSUE, w->products / (mma ? MMA_FLOPS : FMA_FLOPS) * around / (SCHEDULERS * c->units * c->ghz * 1e9 * rate));
    }
    take(&p, BOUND_VECTOR, w->elementwise / (vector * rate));
    double in_flight = fmin((double)w->grid, (double)c->units * p.resident) * fmax(32.0 * w->threads, 0.75 * (double)w->shared);
    take(&p, BOUND_MEMORY, w->bytes / (bandwidth * fmin(1, in_flight / (bandwidth * LATENCY))));
    if (p.seconds < LAUNCH) p.bound = BOUND_LAUNCH;
    p.seconds += LAUNCH;
    p.floor = fmax(fmax(w->products / ((mma ? c->bf16 : c->f32) * 1e12), w->elementwise / vector), w->bytes / bandwidth);
    return p;
}

const char *snK_bound_name(Bound b) {
    static const char *const names[] = { "launch", "products", "issue", "vector", "memory" };
    return names[b];
}
