/* unit_emu.c: the emulator of PTX: every elementwise instruction against plain C on special and random values, and what its memory checker,
   its barriers and its parser say to planted faults. Matrices and kernels of compilers: unit_emu_kernels.c. */
#define _GNU_SOURCE
#include "tests/emu/case.h"

#include <fenv.h>
#include <math.h>

/* -- Elementwise instructions ------------------------------------------------------------------------------------------- */

static float f32(uint64_t v) { uint32_t u = (uint32_t)v; float f; memcpy(&f, &u, 4); return f; }
static uint64_t b32(float f) { uint32_t u; memcpy(&u, &f, 4); return f != f ? 0x7fffffff : u; }
static double f64(uint64_t v) { double d; memcpy(&d, &v, 8); return d; }
static uint64_t b64(double d) { uint64_t u; memcpy(&u, &d, 8); return d != d ? 0x7fffffffffffffff : u; }
static float ftz(float f) { return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f; }
static float bf(uint64_t v) { return f32((v & 0xffff) << 16); }
static float half(uint64_t v) {
    int e = v >> 10 & 31, m = v & 1023;
    float f = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf((float)(m + 1024), e - 25) : ldexpf((float)m, -24);
    return v & 0x8000 ? -f : f;
}
/* To `bits` bits, exponent of the last bit at least `least`, by long double: exact for what is below. */
static long double rounded(long double v, int bits, int least) {
    if (v == 0 || v != v || isinf(v)) return v;
    int e;
    frexpl(v, &e);
    int unit = e - bits > least ? e - bits : least;
    return ldexpl(nearbyintl(ldexpl(v, -unit)), unit);
}
static uint64_t hf(long double v) {
    if (v != v) return 0x7fff;
    long double r = rounded(v, 11, -24), a = fabsl(r);
    uint64_t sign = signbit(v) ? 0x8000 : 0;
    if (a > 65504) return sign | 0x7c00;
    if (a < 0x1p-14L) return sign | (uint64_t)ldexpl(a, 24);
    int e;
    long double m = frexpl(a, &e);
    return sign | (uint64_t)(e + 14) << 10 | ((uint64_t)ldexpl(m, 11) & 1023);
}
static uint64_t bff(long double v) {
    if (v != v) return 0x7fff;
    long double r = rounded(v, 8, -133);
    return fabsl(r) > 0x1.fep127L ? (signbit(v) ? 0xff80 : 0x7f80) : b32((float)r) >> 16;
}
static float fmn(float a, float b) { return a != a ? b : b != b ? a : a < b || (a == b && signbit(a)) ? a : b; }
static float fmx(float a, float b) { return a != a ? b : b != b ? a : a > b || (a == b && !signbit(a)) ? a : b; }
static float fma_exact(float a, float b, float c, int bits, int least) {    /* the exact sum as two long doubles, rounded once */
    long double p = (long double)a * b, s = p + c, back = s - p, lost = (p - (s - back)) + (c - back);
    if (s != s || isinf(s) || lost == 0) return (float)rounded(s, bits, least);
    long double near = rounded(s, bits, least);
    int e;
    frexpl(s, &e);
    long double unit = ldexpl(1, e - bits > least ? e - bits : least), tie = fabsl(s - near) * 2;
    if (tie == unit) near = lost > 0 ? (s > near ? near + unit : near) : (s < near ? near - unit : near);
    return (float)near;
}
static uint64_t sext(uint64_t v, int bits) { return (uint64_t)((int64_t)(v << (64 - bits)) >> (64 - bits)); }
static uint64_t bfe(uint64_t a, uint32_t b, uint32_t c, int width, int is_signed) {
    uint64_t d = 0;
    int pos = b & 255, len = c & 255, msb = width - 1;
    int top = pos + len - 1 < msb ? pos + len - 1 : msb;
    uint64_t s = !is_signed || len == 0 ? 0 : a >> top & 1;
    for (int i = 0; i <= msb; i++) d |= (i < len && pos + i <= msb ? a >> (pos + i) & 1 : s) << i;
    return d;
}
static uint64_t bfi(uint64_t a, uint64_t b, uint32_t c, uint32_t d, int width) {
    int pos = c & 255, len = d & 255;
    for (int i = 0; i < len && pos + i < width; i++) b = (b & ~(1ull << (pos + i))) | (a >> i & 1) << (pos + i);
    return b;
}
static uint64_t halves(uint64_t lo, uint64_t hi) { return lo | hi << 16; }
static uint64_t prmt(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t d = 0, from = (b & 0xffffffff) << 32 | (a & 0xffffffff);
    for (int k = 0; k < 4; k++) {
        uint64_t n = c >> 4 * k & 15, byte = from >> 8 * (n & 7) & 255;
        d |= (n & 8 ? (byte & 128 ? 255 : 0) : byte) << 8 * k;
    }
    return d;
}
static uint64_t lop3(uint64_t a, uint64_t b, uint64_t c, int t) {
    uint64_t d = 0;
    for (int k = 0; k < 32; k++) d |= (uint64_t)(t >> ((a >> k & 1) << 2 | (b >> k & 1) << 1 | (c >> k & 1)) & 1) << k;
    return d;
}
static uint64_t sat_int(double v, double lo, double hi, int bits) {
    if (v != v) return 0;
    if (v <= lo) v = lo;
    if (v >= hi) return lo < 0 ? (1ull << (bits - 1)) - 1 : bits == 64 ? ~0ull : (1ull << bits) - 1;
    return lo < 0 ? (uint64_t)(int64_t)v : (uint64_t)v;
}
static uint64_t up(float (*f)(float, float, float), int mode, float a, float b, float c) {
    fesetround(mode);
    volatile float x = a, y = b, z = c;
    float r = f(x, y, z);
    fesetround(FE_TONEAREST);
    return b32(r);
}
static float do_add(float a, float b, float c) { (void)c; return a + b; }
static float do_mul(float a, float b, float c) { (void)c; return a * b; }
static float do_fma(float a, float b, float c) { return fmaf(a, b, c); }
static float do_div(float a, float b, float c) { (void)c; return a / b; }

#define S32(x) ((int32_t)(x))
#define S16(x) ((int16_t)(x))
#define S64(x) ((int64_t)(x))
#define U32(x) ((uint32_t)(x))
#define U16(x) ((uint16_t)(x))
typedef __int128 S128;
typedef unsigned __int128 U128;

