/* emu_lanes.c: the elementwise instructions: one function per row of emu.def, a loop over the 32 lanes of a warp that gcc vectorises.

   The functions are made twice, for the baseline and for AVX2 with FMA; both give the same bits, for nothing is contracted, and what is
   an fma in the text is one on every machine. The baseline, which only CPUs without AVX2 run, is made small, since libsinter_rt carries
   both. Lanes that are off keep what they had: the loop computes all 32 and stores under the mask, which is one vector instruction.
   Expressions therefore must not trap on any operands. */
#include "runtime/emu_in.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

#define IN_PLACE static inline __attribute__((always_inline))

/* -- What expressions call --------------------------------------------------------------------------------------------- */

IN_PLACE int32_t clamp_s32(int64_t v) { return (int32_t)(v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v); }
IN_PLACE int32_t sign24(uint32_t v) { return (int32_t)(v << 8) >> 8; }

IN_PLACE uint32_t permute(uint32_t a, uint32_t b, uint32_t c)
{
    uint64_t from = (uint64_t)b << 32 | a;
    uint32_t out = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t pick = c >> 4 * k, byte = (uint32_t)(from >> 8 * (pick & 7)) & 0xff;
        out |= (pick & 8 ? (byte & 0x80 ? 0xff : 0) : byte) << 8 * k;
    }
    return out;
}

IN_PLACE uint32_t reverse(uint32_t v)
{
    v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
    v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
    v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(v);
}

/* The most significant bit that is not the sign. */
IN_PLACE uint32_t find_s64(int64_t v)
{
    uint64_t u = (uint64_t)(v < 0 ? ~v : v);
    return u ? 63 - (uint32_t)__builtin_clzll(u) : 0xffffffff;
}

IN_PLACE uint64_t low_bits(uint32_t n) { return n > 63 ? ~0ull : (1ull << n) - 1; }

IN_PLACE uint64_t extract(uint64_t a, uint32_t width, uint32_t b, uint32_t c, int is_signed)
{
    uint32_t at = b & 0xff, len = c & 0xff, top = at + len - 1;
    if (!len)
        return 0;
    if (top > width - 1)
        top = width - 1;
    uint64_t field = at > width - 1 ? 0 : (a >> at) & low_bits(len);
    uint64_t sign = is_signed && a >> top & 1 ? ~0ull : 0;
    uint32_t have = at > width - 1 ? 0 : top - at + 1;
    return field | (sign & ~low_bits(have));
}

IN_PLACE uint64_t insert(uint64_t a, uint64_t b, uint32_t width, uint32_t c, uint32_t d)
{
    uint32_t at = c & 0xff, len = d & 0xff;
    if (at > width - 1)
        return b;
    uint64_t mask = low_bits(len) << at;
    return (b & ~mask) | (a << at & mask);
}

