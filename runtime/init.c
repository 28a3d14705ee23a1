/* init.c: initial values of weights and states, and the Philox generator.

   A value depends on (seed, name of the leaf, element index) alone, so any worker may write any
   part, and equal names in two programs start equal. With key = the seed's two words and stream =
   snR_stream(name), element e:
     normal(std)     w = philox(key, {e >> 1, ~0, 0, stream})
                     u1 = ((w0 >> 8) + 0.5) * 2^-24,  u2 = ((w1 >> 8) + 0.5) * 2^-24
                     std * sqrt(-2 ln u1) * cos(2 pi u2);  sin for odd e
     uniform(a, b)   w = philox(key, {e >> 2, ~0, 0, stream})
                     a + (b - a) * (w[e & 3] >> 8) * 2^-24
   all in double, then rounded to the dtype. graph/eval.c has the same formulas; a test compares the
   two. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <math.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { BLOCK = 4096 };                           /* elements of one program; a multiple of 4 */
static const double PI = 3.14159265358979323846;

enum { ZEROS = 1, ONES, FULL, NORMAL, UNIFORM }; /* InitKind of graph.h */

void sn_philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1], c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint32_t snR_stream(const char *name)
{
    return (uint32_t)XXH3_64bits(name, strlen(name)) & 0x7fffffffu;
}

typedef struct Fill {
    const SnStorage *st;
    uint32_t key[2], stream;
    int64_t count;
    int size;
    char *out;
} Fill;

static void fill_normal(const Fill *f, int64_t from, int64_t to)
{
    for (int64_t e = from; e < to; e += 2) {
        uint32_t ctr[4] = { (uint32_t)(e >> 1), 0xffffffffu, 0, f->stream }, w[4];
        sn_philox(f->key, ctr, w);
        double u1 = ((w[0] >> 8) + 0.5) * 0x1p-24, u2 = ((w[1] >> 8) + 0.5) * 0x1p-24;
        double r = sqrt(-2 * log(u1)), sine, cosine;
        sincos(2 * PI * u2, &sine, &cosine);
        snR_store(f->st->t.dtype, f->out + e * f->size, r * cosine * f->st->a);
        if (e + 1 < to)
            snR_store(f->st->t.dtype, f->out + (e + 1) * f->size, r * sine * f->st->a);
    }
}

static void fill_uniform(const Fill *f, int64_t from, int64_t to)
{
    double a = f->st->a, b = f->st->b;
    uint32_t w[4];
    for (int64_t e = from; e < to; e++) {
        if ((e & 3) == 0) {
            uint32_t ctr[4] = { (uint32_t)(e >> 2), 0xffffffffu, 0, f->stream };
            sn_philox(f->key, ctr, w);
        }
        snR_store(f->st->t.dtype, f->out + e * f->size, a + (b - a) * (w[e & 3] >> 8) * 0x1p-24);
    }
}

static void fill_constant(const Fill *f, int64_t from, int64_t to, double v)
{
    for (int64_t e = from; e < to; e++)
        snR_store(f->st->t.dtype, f->out + e * f->size, v);
}

static void fill_blocks(void *arg, int worker, int64_t begin, int64_t end)
{
    const Fill *f = arg;
    int64_t from = begin * BLOCK, to = end * BLOCK < f->count ? end * BLOCK : f->count;
    (void)worker;
    switch (f->st->init) {
    case ONES: fill_constant(f, from, to, 1); break;
    case FULL: fill_constant(f, from, to, f->st->a); break;
    case NORMAL: fill_normal(f, from, to); break;
    case UNIFORM: fill_uniform(f, from, to); break;
    default: memset(f->out + from * f->size, 0, (size_t)((to - from) * f->size)); break;
    }
}

void snR_init_storage(Pool *pool, const SnStorage *st, uint64_t seed, void *out)
{
    Fill f = { .st = st,
               .key = { (uint32_t)seed, (uint32_t)(seed >> 32) },
               .stream = snR_stream(st->t.name) };
    f.size = snR_dtype_size(st->t.dtype);
    f.count = snR_tensor_bytes(st->t.dtype, st->t.rank, st->t.dim) / f.size;
    f.out = out;
    snR_pool_run(pool, (f.count + BLOCK - 1) / BLOCK, fill_blocks, &f);
}