/* mnemonic, registers of result and operands (h w q, p a predicate out), the meaning in a b c, tolerance in ulp of f32 (0: exact) */
#define CASES(X)                                                                                                                             \
    X("add.s16", "hhh", a + b, 0) X("add.u32", "www", a + b, 0) X("add.s64", "qqq", a + b, 0)                                                \
    X("sub.s16", "hhh", a - b, 0) X("sub.s32", "www", a - b, 0) X("sub.u64", "qqq", a - b, 0)                                                \
    X("add.sat.s32", "www", (uint64_t)((S64(S32(a)) + S32(b)) > INT32_MAX ? INT32_MAX : (S64(S32(a)) + S32(b)) < INT32_MIN ? INT32_MIN : S64(S32(a)) + S32(b)), 0) \
    X("mul.lo.s16", "hhh", a * b, 0) X("mul.lo.s32", "www", a * b, 0) X("mul.lo.u64", "qqq", a * b, 0)                                       \
    X("mul.hi.u16", "hhh", (uint64_t)U16(a) * U16(b) >> 16, 0) X("mul.hi.s16", "hhh", (uint64_t)((S32(S16(a)) * S16(b)) >> 16), 0)           \
    X("mul.hi.u32", "www", (uint64_t)U32(a) * U32(b) >> 32, 0) X("mul.hi.s32", "www", (uint64_t)((S64(S32(a)) * S32(b)) >> 32), 0)           \
    X("mul.hi.u64", "qqq", (uint64_t)((U128)a * b >> 64), 0) X("mul.hi.s64", "qqq", (uint64_t)(((S128)S64(a) * S64(b)) >> 64), 0)            \
    X("mul.wide.u16", "whh", (uint64_t)U16(a) * U16(b), 0) X("mul.wide.s16", "whh", (uint64_t)(S32(S16(a)) * S16(b)), 0)                     \
    X("mul.wide.u32", "qww", (uint64_t)U32(a) * U32(b), 0) X("mul.wide.s32", "qww", (uint64_t)(S64(S32(a)) * S32(b)), 0)                     \
    X("mad.lo.s32", "wwww", a * b + c, 0) X("mad.lo.s64", "qqqq", a * b + c, 0) X("mad.lo.u16", "hhhh", a * b + c, 0)                        \
    X("mad.hi.s32", "wwww", (uint64_t)((S64(S32(a)) * S32(b)) >> 32) + c, 0) X("mad.hi.u32", "wwww", ((uint64_t)U32(a) * U32(b) >> 32) + c, 0) \
    X("mad.wide.u32", "qwwq", (uint64_t)U32(a) * U32(b) + c, 0) X("mad.wide.s32", "qwwq", (uint64_t)(S64(S32(a)) * S32(b)) + c, 0)           \
    X("mad.wide.u16", "whhw", (uint64_t)U16(a) * U16(b) + c, 0) X("mad.wide.s16", "whhw", (uint64_t)(S32(S16(a)) * S16(b)) + c, 0)           \
    X("mul24.lo.s32", "www", (uint64_t)((S64(sext(a, 24))) * S64(sext(b, 24))), 0) X("mul24.lo.u32", "www", (a & 0xffffff) * (b & 0xffffff), 0) \
    X("mul24.hi.u32", "www", (a & 0xffffff) * (b & 0xffffff) >> 16, 0) X("mul24.hi.s32", "www", (uint64_t)(S64(sext(a, 24)) * S64(sext(b, 24)) >> 16), 0) \
    X("div.u16", "hhh", U16(b) ? U16(a) / U16(b) : ~0ull, 0) X("div.s16", "hhh", U16(b) ? (uint64_t)(S16(a) / S16(b)) : ~0ull, 0)             \
    X("div.u32", "www", U32(b) ? U32(a) / U32(b) : ~0ull, 0) X("div.s32", "www", U32(b) ? (uint64_t)(S64(S32(a)) / S32(b)) : ~0ull, 0)       \
    X("div.u64", "qqq", b ? a / b : ~0ull, 0) X("div.s64", "qqq", b == ~0ull ? -a : b ? (uint64_t)(S64(a) / S64(b)) : ~0ull, 0)              \
    X("rem.u32", "www", U32(b) ? U32(a) % U32(b) : a, 0) X("rem.s32", "www", U32(b) ? (uint64_t)(S64(S32(a)) % S32(b)) : a, 0)               \
    X("rem.u16", "hhh", U16(b) ? U16(a) % U16(b) : a, 0) X("rem.s16", "hhh", U16(b) ? (uint64_t)(S16(a) % S16(b)) : a, 0)                    \
    X("rem.u64", "qqq", b ? a % b : a, 0) X("rem.s64", "qqq", b == ~0ull ? 0 : b ? (uint64_t)(S64(a) % S64(b)) : a, 0)                       \
    X("abs.s32", "ww", S32(a) < 0 ? -a : a, 0) X("abs.s64", "qq", S64(a) < 0 ? -a : a, 0) X("abs.s16", "hh", S16(a) < 0 ? -a : a, 0)         \
    X("neg.s32", "ww", -a, 0) X("neg.s64", "qq", -a, 0) X("neg.s16", "hh", -a, 0)                                                            \
    X("min.s32", "www", S32(a) < S32(b) ? a : b, 0) X("min.u32", "www", U32(a) < U32(b) ? a : b, 0) X("max.s32", "www", S32(a) > S32(b) ? a : b, 0) \
    X("max.u32", "www", U32(a) > U32(b) ? a : b, 0) X("min.s64", "qqq", S64(a) < S64(b) ? a : b, 0) X("min.u64", "qqq", a < b ? a : b, 0)    \
    X("max.s64", "qqq", S64(a) > S64(b) ? a : b, 0) X("max.u64", "qqq", a > b ? a : b, 0) X("min.s16", "hhh", S16(a) < S16(b) ? a : b, 0)    \
    X("max.u16", "hhh", U16(a) > U16(b) ? a : b, 0) X("min.u16", "hhh", U16(a) < U16(b) ? a : b, 0) X("max.s16", "hhh", S16(a) > S16(b) ? a : b, 0) \
    X("sad.u32", "wwww", c + (U32(a) < U32(b) ? b - a : a - b), 0) X("sad.s32", "wwww", c + (S32(a) < S32(b) ? b - a : a - b), 0)            \
    X("and.b32", "www", a & b, 0) X("or.b16", "hhh", a | b, 0) X("xor.b64", "qqq", a ^ b, 0) X("and.b16", "hhh", a & b, 0) X("or.b32", "www", a | b, 0) \
    X("xor.b32", "www", a ^ b, 0) X("and.b64", "qqq", a & b, 0) X("or.b64", "qqq", a | b, 0) X("xor.b16", "hhh", a ^ b, 0)                   \
    X("not.b16", "hh", ~a, 0) X("not.b32", "ww", ~a, 0) X("not.b64", "qq", ~a, 0) X("cnot.b32", "ww", !U32(a), 0)                            \
    X("shl.b16", "hhw", U32(b) > 15 ? 0 : a << (b & 63), 0) X("shl.b32", "www", U32(b) > 31 ? 0 : a << (b & 63), 0) X("shl.b64", "qqw", U32(b) > 63 ? 0 : a << (b & 63), 0) \
    X("shr.u16", "hhw", U32(b) > 15 ? 0 : U16(a) >> (b & 63), 0) X("shr.u32", "www", U32(b) > 31 ? 0 : U32(a) >> (b & 31), 0)                \
    X("shr.b64", "qqw", U32(b) > 63 ? 0 : a >> (b & 63), 0) X("shr.s16", "hhw", (uint64_t)(S16(a) >> (U32(b) > 15 ? 15 : U32(b))), 0)        \
    X("shr.s32", "www", (uint64_t)(S32(a) >> (U32(b) > 31 ? 31 : U32(b))), 0) X("shr.s64", "qqw", (uint64_t)(S64(a) >> (U32(b) > 63 ? 63 : U32(b))), 0) \
    X("shf.l.wrap.b32", "wwww", (c & 31) ? (b << (c & 31)) | (U32(a) >> (32 - (c & 31))) : b, 0)                                             \
    X("shf.r.wrap.b32", "wwww", (c & 31) ? (b << (32 - (c & 31))) | (U32(a) >> (c & 31)) : a, 0)                                             \
    X("shf.l.clamp.b32", "wwww", U32(c) >= 32 ? a : U32(c) ? (b << (c & 31)) | (U32(a) >> (32 - (c & 31))) : b, 0)                           \
    X("shf.r.clamp.b32", "wwww", U32(c) >= 32 ? b : U32(c) ? (b << (32 - (c & 31))) | (U32(a) >> (c & 31)) : a, 0)                           \
    X("prmt.b32", "wwww", prmt(a, b, c), 0) X("lop3.b32", "wwwwi0xe8", lop3(a, b, c, 0xe8), 0) X("lop3.b32", "wwwwi0x96", lop3(a, b, c, 0x96), 0) \
    X("popc.b32", "ww", (uint64_t)__builtin_popcount(U32(a)), 0) X("popc.b64", "wq", (uint64_t)__builtin_popcountll(a), 0)                   \
    X("clz.b32", "ww", U32(a) ? (uint64_t)__builtin_clz(U32(a)) : 32, 0) X("clz.b64", "wq", a ? (uint64_t)__builtin_clzll(a) : 64, 0)        \
    X("brev.b32", "ww", ({ uint64_t r = 0; for (int j = 0; j < 32; j++) r |= (a >> j & 1) << (31 - j); r; }), 0)                             \
    X("brev.b64", "qq", ({ uint64_t r = 0; for (int j = 0; j < 64; j++) r |= (a >> j & 1) << (63 - j); r; }), 0)                             \
    X("bfind.u32", "ww", U32(a) ? 31 - (uint64_t)__builtin_clz(U32(a)) : ~0ull, 0)                                                           \
    X("bfind.s32", "ww", ({ uint32_t u = S32(a) < 0 ? ~U32(a) : U32(a); u ? 31 - (uint64_t)__builtin_clz(u) : ~0ull; }), 0)                  \
    X("bfe.u32", "wwww", bfe(a, U32(b), U32(c), 32, 0), 0) X("bfe.s32", "wwww", bfe(a, U32(b), U32(c), 32, 1), 0)                            \
    X("bfe.u64", "qqww", bfe(a, U32(b), U32(c), 64, 0), 0) X("bfe.s64", "qqww", bfe(a, U32(b), U32(c), 64, 1), 0)                            \
    X("bfi.b32", "wwwwi7", bfi(a, b, U32(c), 7, 32), 0) X("bfi.b64", "qqqwi60", bfi(a, b, U32(c), 60, 64), 0) X("bfi.b32", "wwwwi0", b, 0)   \
    X("slct.s32.s32", "wwww", S32(c) >= 0 ? a : b, 0) X("slct.u64.s32", "qqqw", S32(c) >= 0 ? a : b, 0) X("slct.f32.f32", "wwww", f32(c) >= 0 ? a : b, 0) \
    X("add.f32", "www", b32(f32(a) + f32(b)), 0) X("sub.rn.f32", "www", b32(f32(a) - f32(b)), 0) X("mul.f32", "www", b32(f32(a) * f32(b)), 0) \
    X("add.ftz.f32", "www", b32(ftz(ftz(f32(a)) + ftz(f32(b)))), 0) X("mul.rn.ftz.f32", "www", b32(ftz(ftz(f32(a)) * ftz(f32(b)))), 0)       \
    X("add.sat.f32", "www", ({ float v = f32(a) + f32(b); b32(v > 1 ? 1 : v > 0 ? v : 0); }), 0)                                             \
    X("fma.rn.f32", "wwww", b32(fmaf(f32(a), f32(b), f32(c))), 0) X("fma.rn.ftz.f32", "wwww", b32(ftz(fmaf(ftz(f32(a)), ftz(f32(b)), ftz(f32(c))))), 0) \
    X("div.rn.f32", "www", b32(f32(a) / f32(b)), 0) X("div.full.f32", "www", b32(f32(a) / f32(b)), 2) X("rcp.rn.f32", "ww", b32(1 / f32(a)), 0) \
    X("sqrt.rn.f32", "ww", b32(sqrtf(f32(a))), 0) X("rsqrt.approx.f32", "ww", b32(1 / sqrtf(f32(a))), 2) X("rsqrt.approx.ftz.f32", "ww", b32(1 / sqrtf(ftz(f32(a)))), 2) \
    X("ex2.approx.f32", "ww", b32((float)exp2(f32(a))), 1) X("ex2.approx.ftz.f32", "ww", b32(ftz((float)exp2(ftz(f32(a))))), 1)              \
    X("lg2.approx.f32", "ww", b32((float)log2(f32(a))), 1) X("sin.approx.f32", "ww", b32((float)sin(f32(a))), 0) X("cos.approx.f32", "ww", b32((float)cos(f32(a))), 0) \
    X("tanh.approx.f32", "ww", b32((float)tanh(f32(a))), 8192)                                                                               \
    X("min.f32", "www", b32(fmn(f32(a), f32(b))), 0) X("max.f32", "www", b32(fmx(f32(a), f32(b))), 0)                                        \
    X("min.NaN.f32", "www", f32(a) != f32(a) || f32(b) != f32(b) ? 0x7fffffff : b32(fmn(f32(a), f32(b))), 0)                                 \
    X("max.NaN.f32", "www", f32(a) != f32(a) || f32(b) != f32(b) ? 0x7fffffff : b32(fmx(f32(a), f32(b))), 0)                                 \
    X("abs.f32", "ww", a & 0x7fffffff, 0) X("neg.f32", "ww", a ^ 0x80000000, 0) X("copysign.f32", "www", (b & 0x7fffffff) | (a & 0x80000000), 0) \
    X("add.rz.f32", "www", up(do_add, FE_TOWARDZERO, f32(a), f32(b), 0), 0) X("add.rp.f32", "www", up(do_add, FE_UPWARD, f32(a), f32(b), 0), 0) \
    X("mul.rm.f32", "www", up(do_mul, FE_DOWNWARD, f32(a), f32(b), 0), 0) X("fma.rm.f32", "wwww", up(do_fma, FE_DOWNWARD, f32(a), f32(b), f32(c)), 0) \
    X("div.rz.f32", "www", up(do_div, FE_TOWARDZERO, f32(a), f32(b), 0), 0)                                                                  \
    X("add.f64", "qqq", b64(f64(a) + f64(b)), 0) X("sub.rn.f64", "qqq", b64(f64(a) - f64(b)), 0) X("mul.f64", "qqq", b64(f64(a) * f64(b)), 0) \
    X("fma.rn.f64", "qqqq", b64(fma(f64(a), f64(b), f64(c))), 0) X("div.rn.f64", "qqq", b64(f64(a) / f64(b)), 0) X("sqrt.rn.f64", "qq", b64(sqrt(f64(a))), 0) \
    X("rcp.rn.f64", "qq", b64(1 / f64(a)), 0) X("abs.f64", "qq", a & ~(1ull << 63), 0) X("neg.f64", "qq", a ^ 1ull << 63, 0)                 \
    X("add.f16", "hhh", hf((long double)half(a) + half(b)), 0) X("mul.rn.f16", "hhh", hf((long double)half(a) * half(b)), 0) X("sub.f16", "hhh", hf((long double)half(a) - half(b)), 0) \
    X("fma.rn.f16", "hhhh", hf(fma_exact(half(a), half(b), half(c), 11, -24)), 0) X("max.f16", "hhh", hf(fmx(half(a), half(b))), 0)          \
    X("add.bf16", "hhh", bff((long double)bf(a) + bf(b)), 0) X("mul.bf16", "hhh", bff((long double)bf(a) * bf(b)), 0)                        \
    X("fma.rn.bf16", "hhhh", bff(fma_exact(bf(a), bf(b), bf(c), 8, -133)), 0) X("min.bf16", "hhh", bff(fmn(bf(a), bf(b))), 0)                \
    X("neg.bf16", "hh", a ^ 0x8000, 0) X("abs.f16", "hh", a & 0x7fff, 0)                                                                     \
    X("add.f16x2", "www", halves(hf((long double)half(a) + half(b)), hf((long double)half(a >> 16) + half(b >> 16))), 0)                     \
    X("fma.rn.bf16x2", "wwww", halves(bff(fma_exact(bf(a), bf(b), bf(c), 8, -133)), bff(fma_exact(bf(a >> 16), bf(b >> 16), bf(c >> 16), 8, -133))), 0) \
    X("fma.rn.f16x2", "wwww", halves(hf(fma_exact(half(a), half(b), half(c), 11, -24)), hf(fma_exact(half(a >> 16), half(b >> 16), half(c >> 16), 11, -24))), 0) \
    X("mul.bf16x2", "www", halves(bff((long double)bf(a) * bf(b)), bff((long double)bf(a >> 16) * bf(b >> 16))), 0)                          \
    X("max.bf16x2", "www", halves(bff(fmx(bf(a), bf(b))), bff(fmx(bf(a >> 16), bf(b >> 16)))), 0) X("neg.f16x2", "ww", a ^ 0x80008000, 0)    \
    X("cvt.rn.f32.s32", "ww", b32((float)S32(a)), 0) X("cvt.rn.f32.u32", "ww", b32((float)U32(a)), 0) X("cvt.rn.f32.s64", "wq", b32((float)S64(a)), 0) \
    X("cvt.rn.f32.u64", "wq", b32((float)a), 0) X("cvt.rn.f64.s64", "qq", b64((double)S64(a)), 0) X("cvt.rn.f64.u64", "qq", b64((double)a), 0) \
    X("cvt.rn.f32.s16", "wh", b32((float)S16(a)), 0) X("cvt.rn.f32.u8", "ww", b32((float)(a & 255)), 0) X("cvt.rn.f16.s32", "hw", hf(S32(a)), 0) \
    X("cvt.rzi.s32.f32", "ww", sat_int(truncf(f32(a)), -0x1p31, 0x1p31, 32), 0) X("cvt.rzi.u32.f32", "ww", sat_int(truncf(f32(a)), 0, 0x1p32, 32), 0) \
    X("cvt.rni.s32.f32", "ww", sat_int(nearbyintf(f32(a)), -0x1p31, 0x1p31, 32), 0) X("cvt.rmi.s64.f32", "qw", sat_int(floorf(f32(a)), -0x1p63, 0x1p63, 64), 0) \
    X("cvt.rzi.u64.f64", "qq", sat_int(trunc(f64(a)), 0, 0x1p64, 64), 0) X("cvt.rpi.s32.f64", "wq", sat_int(ceil(f64(a)), -0x1p31, 0x1p31, 32), 0) \
    X("cvt.rni.f32.f32", "ww", b32(nearbyintf(f32(a))), 0) X("cvt.rmi.f32.f32", "ww", b32(floorf(f32(a))), 0) X("cvt.rpi.f32.f32", "ww", b32(ceilf(f32(a))), 0) \
    X("cvt.rzi.f64.f64", "qq", b64(trunc(f64(a))), 0) X("cvt.sat.f32.f32", "ww", ({ float v = f32(a); b32(v > 1 ? 1 : v > 0 ? v : 0); }), 0) \
    X("cvt.ftz.f32.f32", "ww", b32(ftz(f32(a))), 0) X("cvt.f64.f32", "qw", b64((double)f32(a)), 0) X("cvt.rn.f32.f64", "wq", b32((float)f64(a)), 0) \
    X("cvt.rn.bf16.f32", "hw", bff(f32(a)), 0) X("cvt.rn.f16.f32", "hw", hf(f32(a)), 0) X("cvt.f32.bf16", "wh", b32(bf(a)), 0) X("cvt.f32.f16", "wh", b32(half(a)), 0) \
    X("cvt.rz.bf16.f32", "hw", f32(a) != f32(a) ? 0x7fff : U32(a) >> 16, 0) X("cvt.rn.f16.f64", "hq", hf(f64(a)), 0)                         \
    X("cvt.rn.bf16x2.f32", "www", halves(bff(f32(b)), bff(f32(a))), 0) X("cvt.rn.f16x2.f32", "www", halves(hf(f32(b)), hf(f32(a))), 0)       \
    X("cvt.rn.relu.bf16x2.f32", "www", halves(bff(f32(b) < 0 ? 0 : f32(b)), bff(f32(a) < 0 ? 0 : f32(a))), 0)                                \
    X("cvt.rna.tf32.f32", "ww", f32(a) != f32(a) ? 0x7fffffff : isinf(f32(a)) ? a : (a + 0x1000) & 0xffffe000, 0)                            \
    X("cvt.u64.u32", "qw", U32(a), 0) X("cvt.s64.s32", "qw", (uint64_t)S32(a), 0) X("cvt.u32.u64", "wq", a, 0) X("cvt.u16.u32", "hw", a, 0)  \
    X("cvt.u32.u16", "wh", U16(a), 0) X("cvt.s32.s16", "wh", (uint64_t)S16(a), 0) X("cvt.s32.s8", "ww", sext(a, 8), 0) X("cvt.u32.u8", "wh", a & 255, 0) \
    X("cvt.s64.s8", "qw", sext(a, 8), 0) X("cvt.u8.u32", "ww", a & 255, 0) X("cvt.sat.u8.s32", "ww", (uint64_t)(S32(a) < 0 ? 0 : S32(a) > 255 ? 255 : S32(a)), 0) \
    X("cvt.sat.s32.s64", "wq", (uint64_t)(S64(a) > INT32_MAX ? INT32_MAX : S64(a) < INT32_MIN ? INT32_MIN : S64(a)), 0) X("cvt.s8.s32", "ww", sext(a, 8), 0) \
    X("set.lt.u32.s32", "www", S32(a) < S32(b) ? ~0ull : 0, 0) X("set.ge.f32.f32", "www", f32(a) >= f32(b) ? 0x3f800000 : 0, 0)              \
    X("setp.eq.s32", "pww", U32(a) == U32(b), 0) X("setp.ne.s64", "pqq", a != b, 0) X("setp.lt.s32", "pww", S32(a) < S32(b), 0) X("setp.lo.u32", "pww", U32(a) < U32(b), 0) \
    X("setp.hi.u32", "pww", U32(a) > U32(b), 0) X("setp.le.s16", "phh", S16(a) <= S16(b), 0) X("setp.gt.s64", "pqq", S64(a) > S64(b), 0) X("setp.ge.u64", "pqq", a >= b, 0) \
    X("setp.eq.f32", "pww", f32(a) == f32(b), 0) X("setp.ne.f32", "pww", f32(a) < f32(b) || f32(a) > f32(b), 0) X("setp.neu.f32", "pww", f32(a) != f32(b), 0) \
    X("setp.lt.f32", "pww", f32(a) < f32(b), 0) X("setp.ltu.f32", "pww", !(f32(a) >= f32(b)), 0) X("setp.gtu.f32", "pww", !(f32(a) <= f32(b)), 0) \
    X("setp.nan.f32", "pww", f32(a) != f32(a) || f32(b) != f32(b), 0) X("setp.num.f64", "pqq", f64(a) == f64(a) && f64(b) == f64(b), 0)      \
    X("setp.equ.f64", "pqq", !(f64(a) < f64(b) || f64(a) > f64(b)), 0) X("setp.geu.f16", "phh", !(half(a) < half(b)), 0) X("setp.lt.bf16", "phh", bf(a) < bf(b), 0) \
    X("setp.gt.ftz.f32", "pww", ftz(f32(a)) > ftz(f32(b)), 0) X("testp.subnormal.f32", "pw", fpclassify(f32(a)) == FP_SUBNORMAL, 0)