IN_PLACE uint32_t table3(uint32_t a, uint32_t b, uint32_t c, uint32_t t)
{
    uint32_t out = 0;
    for (int k = 0; k < 8; k++)
        out |= (t >> k & 1 ? 0xffffffff : 0) & (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return out;
}

IN_PLACE float flush(float a) { return snE_float(fabsf(a) < 0x1p-126f ? snE_bits(a) & 0x80000000 : snE_bits(a)); }
IN_PLACE float saturate(float a) { return a > 1 ? 1 : a > 0 ? a : 0; }         /* NaN becomes 0 */
IN_PLACE uint32_t store_f32(float a) { return a != a ? 0x7fffffff : snE_bits(a); }
IN_PLACE uint64_t store_f64(double a) { return a != a ? 0x7fffffffffffffff : snE_bits64(a); }

/* min and max: a number wins over NaN, -0 is smaller than 0 */
#define EXTREMES(least, greatest, real, bits, number)                                                                                  \
    IN_PLACE real least(real a, real b) { return a != a ? b : b != b ? a : a < b ? a : b < a ? b : number(bits(a) | bits(b)); }        \
    IN_PLACE real greatest(real a, real b) { return a != a ? b : b != b ? a : a > b ? a : b > a ? b : number(bits(a) & bits(b)); }
EXTREMES(least, greatest, float, snE_bits, snE_float)
EXTREMES(least_f64, greatest_f64, double, snE_bits64, snE_double)

IN_PLACE float load_half(uint32_t h)
{
    uint32_t sign = (h & 0x8000) << 16, rest = h & 0x7fff;
    uint32_t number = (rest << 13) + (112u << 23) + (rest >= 0x7c00 ? 112u << 23 : 0);
    float small = (float)(int32_t)rest * 0x1p-24f;
    return snE_float(sign | (rest < 0x400 ? snE_bits(small) : number));
}

float snE_half(uint32_t h) { return load_half(h); }

IN_PLACE uint32_t store_half(float a)
{
    uint32_t bits = snE_bits(a), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    uint32_t number = (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13;
    uint32_t small = snE_bits(snE_float(rest) + 0.5f) - 0x3f000000;            /* 0.5 + a: rounded to multiples of 2^-24 */
    uint32_t out = rest < 0x38800000 ? small : rest >= 0x47800000 ? 0x7c00 : number;
    return rest > 0x7f800000 ? 0x7fff : sign | out;
}

IN_PLACE float load_bf16(uint32_t b) { return snE_float(b << 16); }
IN_PLACE uint32_t store_bf16(float a)
{
    uint32_t bits = snE_bits(a);
    return a != a ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
uint32_t snE_round16(float a, bool bf16) { return bf16 ? store_bf16(a) : store_half(a); }
IN_PLACE uint32_t cut_bf16(float a) { return a != a ? 0x7fff : snE_bits(a) >> 16; }

/* a * b + c in f64, rounded to odd: the last bit is set when anything was lost, so that a second rounding cannot go wrong.
   (Boldo and Melquiond, Emulation of a FMA and correctly rounded sums, 2008.) The product of two short floats is exact. */
IN_PLACE double fma_odd(float a, float b, float c)
{
    double p = (double)a * b, s = p + c, back = s - p, lost = (p - (s - back)) + ((double)c - back);
    uint64_t bits = snE_bits64(s), up = (lost > 0) == (s > 0) ? 1 : ~0ull;
    return snE_double((lost > 0 || lost < 0) && !(bits & 1) ? bits + up : bits);
}
IN_PLACE float float_odd(double a)
{
    float f = (float)a;
    uint32_t bits = snE_bits(f), up = fabs((double)f) > fabs(a) ? 0xffffffff : 1;
    return snE_float(a == a && (double)f != a && !(bits & 1) ? bits + up : bits);
}

#define MAGIC 0x1.8p52                                                         /* x + MAGIC: x rounded to an integer, in the low bits */

/* 2^x for a float x: 2^k by the exponent, 2^r, |r| <= 1/2, by the Taylor series of exp(r ln 2), error below 1e-12 */
IN_PLACE double power_of_2(double x)
{
    x = x < -200 ? -200 : x > 200 ? 200 : x;
    double whole = x + MAGIC, r = (x - (whole - MAGIC)) * 0.693147180559945309417;
    uint64_t k = snE_bits64(whole) - snE_bits64(MAGIC);
    double p = 1 + r * (1 + r * (1. / 2 + r * (1. / 6 + r * (1. / 24 + r * (1. / 120 + r * (1. / 720 + r * (1. / 5040 + r * (1. / 40320 +
               r * (1. / 362880 + r / 3628800)))))))));
    return x != x ? x : p * snE_double((k + 1023) << 52);
}

/* log2 of a float: exponent + 2 / ln 2 atanh((m - 1) / (m + 1)), m in [sqrt 1/2, sqrt 2) */
IN_PLACE double log_2(double x)
{
    uint64_t bits = snE_bits64(x), mantissa = bits & 0xfffffffffffff, high = mantissa > 0x6a09e667f3bcc;
    double m = snE_double(mantissa | (high ? 1022ull : 1023ull) << 52);
    double e = snE_double(snE_bits64(MAGIC) + (bits >> 52) + high) - (MAGIC + 1023);
    double s = (m - 1) / (m + 1), q = s * s;
    double p = s * (1 + q * (1. / 3 + q * (1. / 5 + q * (1. / 7 + q * (1. / 9 + q * (1. / 11 + q * (1. / 13 + q * (1. / 15 + q / 17))))))));
    double y = e + p * 2.88539008177792681472;
    return x != x || x < 0 ? NAN : x == 0 ? -INFINITY : x > 0x1p500 ? INFINITY : y;
}

IN_PLACE float tangent(double x)
{
    double e = power_of_2((x > 30 ? 30 : x < -30 ? -30 : x) * 2.88539008177792681472), q = x * x;
    return (float)(q < 1e-4 ? x * (1 - q * (1. / 3 - q * (2. / 15))) : (e - 1) / (e + 1));
}
IN_PLACE float bits_12(float a) { return snE_float(a != a ? 0x7fffffff : snE_bits(a) & 0xfffff000); }

/* -- Types: how a lane is kept, read and stored; the letters of the operands ------------------------------------------- */

#define LANE_U16 Lane32
#define LANE_S16 Lane32
#define LANE_U32 Lane32
#define LANE_S32 Lane32
#define LANE_U64 Lane64
#define LANE_S64 Lane64
#define LANE_F32 Lane32
#define LANE_Z32 Lane32
#define LANE_T32 Lane32
#define LANE_Y32 Lane32
#define LANE_F64 Lane64
#define LANE_HF Lane32
#define LANE_BF Lane32
#define LANE_HFD Lane32
#define LANE_BFD Lane32
#define LANE_B16 Lane32
#define LANE_B32 Lane32
#define LANE_B64 Lane64
#define LANE_PR Lane32

#define GET_U16(p) ((uint16_t)(p)[l])
#define GET_S16(p) ((int16_t)(p)[l])
#define GET_U32(p) ((p)[l])
#define GET_S32(p) ((int32_t)(p)[l])
#define GET_U64(p) ((p)[l])
#define GET_S64(p) ((int64_t)(p)[l])
#define GET_F32(p) snE_float((p)[l])
#define GET_Z32(p) flush(snE_float((p)[l]))
#define GET_F64(p) snE_double((p)[l])
#define GET_HF(p) load_half((p)[l])
#define GET_BF(p) load_bf16((p)[l])
#define GET_B16(p) ((p)[l])
#define GET_B32(p) ((p)[l])
#define GET_B64(p) ((p)[l])
#define GET_PR(p) ((p)[0] >> l & 1)

#define PUT_U16(v) ((uint16_t)(v))
#define PUT_S16(v) ((uint16_t)(v))
#define PUT_U32(v) ((uint32_t)(v))
#define PUT_S32(v) ((uint32_t)(v))
#define PUT_U64(v) ((uint64_t)(v))
#define PUT_S64(v) ((uint64_t)(v))
#define PUT_F32(v) store_f32(v)
#define PUT_Z32(v) store_f32(flush(v))
#define PUT_T32(v) snE_bits(saturate(v))
#define PUT_Y32(v) snE_bits(flush(saturate(v)))
#define PUT_F64(v) store_f64(v)
#define PUT_HF(v) store_half(v)
#define PUT_BF(v) store_bf16(v)
#define PUT_HFD(v) store_half(float_odd(v))
#define PUT_BFD(v) store_bf16(float_odd(v))
#define PUT_B16(v) ((uint16_t)(v))
#define PUT_B32(v) ((uint32_t)(v))
#define PUT_B64(v) ((uint64_t)(v))

#define READ_U16 "h"
#define READ_S16 "h"
#define READ_U32 "w"
#define READ_S32 "w"
#define READ_U64 "q"
#define READ_S64 "q"
#define READ_F32 "f"
#define READ_Z32 "f"
#define READ_F64 "g"
#define READ_HF "e"
#define READ_BF "e"
#define READ_B16 "e"
#define READ_B32 "f"
#define READ_B64 "g"
#define READ_PR "p"
#define WRITE_U16 "H"
#define WRITE_S16 "H"
#define WRITE_U32 "W"
#define WRITE_S32 "W"
#define WRITE_U64 "Q"
#define WRITE_S64 "Q"
#define WRITE_F32 "W"
#define WRITE_Z32 "W"
#define WRITE_T32 "W"
#define WRITE_Y32 "W"
#define WRITE_F64 "Q"
#define WRITE_HF "H"
#define WRITE_BF "H"
#define WRITE_HFD "H"
#define WRITE_BFD "H"
#define WRITE_B16 "H"
#define WRITE_B32 "W"
#define WRITE_B64 "Q"

/* -- Comparisons: which of less, equal, greater, unordered hold, picked by a table of four bits ------------------------ */

#define EACH_COMPARED(X)                                                                                                               \
    X(u16, U16, "(.eq|.ne|.lt|.le|.gt|.ge|.lo|.ls|.hi|.hs)", "(u|b)16") X(s16, S16, "(.eq|.ne|.lt|.le|.gt|.ge)", "s16")                 \
    X(u32, U32, "(.eq|.ne|.lt|.le|.gt|.ge|.lo|.ls|.hi|.hs)", "(u|b)32") X(s32, S32, "(.eq|.ne|.lt|.le|.gt|.ge)", "s32")                 \
    X(u64, U64, "(.eq|.ne|.lt|.le|.gt|.ge|.lo|.ls|.hi|.hs)", "(u|b)64") X(s64, S64, "(.eq|.ne|.lt|.le|.gt|.ge)", "s64")                 \
    X(f32, F32, FLOAT_COMPARES, "f32") X(z32, Z32, FLOAT_COMPARES, "ftz.f32") X(f64, F64, FLOAT_COMPARES, "f64")                        \
    X(f16, HF, FLOAT_COMPARES, "(ftz.|)f16") X(bf16, BF, FLOAT_COMPARES, "bf16")
#define FLOAT_COMPARES "(.eq|.ne|.lt|.le|.gt|.ge|.equ|.neu|.ltu|.leu|.gtu|.geu|.num|.nan)"

/* how: the table; bytes: 0 nothing, 1 and, 2 or, 3 xor, with the predicate behind */
static void decode_compare(Decoding *d)
{
    static const struct { const char *name; uint8_t table; } names[] = {
        { ".eq", 2 }, { ".ne", 5 }, { ".lt", 1 }, { ".le", 3 }, { ".gt", 4 }, { ".ge", 6 }, { ".lo", 1 }, { ".ls", 3 }, { ".hi", 4 }, { ".hs", 6 },
        { ".equ", 10 }, { ".neu", 13 }, { ".ltu", 9 }, { ".leu", 11 }, { ".gtu", 12 }, { ".geu", 14 }, { ".num", 7 }, { ".nan", 8 } };
    for (unsigned k = 0; k < sizeof names / sizeof *names; k++)
        if (snE_has(d->op, names[k].name))
            d->ins->how = names[k].table;
    d->ins->bytes = snE_has(d->op, ".and") ? 1 : snE_has(d->op, ".or") ? 2 : snE_has(d->op, ".xor") ? 3 : 0;
    d->ins->count = snE_type(d->op, 1).kind == 'f' && !strncmp(d->op, "set.", 4);   /* its true is 1.0 */
    if (!d->ins->bytes != (d->nrefs < 5 || d->ins->r[4] == UINT32_MAX))
        d->wrong = "a comparison with .and, .or, .xor takes a predicate behind its operands, others take none";
}

static inline uint32_t combine(const Warp *w, const Ins *i, uint32_t bits)
{
    uint32_t with = i->bytes ? *snE_in32(w, i->r[4]) : 0;
    return i->bytes == 0 ? bits : i->bytes == 1 ? bits & with : i->bytes == 2 ? bits | with : bits ^ with;
}

static inline uint32_t by_table(const Ins *i, uint32_t lt, uint32_t eq, uint32_t un)
{
    return (i->how & 1 ? lt : 0) | (i->how & 2 ? eq : 0) | (i->how & 4 ? ~(lt | eq | un) : 0) | (i->how & 8 ? un : 0);
}

static void store_compared(Warp *w, const Ins *i, uint32_t lt, uint32_t eq, uint32_t un)
{
    uint32_t bits = by_table(i, lt, eq, un), first = combine(w, i, bits), second = combine(w, i, ~bits);
    snE_set_pred(w, i->r[0], first);
    if (i->r[1] != UINT32_MAX)
        snE_set_pred(w, i->r[1], second);
}

static void decode_rounding(Decoding *d)
{
    d->ins->how = snE_has(d->op, ".rz") ? 1 : snE_has(d->op, ".rm") ? 2 : 3;
}

static const int rounding_modes[] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD };

typedef float Row8 __attribute__((vector_size(32), aligned(4), may_alias));

/* -- The functions, once per kind of vectors --------------------------------------------------------------------------- */

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC optimize("Os")
#endif
#define F(name) base_##name
#define RUNS base_runs
#include "runtime/emu_lanes.inc"
#undef F
#undef RUNS
#if defined(__x86_64__)
#pragma GCC pop_options
#endif

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define F(name) v3_##name
#define RUNS v3_runs
#include "runtime/emu_lanes.inc"
#undef F
#undef RUNS
#pragma GCC pop_options
#endif

#if defined(__x86_64__)
static bool has_v3(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
}
const Run *snE_lane_runs(void) { return has_v3() ? v3_runs : base_runs; }
Multiply snE_multiply(void) { return has_v3() ? v3_multiply : base_multiply; }
#else
const Run *snE_lane_runs(void) { return base_runs; }
Multiply snE_multiply(void) { return base_multiply; }
#endif

/* -- The rows ---------------------------------------------------------------------------------------------------------- */

enum {
    LANE_none,
#define L1(name, pattern, D, A, e) LANE_##name,
#define L2(name, pattern, D, A, B, e) LANE_##name,
#define L3(name, pattern, D, A, B, C, e) LANE_##name,
#define L4(name, pattern, D, A, B, C, X, e) LANE_##name,
#define V1 L1
#define V2 L2
#define V3 L3
#define DIRECTED(name, pattern, operands, row) LANE_##name,
#include "runtime/emu.def"
#undef L1
#undef L2
#undef L3
#undef L4
#undef DIRECTED
#define X(name, T, compares, types) LANE_setp_##name, LANE_set_##name,
    EACH_COMPARED(X)
#undef X
};

#undef V1
#undef V2
#undef V3
#define L1(name, pattern, D, A, e) { pattern, WRITE_##D READ_##A, NULL, LANE_##name, NULL },
#define L2(name, pattern, D, A, B, e) { pattern, WRITE_##D READ_##A READ_##B, NULL, LANE_##name, NULL },
#define L3(name, pattern, D, A, B, C, e) { pattern, WRITE_##D READ_##A READ_##B READ_##C, NULL, LANE_##name, NULL },
#define L4(name, pattern, D, A, B, C, X, e) { pattern, WRITE_##D READ_##A READ_##B READ_##C READ_##X, NULL, LANE_##name, NULL },
#define V1(name, pattern, D, A, e) { pattern, "Ww", NULL, LANE_##name, NULL },
#define V2(name, pattern, D, A, B, e) { pattern, "Www", NULL, LANE_##name, NULL },
#define V3(name, pattern, D, A, B, C, e) { pattern, "Wwww", NULL, LANE_##name, NULL },
#define DIRECTED(name, pattern, operands, row) { pattern, operands, NULL, LANE_##name, decode_rounding },
#define X(name, T, compares, types)                                                                                                    \
    { "setp" compares "(.and|.or|.xor|)." types, "P|P" READ_##T READ_##T "~p", NULL, LANE_setp_##name, decode_compare },               \
    { "set" compares "(.and|.or|.xor|)(.u32|.s32|.f32)." types, "W-" READ_##T READ_##T "~p", NULL, LANE_set_##name, decode_compare },
const Row snE_lane_rows[] = {
#include "runtime/emu.def"
    EACH_COMPARED(X)
};
const int snE_nlane_rows = sizeof snE_lane_rows / sizeof *snE_lane_rows;