typedef struct Lane { const char *op, *shape; double ulp; } Lane;
static uint64_t want_of(int index, uint64_t a, uint64_t b, uint64_t c) {
    int k = 0;
    (void)a, (void)b, (void)c;
#define X(op, shape, e, ulp) if (index == k++) return (uint64_t)(e);
    CASES(X)
#undef X
    return 0;
}
static const Lane lanes[] = {
#define X(op, shape, e, ulp) { op, shape, ulp },
    CASES(X)
#undef X
};

enum { N = 2048 };
static uint64_t special(int bits) {
    static const uint64_t w[] = { 0, 1, 2, 31, 32, 33, 0x7fffffff, 0x80000000, 0xffffffff, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345,
        0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff, 0x41200000, 0xc2c80000, 0x4b000001, 0x4f000000, 0xcf000000, 0x4f800000, 0x3effffff, 0x3f000000 };
    static const uint64_t q[] = { 0, 1, 63, 64, 65, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, 0x3ff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
        0x7ff8000000000000, 1, 0x000fffffffffffff, 0x7fefffffffffffff, 0x41dfffffffc00000, 0x43e0000000000000, 0xc1e0000000000000, 0x3e45798ee2308c3a };
    static const uint64_t h[] = { 0, 1, 15, 16, 0x7fff, 0x8000, 0xffff, 0x3c00, 0x3f80, 0x7c00, 0xfc00, 0x7e00, 0x7f80, 0xff80, 0x7fc0, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x0080, 0x7f7f };
    uint64_t r = draw64();
    return bits == 64 ? q[r % (sizeof q / 8)] : bits == 32 ? w[r % (sizeof w / 8)] : h[r % (sizeof h / 8)];
}
static uint64_t operand(int bits) {
    uint64_t r = draw64(), v = draw64();
    uint64_t mask = bits == 64 ? ~0ull : (1ull << bits) - 1;
    switch (r % 8) {
    case 0: case 1: case 2: return special(bits);
    case 3: return v % 70;                                        /* counts of shifts */
    case 4: return bits == 32 ? b32((float)(int64_t)v * 0x1p-60f) : bits == 64 ? b64((double)(int64_t)v * 0x1p-60) : v & mask;   /* moderate floats */
    case 5: return bits == 32 ? b32(((float)(v % 4001) - 2000) * 0.5f) : v & mask;   /* halves: ties */
    default: return v & mask;
    }
}
static int bits_of(char c) { return c == 'h' ? 16 : c == 'w' ? 32 : 64; }
static const char *class_of(char c) { return c == 'h' ? "h" : c == 'w' ? "w" : "q"; }

static void lane_text(const Lane *t, char *out, size_t cap) {
    int nargs = 0, n = 0;
    char operands[128] = "";
    const char *imm = strchr(t->shape, 'i');
    for (const char *c = t->shape + 1; *c && *c != 'i'; c++, nargs++) snprintf(operands + strlen(operands), 64, ", %%%s%d", class_of(*c), 10 + nargs);
    if (imm) snprintf(operands + strlen(operands), 64, ", %s", imm + 1);
    n += snprintf(out + n, cap - (size_t)n, ".visible .entry k(.param .u64 pd, .param .u64 pa, .param .u64 pb, .param .u64 pc) {\n"
                  ".reg .pred %%p<3>; .reg .b16 %%h<20>; .reg .b32 %%w<20>; .reg .b64 %%q<20>;\n.reg .b64 %%at<5>; .reg .b32 %%i<4>;\n"
                  "mov.u32 %%i0, %%ctaid.x; mov.u32 %%i1, %%ntid.x; mov.u32 %%i2, %%tid.x; mad.lo.s32 %%i3, %%i0, %%i1, %%i2;\n");
    for (int k = 0; k < nargs; k++) {
        char c = t->shape[1 + k];
        n += snprintf(out + n, cap - (size_t)n, "ld.param.u64 %%at0, [p%c]; mul.wide.u32 %%at1, %%i3, 8; add.s64 %%at0, %%at0, %%at1; ld.global.b%d %%%s%d, [%%at0];\n",
                      "abc"[k], bits_of(c), class_of(c), 10 + k);
    }
    n += snprintf(out + n, cap - (size_t)n, "ld.param.u64 %%at0, [pd]; mul.wide.u32 %%at1, %%i3, 8; add.s64 %%at0, %%at0, %%at1;\n");
    if (t->shape[0] == 'p') n += snprintf(out + n, cap - (size_t)n, "%s %%p1%s; selp.u64 %%q1, 1, 0, %%p1; st.global.u64 [%%at0], %%q1;\nret;\n}\n", t->op, operands);
    else n += snprintf(out + n, cap - (size_t)n, "%s %%%s1%s;\nst.global.b%d [%%at0], %%%s1; ret;\n}\n", t->op, class_of(t->shape[0]), operands, bits_of(t->shape[0]), class_of(t->shape[0]));
}

static void test_lanes(Pool *pool) {
    static uint64_t in[3][N];
    char text[2048];
    for (int k = 0; k < (int)(sizeof lanes / sizeof *lanes); k++) {
        const Lane *t = &lanes[k];
        Case c;
        int nargs = (int)strcspn(t->shape, "i") - 1, bad = -1;
        lane_text(t, text, sizeof text);
        if (!case_load(&c, text)) { ok(false, "%s: %s", t->op, c.err); continue; }
        for (int j = 0; j < nargs; j++)
            for (int n = 0; n < N; n++) in[j][n] = operand(bits_of(t->shape[1 + j]));
        uint64_t *out = case_buffer(&c, NULL, N * 8, "d");
        for (int j = 0; j < 3; j++) case_buffer(&c, in[j], N * 8, "in");
        int rc = case_run(&c, N / 128, 128, 0, 1, pool);
        uint64_t mask = t->shape[0] == 'h' ? 0xffff : t->shape[0] == 'w' ? 0xffffffff : ~0ull;
        for (int n = 0; n < N && bad < 0; n++) {
            uint64_t want = want_of(k, in[0][n], in[1][n], in[2][n]) & mask;
            double away = t->ulp && f32(want) == f32(want) && !isinf(f32(want)) ? fabs((double)f32(out[n]) - f32(want)) / fmax(fabs((double)f32(want)) * 0x1p-23, 0x1p-149) : out[n] != want;
            if (t->ulp && f32(want) != f32(want)) away = f32(out[n]) == f32(out[n]);
            if (!(away <= t->ulp)) bad = n;
        }
        ok(rc == 0, "%s: %d %s", t->op, rc, rc > 0 ? c.report[0].text : c.err);
        if (bad >= 0)
            ok(false, "%s(%llx, %llx, %llx) = %llx, not %llx", t->op, (long long)in[0][bad], (long long)in[1][bad], (long long)in[2][bad], (long long)out[bad],
               (long long)(want_of(k, in[0][bad], in[1][bad], in[2][bad]) & mask));
        else ok(true, "%s", t->op);
        case_free(&c);
    }
}

/* -- Planted faults ------------------------------------------------------------------------------------------------------ */

#define HEAD ".extern .shared .align 16 .b8 dyn[];\n.visible .entry k(.param .u64 pd, .param .u64 pa) {\n" \
             ".reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<40>; .reg .b64 %q<20>; .reg .f32 %f<20>;\n.shared .align 16 .b8 tile[1024];\n" \
             "ld.param.u64 %q0, [pd]; ld.param.u64 %q1, [pa];\nmov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x;\n" \
             "mov.u32 %r3, tile; shl.b32 %r4, %r0, 2; add.u32 %r5, %r3, %r4; mul.wide.u32 %q2, %r0, 4; add.s64 %q3, %q1, %q2; add.s64 %q4, %q0, %q2;\n"
#define TAIL "\nret;\n}\n"
enum { LINE_OF_BODY = 11 };       /* behind the prefix and HEAD */

typedef struct Fault { const char *name, *body; uint32_t grid, block; int line; EmuKind kind; const char *says; int thread; } Fault;
static const Fault faults[] = {
    { "index off by one", "ld.global.f32 %f1, [%q3+4]; st.global.f32 [%q4], %f1;", 1, 64, 0, EMU_BOUNDS, "read of 4 bytes at offset 256 of a, which has 256", 63 },
    { "in front of a buffer", "ld.global.f32 %f1, [%q3+-4];", 1, 64, 0, EMU_BOUNDS, "4 in front of a", 0 },
    { "a store out of bounds", "mov.f32 %f1, 0f3F800000; st.global.f32 [%q4+1024], %f1;", 1, 64, 0, EMU_BOUNDS, "write of 4 bytes at offset 1024 of d, which has 256", 0 },
    { "null", "mov.u64 %q5, 0; ld.global.u32 %r9, [%q5+8];", 1, 32, 0, EMU_BOUNDS, "no global address", 0 },
    { "a wild pointer", "mov.u64 %q5, 0x7fff12345678; ld.u32 %r9, [%q5];", 1, 32, 0, EMU_BOUNDS, "where nothing is", 0 },
    { "misaligned vector", "mul.wide.u32 %q5, %r0, 4; add.s64 %q5, %q1, %q5; ld.global.v4.f32 {%f1,%f2,%f3,%f4}, [%q5];", 1, 8, 0, EMU_MISALIGNED, "not aligned to 16", 1 },
    { "wrong swizzle: misaligned row", "xor.b32 %r6, %r4, 4; add.u32 %r6, %r3, %r6; mov.f32 %f1, 0f00000000; st.shared.v2.f32 [%r6], {%f1, %f1};", 1, 32, 0, EMU_MISALIGNED, "not aligned to 8", 0 },
    { "uninitialised output read", "ld.global.f32 %f1, [%q4];", 1, 32, 0, EMU_UNINITIALISED, "offset 0 of d that nobody has written", 0 },
    { "uninitialised tile", "ld.shared.f32 %f1, [%r5];", 1, 32, 0, EMU_UNINITIALISED, "which nobody has written", 0 },
    { "wrong swizzle: a hole in the tile", "shl.b32 %r6, %r0, 3; add.u32 %r6, %r3, %r6; st.shared.u32 [%r6], %r0; bar.sync 0; ld.shared.u32 %r7, [%r5];", 1, 64, 0, EMU_UNINITIALISED, "byte 132 of shared", 33 },
    { "half a word is uninitialised", "cvt.u16.u32 %h1, %r0; st.shared.u16 [%r5], %h1; ld.shared.u32 %r7, [%r5];", 1, 32, 0, EMU_UNINITIALISED, "byte 2 of shared", 0 },
    { "shared memory out of bounds", "st.shared.u32 [%r5+960], %r0;", 1, 32, 0, EMU_BOUNDS, "write of 4 bytes at offset 1024 of shared memory, which has 1024", 16 },
    { "missing barrier, read after write", "st.shared.u32 [%r5], %r0; bar.sync 0; st.shared.u32 [%r5], %r2; xor.b32 %r6, %r0, 32; shl.b32 %r6, %r6, 2; add.u32 %r6, %r3, %r6; ld.shared.u32 %r7, [%r6];", 1, 64, 0, EMU_RACE, "by thread 32", 0 },
    { "missing barrier, write after read", "st.shared.u32 [%r5], %r0; bar.sync 0; setp.ne.u32 %p1, %r0, 63; @%p1 bra L1; ld.shared.u32 %r7, [%r3];\nL1: setp.ne.u32 %p1, %r0, 0;\n@%p1 bra L2; bra L3;\n"
      "L2: ret;\nL3: st.shared.u32 [%r3], %r0;", 1, 64, 4, EMU_RACE, "read by thread 63", 0 },
    { "missing barrier within a warp", "st.shared.u32 [%r5], %r0; xor.b32 %r6, %r0, 1; shl.b32 %r6, %r6, 2; add.u32 %r6, %r3, %r6; ld.shared.u32 %r7, [%r6];", 1, 32, 0, EMU_RACE, "written by thread 1", 0 },
    { "two threads write a byte", "st.shared.u32 [%r3], %r0;", 1, 32, 0, EMU_RACE, "written by thread 0", 1 },
    { "two bytes of a word are no race, one is", "add.u32 %r6, %r3, %r0; cvt.u16.u32 %h1, %r0; st.shared.u8 [%r6], %h1; bar.sync 0;\nshr.u32 %r6, %r0, 1; add.u32 %r6, %r3, %r6; st.shared.u8 [%r6], %h1;", 1, 64, 1, EMU_RACE, "written by thread 32", 33 },
    { "divergent barrier", "setp.lt.u32 %p1, %r0, 16; @%p1 bra L1; bar.sync 0; bra L2;\nL1: add.u32 %r9, %r0, 1;\nbar.sync 0;\nL2:", 1, 32, 0, EMU_CONVERGENCE, "the warp has diverged", 16 },
    { "a barrier in one branch only", "setp.lt.u32 %p1, %r0, 16; @%p1 bra L1;\nbar.sync 0;\nL1: bar.sync 0;", 1, 32, 1, EMU_CONVERGENCE, "the warp has diverged", 16 },
    { "warps at different barriers", "setp.lt.u32 %p1, %r0, 32; @%p1 bra L1;\nbar.sync 0; bra L2;\nL1: bar.sync 0;\nL2:", 1, 64, 1, EMU_BARRIER, "other warps of the block wait for it in line", 32 },
    { "counts differ", "setp.lt.u32 %p1, %r0, 32; selp.u32 %r6, 64, 32, %p1; bar.sync 1, %r6;", 1, 64, 0, EMU_BARRIER, "others came to it for 64", 32 },
    { "deadlock: a barrier that one warp leaves out", "setp.lt.u32 %p1, %r0, 32; @%p1 bra L1; bar.sync 1, 128;\nL1:", 1, 128, 0, EMU_DEADLOCK, "barrier 1 needs 128 threads, 96 came", 32 },
    { "shfl from a lane that has left", "setp.ge.u32 %p1, %r0, 16; @%p1 bra L9; shfl.sync.idx.b32 %r7, %r0, 20, 31, 0xffffffff;\nL9:", 1, 32, 0, EMU_CONVERGENCE, "takes the value of thread 20", 0 },
    { "shfl whose mask leaves the lane out", "shfl.sync.bfly.b32 %r7, %r0, 1, 31, 0xffff;", 1, 32, 0, EMU_CONVERGENCE, "leaves out the thread", 16 },
    { "mma by half a warp", "mov.f32 %f1, 0f00000000; setp.lt.u32 %p1, %r0, 16; @%p1 bra L1; ret;\nL1: mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f2,%f3,%f4,%f5}, {%r0,%r0,%r0,%r0}, {%r0,%r0}, {%f1,%f1,%f1,%f1};",
      1, 32, 1, EMU_CONVERGENCE, "needs all 32 lanes", 0 },
    { "ldmatrix in a divergent warp", "st.shared.u32 [%r5], %r0; bar.sync 0; setp.lt.u32 %p1, %r0, 16; @%p1 bra L1; bra L2;\nL1: ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r7}, [%r3];\nL2: bar.sync 0;",
      1, 32, 1, EMU_CONVERGENCE, "waits for thread 16", 0 },
    { "ldmatrix: misaligned row", "st.shared.u32 [%r5], %r0; bar.sync 0; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r7}, [%r5];", 1, 32, 0, EMU_MISALIGNED, "not aligned to 16", 1 },
    { "ldmatrix: an uninitialised row", "setp.eq.u32 %p1, %r0, 31; @%p1 bra L1; st.shared.u32 [%r5], %r0;\nL1: bar.sync 0;\nshl.b32 %r6, %r0, 4; and.b32 %r6, %r6, 127; add.u32 %r6, %r3, %r6; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r7}, [%r6];",
      1, 32, 2, EMU_UNINITIALISED, "byte 124 of shared", 31 },
    { "cp.async read before it is waited for", "cp.async.ca.shared.global [%r5], [%q3], 4; cp.async.commit_group; ld.shared.u32 %r7, [%r5];", 1, 32, 0, EMU_ASYNC, "has not been waited for", 0 },
    { "cp.async waited for a group too late", "cp.async.ca.shared.global [%r5], [%q3], 4; cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r7, [%r5];", 1, 32, 0, EMU_ASYNC, "has not been waited for", 0 },
    { "cp.async waited for, then read by others without a barrier", "cp.async.ca.shared.global [%r5], [%q3], 4; cp.async.wait_all; setp.lt.u32 %p1, %r0, 32; @%p1 bra L1;\nxor.b32 %r6, %r5, 128; ld.shared.u32 %r7, [%r6];\nL1:", 1, 64, 1, EMU_RACE, "written by thread 0", 32 },
    { "cp.async, barrier, but no wait", "cp.async.ca.shared.global [%r5], [%q3], 4; cp.async.commit_group; bar.sync 0; xor.b32 %r6, %r5, 128; ld.shared.u32 %r7, [%r6];", 1, 64, 0, EMU_ASYNC, "has not been waited for", 32 },
    { "cp.async over a tile that is still read", "st.shared.u32 [%r5], %r0; bar.sync 0; ld.shared.u32 %r7, [%r3]; cp.async.ca.shared.global [%r5], [%q3], 4;", 1, 64, 0, EMU_RACE, "read by thread", -1 },
    { "cp.async misaligned", "cp.async.cg.shared.global [%r5], [%q3], 16;", 1, 32, 0, EMU_MISALIGNED, "not aligned to 16", 1 },
    { "cp.async out of bounds", "shl.b32 %r6, %r0, 4; add.u32 %r6, %r3, %r6; mul.wide.u32 %q5, %r0, 16; add.s64 %q5, %q1, %q5; cp.async.cg.shared.global [%r6], [%q5], 16;", 1, 32, 0, EMU_BOUNDS, "read of 16 bytes at offset 256 of a", 16 },
    { "a register that nobody wrote", "setp.eq.u32 %p1, %r0, 5; @%p1 bra L1; mov.u32 %r9, 1;\nL1: add.u32 %r10, %r9, 1;", 1, 32, 1, EMU_REGISTER, "reads the register %r9", 5 },
    { "an endless loop", "L1: add.u32 %r4, %r4, 1; bra L1;", 1, 32, 0, EMU_ENDLESS, "endless", -2 },
    { "trap", "setp.eq.u32 %p1, %r0, 7; @%p1 trap;", 1, 32, 0, EMU_TRAP, "stops itself", 7 },
    { "in block 3", "setp.eq.u32 %p1, %r1, 3; @!%p1 bra L1; mov.u64 %q5, 0; ld.global.u32 %r9, [%q5];\nL1:", 8, 32, 0, EMU_BOUNDS, "block 3, thread 0", 0 },
    { "a parameter beyond the last", "ld.param.u64 %q5, [pa+8];", 1, 32, 0, EMU_BOUNDS, "of the parameters, which have 16", 0 },
    { "local memory out of bounds", ".local .align 4 .b8 mine[16]; st.local.u32 [mine+16], %r0;", 1, 32, 0, EMU_BOUNDS, "offset 16 of local memory, which has 16", 0 },
    { "local memory uninitialised", ".local .align 4 .b8 mine[16]; st.local.u32 [mine], %r0; ld.local.u32 %r6, [mine+4];", 1, 32, 0, EMU_UNINITIALISED, "offset 4 of local memory", 0 },
    { "missing barrier, global memory", "st.global.u32 [%q4], %r0; bar.sync 0; st.global.u32 [%q4], %r2; xor.b32 %r6, %r0, 32; mul.wide.u32 %q5, %r6, 4; add.s64 %q5, %q5, %q0;\nld.global.u32 %r7, [%q5];", 1, 64, 1, EMU_RACE, "of d, written by thread", -1 },
    { "two threads write a word of global memory", "st.global.u32 [%q0], %r0;", 1, 32, 0, EMU_RACE, "written by thread 0", 1 },
    { "two blocks write a word", "shl.b32 %r6, %r1, 5; add.u32 %r6, %r6, %r0; shr.u32 %r6, %r6, 1; setp.gt.u32 %p1, %r0, 0; @%p1 ret;\nmul.wide.u32 %q5, %r6, 4; add.s64 %q5, %q5, %q0; st.global.v2.u32 [%q5], {%r0, %r1}; st.global.u32 [%q0+128], %r0;",
      3, 32, 1, EMU_RACE, "race of blocks: write at offset 128 of d, which block 0 writes", 0 },
    { "a block reads what another writes", "mul.wide.u32 %q5, %r1, 4; setp.gt.u32 %p1, %r0, 0; @%p1 ret; add.s64 %q6, %q5, %q1; st.global.u32 [%q6], %r1; ld.global.u32 %r6, [%q6+-4];", 2, 32, 0, EMU_BOUNDS, "in front of a", 0 },
    { "a block writes what another has read", "mul.wide.u32 %q5, %r1, 4; setp.gt.u32 %p1, %r0, 0; @%p1 ret; add.s64 %q6, %q5, %q1; ld.global.u32 %r6, [%q6+4]; st.global.u32 [%q6], %r1;", 4, 32, 0, EMU_RACE,
      "race of blocks: write at offset 4 of a, which block 0 reads", 0 },
    { "ld.global.nc of what the kernel writes", "st.global.u32 [%q4], %r0; bar.sync 0;\nld.global.nc.u32 %r6, [%q4];", 1, 64, 1, EMU_RACE, "ld.global.nc at offset", -1 },
    { "atomic on what nobody wrote", "atom.shared.add.u32 %r6, [%r3], 1;", 1, 32, 0, EMU_UNINITIALISED, "nobody has written", 0 },
};

static void test_faults(Pool *pool) {
    for (size_t k = 0; k < sizeof faults / sizeof *faults; k++) {
        const Fault *f = &faults[k];
        char *text = NULL;
        Case c;
        static uint32_t data[64];
        if (asprintf(&text, "%s%s%s", HEAD, f->body, TAIL) < 0) return;
        bool loaded = case_load(&c, text);
        free(text);
        if (!loaded) { ok(false, "%s: %s", f->name, c.err); continue; }
        for (int two = 0; two < 2; two++) {                      /* the same report for one thread and for two */
            c.nranges = c.nparams = 0;
            case_buffer(&c, NULL, 256, "d");
            case_buffer(&c, data, 256, "a");
            c.launch.budget = 100000;
            int rc = case_run(&c, f->grid, f->block, 0, 1, two ? pool : NULL);
            const EmuReport *r = c.report;
            ok(rc == 1 && (rc < 1 || r->kind == f->kind), "%s: %d reports, kind %d: %s", f->name, rc, rc > 0 ? (int)r->kind : -1, rc > 0 ? r->text : c.err);
            if (rc > 0) {
                ok(strstr(r->text, f->says) != NULL, "%s: says '%s', not '%s'", f->name, r->text, f->says);
                if (f->line >= 0 && f->kind != EMU_ENDLESS) ok(r->line == LINE_OF_BODY + f->line, "%s: line %d, not %d: %s", f->name, r->line, LINE_OF_BODY + f->line, r->text);
                if (f->thread >= 0) ok(r->thread == f->thread, "%s: thread %d, not %d: %s", f->name, r->thread, f->thread, r->text);
                ok(strchr(r->text, '\n') == NULL && strlen(r->text) < ERR_TEXT - 1, "%s: one line, not cut: %s", f->name, r->text);
            }
            for (int j = 0; j < c.nranges; j++) free(c.range[j].host), free(c.range[j].written), free(c.range[j].marks), free(c.range[j].readers);
        }
        c.nranges = 0;
        case_free(&c);
    }
}

/* -- Right programs: what they compute, and that nothing is reported ---------------------------------------------------- */

#define HALF "%q4"       /* d + 4 tid */
typedef struct Right { const char *name, *body; uint32_t block; uint32_t (*want)(uint32_t tid, const uint32_t *a); } Right;
#define W(name) static uint32_t w_##name(uint32_t t, const uint32_t *a)
#define UNUSED (void)t, (void)a
W(tid) { UNUSED; return t; }
W(in) { return a[t]; }
W(cp) { return t % 4 == 0 ? a[t] : t % 4 == 1 ? a[t] & 0xffff : t % 4 == 2 ? 0 : a[t] & 0xffffff; }
W(other) { UNUSED; return t ^ 32; }
W(producer) { UNUSED; return t < 32 ? 7 : (t ^ 32) * 3; }
W(sum) { uint32_t s = 0; (void)t; for (int k = 0; k < 64; k++) s += a[k]; return s; }
W(odd) { (void)t; uint32_t n = 0; for (int k = 0; k < 64; k++) n += a[k] & 1; return n * 4 + (n == 64) * 2 + (n > 0); }
W(parts) { return (a[t] & 0xffff) << 16 | a[t] >> 16; }
W(quarters) { return a[t] >> 16 ^ ((t & 0xffff) << 16 | t >> 16); }
W(bytes) { return ((uint32_t)(int8_t)a[t] & 0xffff0000) | (uint8_t)(a[t] >> 8) | (uint32_t)((uint8_t)(a[t] >> 24)) << 8; }
W(table) { static const uint32_t v[] = { 11, 22, 33, 0 }; (void)a; return v[t & 3] + (t & 1 ? 5 : 9); }
W(inc) { UNUSED; return 64 % 10; }
W(most) { uint32_t m = 0; (void)t; for (int k = 0; k < 64; k++) m = a[k] > m ? a[k] : m; return m; }
W(least) { int32_t m = INT32_MAX; (void)t; for (int k = 0; k < 64; k++) m = (int32_t)a[k] < m ? (int32_t)a[k] : m; return (uint32_t)m; }
W(bits) { uint32_t m = 0; (void)t; for (int k = 0; k < 64; k++) m ^= a[k]; return m; }
W(lock) { UNUSED; return 64; }
W(real) { UNUSED; uint32_t u; float f = 32.0f * 63; memcpy(&u, &f, 4); return u; }
W(spaces) { UNUSED; return 1 | 0 << 1 | 1 << 2 | 1 << 3; }
W(dual) { int p = (int32_t)a[t] < 5; return (uint32_t)((p && t % 2) | (!p && t % 2) << 1); }
W(shape) { UNUSED; return 64 | t % 32 << 8 | t / 32 << 16; }
W(redux) { uint32_t m = ~0u, base = t & ~31u; for (uint32_t k = base; k < base + 32; k++) m &= a[k]; return m; }
W(prefix) { UNUSED; return (1u << t % 32) - 1; }
W(call) { return a[t] * 3 + t + 1; }
W(exits) { UNUSED; return t < 40 ? t : 99; }
W(jumps) { uint32_t v = t, n = 0; (void)a; while (v > 2) { v = v & 1 ? v - 1 : v / 2; n++; if (n == 5) break; } return v * 100 + n; }
static const Right right[] = {
    { "a store", "st.global.u32 [" HALF "], %r0;", 64, w_tid },
    { "through shared memory, generic addresses", "st.shared.u32 [%r5], %r0; bar.sync 0; cvt.u64.u32 %q5, %r5; cvta.shared.u64 %q5, %q5; ld.u32 %r6, [%q5]; cvta.to.shared.u64 %q6, %q5; ld.shared.u32 %r7, [%q6];\n"
      "and.b32 %r6, %r6, %r7; st.u32 [" HALF "], %r6;", 64, w_tid },
    { "cp.async, all sizes of a source", "and.b32 %r6, %r0, 3; mov.u32 %r7, 4; setp.eq.u32 %p1, %r6, 1; @%p1 mov.u32 %r7, 2; setp.eq.u32 %p1, %r6, 2; @%p1 mov.u32 %r7, 0; setp.eq.u32 %p1, %r6, 3; @%p1 mov.u32 %r7, 3;\n"
      "cp.async.ca.shared.global [%r5], [%q3], 4, %r7; cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %r8, [%r5]; st.global.u32 [" HALF "], %r8;", 64, w_cp },
    { "cp.async in two groups, the older is waited for", "cp.async.ca.shared.global [%r5], [%q3], 4; cp.async.commit_group; cp.async.ca.shared.global [%r5+512], [%q3], 4; cp.async.commit_group; cp.async.wait_group 1; bar.sync 0;\n"
      "ld.shared.u32 %r8, [%r5]; cp.async.wait_all; st.global.u32 [" HALF "], %r8;", 64, w_in },
    { "cp.async of 16 bytes", "shl.b32 %r6, %r0, 4; add.u32 %r6, %r3, %r6; and.b32 %r7, %r0, 15; mul.wide.u32 %q5, %r7, 16; add.s64 %q5, %q1, %q5; cp.async.cg.shared.global.L2::128B [%r6], [%q5], 16; cp.async.wait_all; bar.sync 0;\n"
      "ld.shared.u32 %r8, [%r5]; st.global.u32 [" HALF "], %r8;", 64, w_in },
    { "warps that exchange", "st.shared.u32 [%r5], %r0; barrier.sync 3, 64; xor.b32 %r6, %r5, 128; ld.shared.u32 %r7, [%r6]; st.global.u32 [" HALF "], %r7;", 64, w_other },
    { "a producer arrives, a consumer waits", "setp.lt.u32 %p1, %r0, 32; @!%p1 bra L1; mul.lo.u32 %r6, %r0, 3; st.shared.u32 [%r5], %r6; bar.arrive 1, 64; mov.u32 %r7, 7; bra L2;\n"
      "L1: bar.sync 1, 64; ld.shared.u32 %r7, [%r5+-128];\nL2: st.global.u32 [" HALF "], %r7;", 64, w_producer },
    { "warp by warp, bar.warp.sync", "st.shared.u32 [%r5], %r0; bar.warp.sync 0xffffffff; xor.b32 %r6, %r5, 4; ld.shared.u32 %r7, [%r6]; xor.b32 %r7, %r7, 1; st.global.u32 [" HALF "], %r7;", 64, w_tid },
    { "a tree in shared memory", "ld.global.u32 %r6, [%q3]; st.shared.u32 [%r5], %r6; mov.u32 %r7, 128;\nL1: bar.sync 0; shr.u32 %r8, %r7, 2; setp.ge.u32 %p1, %r0, %r8; @%p1 bra L2; add.u32 %r9, %r5, %r7;\n"
      "ld.shared.u32 %r10, [%r9]; ld.shared.u32 %r11, [%r5]; add.u32 %r11, %r10, %r11; st.shared.u32 [%r5], %r11;\nL2: shr.u32 %r7, %r7, 1; setp.ge.u32 %p2, %r7, 4; @%p2 bra L1; bar.sync 0;\n"
      "ld.shared.u32 %r12, [%r3]; st.global.u32 [" HALF "], %r12;", 64, w_sum },
    { "bar.red", "ld.global.u32 %r6, [%q3]; and.b32 %r6, %r6, 1; setp.ne.u32 %p1, %r6, 0; bar.red.popc.u32 %r7, 0, %p1; bar.red.and.pred %p2, 0, %p1; bar.red.or.pred %p3, 0, %p1;\n"
      "selp.u32 %r8, 2, 0, %p2; selp.u32 %r9, 1, 0, %p3; mad.lo.u32 %r7, %r7, 4, %r8; add.u32 %r7, %r7, %r9; st.global.u32 [" HALF "], %r7;", 64, w_odd },
    { "parts of a register", "ld.global.u32 %r6, [%q3]; mov.b32 {%h1, %h2}, %r6; mov.b32 %r7, {%h2, %h1}; st.global.u32 [" HALF "], %r7;", 64, w_parts },
    { "quarters and sinks", "ld.global.u32 %r6, [%q3]; mov.b64 %q5, {%r6, %r0}; mov.b64 {%h1, %h2, %h3, %h4}, %q5; mov.b64 %q6, {%h2, %h1, %h4, %h3}; mov.b64 {_, %r8}, %q6; cvt.u32.u16 %r9, %h2; xor.b32 %r8, %r8, %r9;\n"
      "st.global.u32 [" HALF "], %r8;", 64, w_quarters },
    { "vectors of bytes and halves", "ld.global.v4.u8 {%h1, %h2, %h3, %h4}, [%q3]; ld.global.s8 %r6, [%q3]; and.b32 %r6, %r6, 0xffff0000; cvt.u32.u16 %r7, %h2; or.b32 %r6, %r6, %r7; cvt.u32.u16 %r8, %h4; shl.b32 %r8, %r8, 8;\n"
      "or.b32 %r6, %r6, %r8; mov.b32 {%h5, %h6}, %r6; st.global.v2.b16 [" HALF "], {%h5, %h6};", 64, w_bytes },
    { "tables of the module", "and.b32 %r6, %r0, 3; mul.wide.u32 %q5, %r6, 4; mov.u64 %q6, table; add.s64 %q5, %q5, %q6; ld.const.u32 %r7, [%q5]; and.b32 %r8, %r0, 1; setp.ne.u32 %p1, %r8, 0;\n"
      "ld.global.u32 %r9, [values]; @%p1 ld.global.u32 %r9, [values+4]; add.u32 %r7, %r7, %r9; st.global.u32 [" HALF "], %r7;", 64, w_table },
    { "atom.inc", "setp.ne.u32 %p1, %r0, 0; mov.u32 %r6, 0; @!%p1 st.shared.u32 [%r3], %r6; bar.sync 0; atom.shared.inc.u32 %r7, [%r3], 9; bar.sync 0; ld.shared.u32 %r8, [%r3]; st.global.u32 [" HALF "], %r8;", 64, w_inc },
    { "atom.max, red.min, red.xor", "ld.global.u32 %r6, [%q3]; setp.ne.u32 %p1, %r0, 0; mov.u32 %r7, 0; @!%p1 st.shared.u32 [%r3], %r7; bar.sync 0; atom.shared.max.u32 %r8, [%r3], %r6; bar.sync 0; ld.shared.u32 %r8, [%r3];\n"
      "st.global.u32 [" HALF "], %r8;", 64, w_most },
    { "red.min.s32", "ld.global.u32 %r6, [%q3]; setp.ne.u32 %p1, %r0, 0; mov.u32 %r7, 0x7fffffff; @!%p1 st.shared.u32 [%r3], %r7; bar.sync 0; red.shared.min.s32 [%r3], %r6; bar.sync 0; ld.shared.u32 %r8, [%r3]; st.global.u32 [" HALF "], %r8;",
      64, w_least },
    { "red.xor.b32", "ld.global.u32 %r6, [%q3]; setp.ne.u32 %p1, %r0, 0; mov.u32 %r7, 0; @!%p1 st.shared.u32 [%r3], %r7; bar.sync 0; red.shared.xor.b32 [%r3], %r6; bar.sync 0; ld.shared.u32 %r8, [%r3]; st.global.u32 [" HALF "], %r8;",
      64, w_bits },
    { "a lock by atom.cas, taken lane by lane", "setp.ne.u32 %p1, %r0, 0; mov.u32 %r6, 0; @!%p1 st.shared.v2.u32 [%r3], {%r6, %r6}; bar.sync 0;\nL1: atom.shared.cas.b32 %r7, [%r3], 0, 1; setp.ne.u32 %p2, %r7, 0; @%p2 bra L1;\n"
      "atom.shared.add.u32 %r8, [%r3+4], 1; atom.shared.exch.b32 %r9, [%r3], 0; bar.sync 0; ld.shared.u32 %r8, [%r3+4]; st.global.u32 [" HALF "], %r8;", 64, w_lock },
    { "atom.add.f32", "setp.ne.u32 %p1, %r0, 0; mov.f32 %f1, 0f00000000; @!%p1 st.shared.f32 [%r3], %f1; bar.sync 0; cvt.rn.f32.u32 %f2, %r0; atom.shared.add.f32 %f3, [%r3], %f2; bar.sync 0; ld.shared.f32 %f4, [%r3]; st.global.f32 [" HALF "], %f4;",
      64, w_real },
    { "isspacep", "cvt.u64.u32 %q5, %r5; cvta.shared.u64 %q5, %q5; isspacep.shared %p1, %q5; isspacep.global %p2, %q5; isspacep.global %p3, %q0; .local .b32 here; st.local.u32 [here], %r0; mov.u64 %q6, here; cvta.local.u64 %q6, %q6;\n"
      "isspacep.local %p4, %q6; selp.u32 %r6, 1, 0, %p1; selp.u32 %r7, 2, 0, %p2; selp.u32 %r8, 4, 0, %p3; selp.u32 %r9, 8, 0, %p4; or.b32 %r6, %r6, %r7; or.b32 %r6, %r6, %r8; or.b32 %r6, %r6, %r9; st.global.u32 [" HALF "], %r6;", 64, w_spaces },
    { "two results of setp", "ld.global.u32 %r6, [%q3]; and.b32 %r7, %r0, 1; setp.ne.u32 %p1, %r7, 0; setp.lt.and.s32 %p2|%p3, %r6, 5, %p1; selp.u32 %r8, 1, 0, %p2; selp.u32 %r9, 2, 0, %p3; or.b32 %r8, %r8, %r9; st.global.u32 [" HALF "], %r8;", 64, w_dual },
    { "special registers", "mov.u32 %r6, %laneid; mov.u32 %r7, %warpid; shl.b32 %r6, %r6, 8; shl.b32 %r7, %r7, 16; or.b32 %r6, %r6, %r7; or.b32 %r6, %r6, %ntid.x; st.global.u32 [" HALF "], %r6;", 64, w_shape },
    { "redux.and", "ld.global.u32 %r6, [%q3]; redux.sync.and.b32 %r7, %r6, 0xffffffff; st.global.u32 [" HALF "], %r7;", 64, w_redux },
    { "lanemask", "mov.u32 %r6, %lanemask_lt; st.global.u32 [" HALF "], %r6;", 64, w_prefix },
    { "one warp waits for a flag that another sets", "mov.u32 %r6, 0; setp.ne.u32 %p1, %r0, 0; @!%p1 st.shared.u32 [%r3], %r6; bar.sync 0; setp.ge.u32 %p2, %r0, 32; @%p2 bra L2;\nL1: nanosleep.u32 20; atom.shared.or.b32 %r7, [%r3], 0;\n"
      "setp.eq.u32 %p3, %r7, 0; @%p3 bra L1; bra L3;\nL2: setp.ne.u32 %p1, %r0, 40; @%p1 bra L3; atom.shared.exch.b32 %r8, [%r3], 1;\nL3: st.global.u32 [" HALF "], %r0;", 64, w_tid },
    { "calls", "ld.global.u32 %r6, [%q3];\n{ .param .b32 p0; .param .b32 p1; .param .b32 r; st.param.b32 [p0], %r6; st.param.b32 [p1], %r0; call.uni (r), triple, (p0, p1); ld.param.b32 %r7, [r]; }\nst.global.u32 [" HALF "], %r7;", 64, w_call },
    { "some lanes leave early", "mov.u32 %r6, 99; st.global.u32 [" HALF "], %r6; setp.ge.u32 %p1, %r0, 40; @%p1 ret; bar.sync 0; st.global.u32 [" HALF "], %r0;", 64, w_exits },
    { "loops that end at different times", "mov.u32 %r6, %r0; mov.u32 %r7, 0;\nL1: setp.le.u32 %p1, %r6, 2; @%p1 bra L3; and.b32 %r8, %r6, 1; setp.eq.u32 %p2, %r8, 0; @%p2 bra L2; sub.u32 %r6, %r6, 1; bra L4;\nL2: shr.u32 %r6, %r6, 1;\n"
      "L4: add.u32 %r7, %r7, 1; setp.ne.u32 %p3, %r7, 5; @%p3 bra L1;\nL3: mad.lo.u32 %r6, %r6, 100, %r7; bar.sync 0; st.global.u32 [" HALF "], %r6;", 64, w_jumps },
};
static const char MODULE[] = ".const .align 4 .u32 table[4] = { 11, 22, 33 };\n.global .align 4 .u32 values[2] = { 9, 5 };\n"
    ".func (.param .b32 res) triple(.param .b32 x, .param .b32 y)\n{ .reg .b32 %r<9>; .reg .pred %p<3>; ld.param.b32 %r0, [x]; ld.param.b32 %r1, [y]; setp.eq.u32 %p1, %r1, 7; @%p1 bra L1; mad.lo.u32 %r2, %r0, 3, %r1; add.u32 %r2, %r2, 1; st.param.b32 [res], %r2; ret;\n"
    "L1: mul.lo.u32 %r2, %r0, 3; add.u32 %r2, %r2, 8; st.param.b32 [res], %r2; ret; }\n";

static void test_right(Pool *pool) {
    for (size_t k = 0; k < sizeof right / sizeof *right; k++) {
        const Right *t = &right[k];
        uint32_t in[64];
        char *text = NULL;
        Case c;
        int wrong = -1;
        for (int i = 0; i < 64; i++) in[i] = (uint32_t)draw64() >> (i % 3 * 8);
        if (asprintf(&text, "%s%s%s%s", MODULE, HEAD, t->body, TAIL) < 0) return;
        bool loaded = case_load(&c, text);
        free(text);
        if (!loaded) { ok(false, "%s: %s", t->name, c.err); case_free(&c); continue; }
        uint32_t *d = case_buffer(&c, NULL, 256, "d");
        case_buffer(&c, in, 256, "a");
        int rc = case_run(&c, 1, t->block, 0, 4, pool);
        ok(rc == 0, "%s: %s", t->name, rc > 0 ? c.report[0].text : c.err);
        for (uint32_t i = 0; i < t->block && wrong < 0; i++) if (d[i] != t->want(i, in)) wrong = (int)i;
        ok(wrong < 0, "%s: thread %d has 0x%x, not 0x%x", t->name, wrong, wrong < 0 ? 0 : d[wrong], wrong < 0 ? 0 : t->want((uint32_t)wrong, in));
        case_free(&c);
    }
}

int main(int argc, char **argv) {
    Pool *pool = snR_pool_new(2);
    (void)argc, (void)argv;
    test_lanes(pool);
    test_right(pool);
    test_faults(pool);
    snR_pool_free(pool);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
