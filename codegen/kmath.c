/* kmath.c: elementary functions, Philox and the scalar functions of scalar.def, in kernel IR.
   In: values. Out: values.

   Everything is f32 lanes: reduce the range, evaluate a polynomial by fma, undo the reduction;
   no tables, no branches. At most 2 ulp against libm in double; tests/unit_kir.c checks every
   1021st float, SN_LONG=1 all of them. bf16 and f16 operands are widened and the result rounded
   back.

   Coefficients are our own: Remez exchange in 40 digits with the weight that makes the RELATIVE
   error of the function even, coefficients rounded to f32 from the lowest power up and the rest
   fitted again each time. The error that the comment at a table names is that of the rounded
   polynomial in exact arithmetic.

   Laws: a NaN operand gives NaN. min(K, x) and max(K, x) with the constant first let NaN through
   (kir.def: a < b ? a : b). */
#include "graph/graph.h"
#include "codegen/kir.h"
#include <math.h>

/* A small notation: m.k is the kernel, m.f the f32 type, m.i and m.b i32 and bool of the same
   lanes. */
typedef struct Math { Kernel *k; KType f, i, b; } Math;

static Math math(Kernel *k, KVal x) {
    int n = snK_type(k, x).lanes;
    return (Math){ k, kt(K_F32, n), kt(K_I32, n), kt(K_BOOL, n) };
}

static KVal num(Math m, double v) { return snK_float(m.k, m.f, v); }
static KVal inum(Math m, int64_t v) { return snK_int(m.k, m.i, v); }
static KVal add(Math m, KVal a, KVal b) { return snK_op(m.k, K_add, m.f, a, b, 0); }
static KVal sub(Math m, KVal a, KVal b) { return snK_op(m.k, K_sub, m.f, a, b, 0); }
static KVal mul(Math m, KVal a, KVal b) { return snK_op(m.k, K_mul, m.f, a, b, 0); }
static KVal quo(Math m, KVal a, KVal b) { return snK_op(m.k, K_div, m.f, a, b, 0); }
static KVal fma_(Math m, KVal a, KVal b, KVal c) { return snK_op(m.k, K_fma, m.f, a, b, c); }
static KVal neg(Math m, KVal a) { return snK_op(m.k, K_neg, m.f, a, 0, 0); }
static KVal absolute(Math m, KVal a) { return snK_op(m.k, K_abs, m.f, a, 0, 0); }
static KVal at_most(Math m, double c, KVal x) { return snK_op(m.k, K_min, m.f, num(m, c), x, 0); }
static KVal at_least(Math m, double c, KVal x) { return snK_op(m.k, K_max, m.f, num(m, c), x, 0); }
static KVal test(Math m, int op, KVal a, KVal b) { return snK_op(m.k, op, m.b, a, b, 0); }
static KVal both(Math m, KVal a, KVal b) { return snK_op(m.k, K_and, m.b, a, b, 0); }
static KVal either(Math m, KVal a, KVal b) { return snK_op(m.k, K_or, m.b, a, b, 0); }
static KVal pick(Math m, KVal c, KVal a, KVal b) {
    return snK_op(m.k, K_select, snK_type(m.k, a), c, a, b);
}
static KVal bits(Math m, KVal x) { return snK_op(m.k, K_bitcast, m.i, x, 0, 0); }
static KVal from_bits(Math m, KVal x) { return snK_op(m.k, K_bitcast, m.f, x, 0, 0); }
static KVal iop(Math m, int op, KVal a, int64_t c) {
    return snK_op(m.k, op, m.i, a, inum(m, c), 0);
}

/* c[0] + x (c[1] + x (c[2] + ...)) */
static KVal poly(Math m, KVal x, const float *c, int n) {
    KVal r = num(m, (double)c[n - 1]);
    while (--n > 0) r = fma_(m, r, x, num(m, (double)c[n - 1]));
    return r;
}

/* x * scale to the nearest integer: adding 1.5 * 2^23 rounds to one. */
static KVal nearest(Math m, KVal x, double scale) {
    return sub(m, fma_(m, x, num(m, scale), num(m, 12582912)), num(m, 12582912));
}

/* |x| with the sign of s. */
static KVal with_sign(Math m, KVal x, KVal s) {
    KVal sign = iop(m, K_and, bits(m, s), INT32_MIN);
    return from_bits(m, snK_op(m.k, K_or, m.i, bits(m, x), sign, 0));
}

/* -- exp --------------------------------------------------------------------------------------- */

/* The same where the machine has 2^t to 2 ulp: t = x log2(e) rounded, d what that left, 2^t (1 + d ln2): a quarter of
   the instructions. */
static KVal exp_by_ex2(Math m, KVal x, KVal tail) {
    x = at_least(m, -105, at_most(m, 0x1.62e430p+6, x));       /* the first whose e^x is infinite: there d > 0 */
    KVal t = mul(m, x, num(m, 0x1.715476p+0));
    KVal d = fma_(m, x, num(m, 0x1.715476p+0), neg(m, t));
    d = fma_(m, x, num(m, 0x1.4ae0c0p-26), d);                 /* the rest of log2(e) */
    if (tail) d = fma_(m, tail, num(m, 0x1.715476p+0), d);
    KVal y = snK_op(m.k, K_ex2, m.f, t, 0, 0);
    return fma_(m, y, mul(m, d, num(m, 0x1.62e430p-1)), y);
}

/* e^(x + tail), |tail| much smaller than x: x = n ln2 + r, |r| <= ln2 / 2, e^r = 1 + r (1 + r
   q(r)), times 2^n, rounded once near both ends of the range. tail = 0: none. */
static KVal exp_sum(Math m, KVal x, KVal tail) {
    if (m.k->ex2) return exp_by_ex2(m, x, tail);
    static const float q[] = { 0x1.fffffcp-2f, 0x1.55548cp-3f, 0x1.55585ap-5f, 0x1.123d7p-7f,
                               0x1.6ab89ep-10f }; /* 3.2e-9 */
    KVal gone = test(m, K_lt, x, num(m, -104));        /* 0: not by underflow, for which some CPUs stop */
    x = pick(m, gone, num(m, 0), at_most(m, 90, x));
    KVal n = nearest(m, x, 0x1.715476p+0);
    KVal r = fma_(m, n, num(m, -0x1.62e400p-1), x);    /* n times the first part of ln2 is exact */
    r = fma_(m, n, num(m, -0x1.7f7d1cp-20), r);
    if (tail) r = add(m, r, tail);
    KVal p = fma_(m, poly(m, r, q, 5), r, num(m, 1));
    p = fma_(m, p, r, num(m, 1));
    return pick(m, gone, num(m, 0), snK_op(m.k, K_ldexp, m.f, p, n, 0));
}

static KVal exp_f32(Kernel *k, KVal x) { return exp_sum(math(k, x), x, 0); }

/* 2^x: x = n + r exactly, |r| <= 1/2, 2^r = 1 + r g(r), times 2^n; as exp otherwise. One instruction where the machine has it. */
static KVal exp2_f32(Kernel *k, KVal x) {
    Math m = math(k, x);
    if (k->ex2) return snK_op(k, K_ex2, m.f, x, 0, 0);
    static const float g[] = { 0x1.62e430p-1f, 0x1.ebfbe0p-3f, 0x1.c6af6cp-5f, 0x1.3b2a54p-7f, 0x1.5f0890p-10f, 0x1.44138ap-13f }; /* 2.9e-8 */
    KVal gone = test(m, K_lt, x, num(m, -150));
    x = pick(m, gone, num(m, 0), at_most(m, 129, x));
    KVal n = nearest(m, x, 1), r = sub(m, x, n), p = fma_(m, poly(m, r, g, 6), r, num(m, 1));
    return pick(m, gone, num(m, 0), snK_op(k, K_ldexp, m.f, p, n, 0));
}

/* -- log --------------------------------------------------------------------------------------- */

/* x = 2^e f with f in [sqrt(1/2), sqrt(2)), for positive finite x, subnormal too. */
static void split(Math m, KVal x, KVal *e, KVal *f) {
    KVal tiny = test(m, K_lt, x, num(m, 0x1p-126));
    KVal b = bits(m, pick(m, tiny, mul(m, x, num(m, 0x1p23)), x));
    KVal from = iop(m, K_sub, b, 0x3f3504f3);                           /* bits of sqrt(1/2) */
    KVal n = iop(m, K_shr, from, 23);
    *f = from_bits(m, iop(m, K_add, iop(m, K_and, from, 0x7fffff), 0x3f3504f3));
    n = snK_op(m.k, K_sub, m.i, n, pick(m, tiny, inum(m, 23), inum(m, 0)), 0);
    *e = snK_op(m.k, K_cast, m.f, n, 0, 0);
}

/* log(f) = g - g^2/2 + g^3 p(g), g = f - 1; plus e ln2 in two parts. */
static KVal log_f32(Kernel *k, KVal x) {
    static const float p[] = { 0x1.555548p-2f,  -0x1.00007p-2f,  0x1.99a54p-3f,
                               -0x1.552f18p-3f, 0x1.23036ep-3f,  -0x1.0103e2p-3f,
                               0x1.efcb8p-4f,   -0x1.b99ba4p-4f, 0x1.9caa12p-5f }; /* 3.2e-8 */
    Math m = math(k, x);
    KVal e, f;
    split(m, x, &e, &f);
    KVal g = sub(m, f, num(m, 1)), z = mul(m, g, g);
    KVal y = mul(m, mul(m, g, z), poly(m, g, p, 9));
    y = fma_(m, e, num(m, 0x1.7f7d1cp-20), y);
    y = fma_(m, z, num(m, -0.5), y);
    y = fma_(m, e, num(m, 0x1.62e400p-1), add(m, g, y));
    double inf = (double)INFINITY;
    y = pick(m, test(m, K_lt, x, num(m, inf)), y, x);                  /* inf and NaN */
    y = pick(m, test(m, K_lt, x, num(m, 0)), num(m, (double)NAN), y);
    return pick(m, test(m, K_eq, x, num(m, 0)), num(m, -inf), y);
}

/* -- tanh, erf --------------------------------------------------------------------------------- */

/* Small: x + x z p(z), z = x^2. Large: 1 - 2 / (e^2|x| + 1). */
static KVal tanh_f32(Kernel *k, KVal x) {
    static const float p[] = { -0x1.555532p-2f, 0x1.1106e4p-3f, -0x1.b8318ap-5f, 0x1.51d4dcp-6f,
                               -0x1.744a0ep-8f }; /* 4.5e-9 */
    Math m = math(k, x);
    KVal a = absolute(m, x), z = mul(m, x, x);
    KVal small = fma_(m, mul(m, a, z), poly(m, z, p, 5), a);
    KVal large =
        sub(m, num(m, 1), quo(m, num(m, 2), add(m, exp_sum(m, add(m, a, a), 0), num(m, 1))));
    return with_sign(m, pick(m, test(m, K_gt, a, num(m, 0.625)), large, small), x);
}

/* Small: x + x p(z). Large: 1 - exp(-t - t q(t)), t = min(|x|, 4). */
static KVal erf_f32(Kernel *k, KVal x) {
    static const float p[] = { 0x1.06eba8p-3f, -0x1.812740p-2f,  0x1.ce2d62p-4f, -0x1.b800dep-6f,
                               0x1.544808p-8f, -0x1.a5fecap-11f, 0x1.4f640ap-14f }; /* 9.8e-10 */
    static const float q[] = { 0x1.0740bcp-3f, 0x1.4576f4p-1f, 0x1.aec61ep-4f, -0x1.71e04p-6f,
                               0x1.7809c6p-9f, -0x1.cabc16p-16f, -0x1.a32cb2p-15f,
                               0x1.63d3a4p-18f }; /* 7.9e-10 */
    Math m = math(k, x);
    KVal a = absolute(m, x), t = at_most(m, 4, a);
    KVal small = fma_(m, a, poly(m, mul(m, a, a), p, 7), a);
    KVal large = sub(m, num(m, 1), exp_sum(m, neg(m, fma_(m, t, poly(m, t, q, 8), t)), 0));
    return with_sign(m, pick(m, test(m, K_gt, a, num(m, 0.925)), large, small), x);
}

/* -- sin, cos ---------------------------------------------------------------------------------- */

/* Cody-Waite: a = q pi/2 + r with pi/2 in three f32 parts. q times the first part is subtracted
   exactly by the fma, so r is good to an ulp while q is right: a up to NEAR. The low bits of *q
   are q's. */
#define NEAR 0x1p20
static KVal near_quarter(Math m, KVal a, KVal *q) {
    KVal shifted = fma_(m, a, num(m, 0x1.45f306p-1), num(m, 12582912));      /* as nearest(), with its bits */
    KVal n = sub(m, shifted, num(m, 12582912));
    KVal r = fma_(m, n, num(m, -0x1.921fb6p+0), a);
    r = fma_(m, n, num(m, 0x1.777a5cp-25), r);
    *q = bits(m, shifted);
    return fma_(m, n, num(m, 0x1.ee59dap-50), r);
}

/* Word number i + d of 1/(2 pi) as a binary fraction, i in 0..4. */
static KVal over_two_pi(Math m, KType u, KVal i, int d) {
    static const uint32_t w[] = { 0, 0x28be60db, 0x9391054a, 0x7f09d5f4, 0x7d4d3770, 0x36d8a566,
                                  0x4f10e410, 0x7f9458ea };
    KVal r = snK_int(m.k, u, w[1 + d]);
    for (int n = 1; n <= 4; n++)
        r = pick(m, test(m, K_eq, i, inum(m, n)), snK_int(m.k, u, w[n + 1 + d]), r);
    return r;
}

/* Payne and Hanek (1983): a times those bits of 1/(2 pi) that matter, modulo 1: 64 bits, two of q
   and the fraction of a quarter turn. a is finite and at least 2. The nearest a float comes to a
   multiple of pi/2 is about 2^-30. */
static KVal far_quarter(Math m, KVal a, KVal *q) {
    KType u = kt(K_U32, m.f.lanes);
#define U(op, a, b) snK_op(m.k, K_##op, u, a, b, 0)
#define UN(v) snK_int(m.k, u, v)
    KVal b = snK_op(m.k, K_bitcast, u, a, 0, 0);
    KVal e = U(sub, U(shr, b, UN(23)), UN(126)), man = U(or, U(shl, b, UN(8)), UN(0x80000000u));
    KVal i = snK_op(m.k, K_bitcast, m.i, U(shr, e, UN(5)), 0, 0), s = U(and, e, UN(31)), w[4], v[3];
    for (int n = 0; n < 4; n++) w[n] = over_two_pi(m, u, i, n - 1);
    for (int n = 0; n < 3; n++)                  /* shifted by s; a shift by 32 in two steps */
        v[n] = U(or, U(shl, w[n], s), U(shr, U(shr, w[n + 1], UN(1)), U(sub, UN(31), s)));
    KVal part = U(mul, man, v[1]), low = U(add, part, U(mulhi, man, v[2]));
    KVal carry = pick(m, test(m, K_lt, low, part), UN(1), UN(0));
    KVal high = U(add, U(add, U(mul, man, v[0]), U(mulhi, man, v[1])), carry);
    KVal n = U(shr, U(add, high, UN(0x20000000)), UN(30));
    KVal rest = snK_op(m.k, K_bitcast, m.i, U(sub, high, U(shl, n, UN(30))), 0, 0);
    /* rest : low times 2^-62 in three exact floats: 22, 24 and 15 bits. */
    KVal mid = U(or, U(shl, snK_op(m.k, K_bitcast, u, iop(m, K_and, rest, 0x7f), 0, 0), UN(17)),
                 U(shr, low, UN(15)));
    KVal x = mul(m, snK_op(m.k, K_cast, m.f, iop(m, K_and, rest, ~0x7f), 0, 0), num(m, 0x1p-30));
    KVal y = mul(m, snK_op(m.k, K_cast, m.f, mid, 0, 0), num(m, 0x1p-47));
    KVal z = mul(m, snK_op(m.k, K_cast, m.f, U(and, low, UN(0x7fff)), 0, 0), num(m, 0x1p-62));
    KVal hi = add(m, x, y), lo = add(m, sub(m, y, sub(m, hi, x)), z);
    *q = snK_op(m.k, K_bitcast, m.i, n, 0, 0);
    KVal tail = fma_(m, hi, num(m, -0x1.777a5cp-25), mul(m, lo, num(m, 0x1.921fb6p+0)));
    return fma_(m, hi, num(m, 0x1.921fb6p+0), tail);
#undef U
#undef UN
}

/* a >= 0 as q quarter turns and r. The long way is taken only when a lane needs it. */
static KVal quarter(Math m, KVal a, KVal *r) {
    KVal q, r0 = near_quarter(m, a, &q);
    KVal rv = snK_var(m.k, r0), qv = snK_var(m.k, q), big = test(m, K_gt, a, num(m, NEAR));
    KType one = kt(K_F32, 1);
    KVal most = pick(m, big, a, num(m, 0));
    if (m.f.lanes > 1) most = snK_op(m.k, K_hmax, one, most, 0, 0);
    snK_if(m.k, snK_op(m.k, K_gt, kt(K_BOOL, 1), most, snK_float(m.k, one, NEAR), 0));
    KVal fq, fr = far_quarter(m, pick(m, big, a, num(m, 2)), &fq);
    fr = pick(m, test(m, K_lt, a, num(m, (double)INFINITY)), fr, sub(m, a, a));  /* inf: NaN */
    snK_set(m.k, rv, pick(m, big, fr, r0));
    snK_set(m.k, qv, pick(m, big, fq, q));
    snK_end(m.k);
    *r = snK_get(m.k, rv);
    return snK_get(m.k, qv);
}

static KVal sin_or_cos(Kernel *k, KVal x, bool cosine) {
    static const float s[] = { -0x1.555556p-3f, 0x1.111166p-7f, -0x1.a04726p-13f,
                               0x1.76d16cp-19f }; /* 1.9e-10 */
    static const float c[] = { 0x1.555556p-5f, -0x1.6c174cp-10f, 0x1.a05d54p-16f,
                               -0x1.309ee4p-22f }; /* 8.5e-12 */
    Math m = math(k, x);
    KVal r, q = quarter(m, absolute(m, x), &r), z = mul(m, r, r);
    if (cosine) q = iop(m, K_add, q, 1);
    KVal ys = fma_(m, mul(m, r, z), poly(m, z, s, 4), r);
    KVal yc = fma_(m, mul(m, z, z), poly(m, z, c, 4), fma_(m, z, num(m, -0.5), num(m, 1)));
    KVal y = pick(m, test(m, K_ne, iop(m, K_and, q, 1), inum(m, 0)), yc, ys);
    KVal flip = iop(m, K_shl, iop(m, K_and, q, 2), 30);
    if (!cosine) flip = snK_op(k, K_xor, m.i, flip, iop(m, K_and, bits(m, x), INT32_MIN), 0);
    y = from_bits(m, snK_op(k, K_xor, m.i, bits(m, y), flip, 0));
    return at_least(m, -1, at_most(m, 1, y));
}

static KVal sin_f32(Kernel *k, KVal x) { return sin_or_cos(k, x, false); }
static KVal cos_f32(Kernel *k, KVal x) { return sin_or_cos(k, x, true); }

/* -- pow --------------------------------------------------------------------------------------- */

typedef struct Two { KVal hi, lo; } Two;              /* an unevaluated sum, |lo| <= ulp(hi) / 2 */

static Two two_sum(Math m, KVal big, KVal small) {                      /* |big| >= |small| */
    KVal hi = add(m, big, small);
    return (Two){ hi, sub(m, small, sub(m, hi, big)) };
}

static Two two_mul(Math m, KVal a, KVal b) {
    KVal hi = mul(m, a, b);
    return (Two){ hi, fma_(m, a, b, neg(m, hi)) };
}

static Two mul_two(Math m, Two a, Two b) {
    Two p = two_mul(m, a.hi, b.hi);
    p.lo = fma_(m, a.hi, b.lo, fma_(m, a.lo, b.hi, p.lo));
    return two_sum(m, p.hi, p.lo);
}

/* log x in two parts, good to 2^-40 or so: s = (f - 1) / (f + 1), log f = 2 s (1 + z (1/3 + z
   q(z))), z = s^2. */
static Two log_two(Math m, KVal x) {
    static const float q[] = { 0x1.999998p-3f, 0x1.2493b6p-3f, 0x1.c63da8p-4f,
                               0x1.9083fep-4f }; /* 7.1e-14 */
    KVal e, f, one = num(m, 1);
    split(m, x, &e, &f);
    KVal g = sub(m, f, one), u = add(m, f, one), ulo = sub(m, f, sub(m, u, one));
    KVal s = quo(m, g, u);
    KVal slo = quo(m, fma_(m, neg(m, s), ulo, fma_(m, neg(m, s), u, g)), u);
    Two S = two_sum(m, s, slo), Z = mul_two(m, S, S);
    KVal third = num(m, 0x1.555556p-2), third_lo = num(m, -0x1.555556p-27);    /* sum: 1/3 */
    KVal low = fma_(m, Z.hi, poly(m, Z.hi, q, 4), third_lo);
    Two W = mul_two(m, Z, two_sum(m, third, low));
    Two P = two_sum(m, one, W.hi);
    P.lo = add(m, P.lo, W.lo);
    S = mul_two(m, (Two){ add(m, S.hi, S.hi), add(m, S.lo, S.lo) }, P);
    KVal hi = mul(m, e, num(m, 0x1.62e400p-1)); /* exact; |hi| > |S| unless e = 0, where hi = 0 */
    Two L = two_sum(m, hi, S.hi);
    KVal zero = test(m, K_eq, e, num(m, 0));
    L.hi = pick(m, zero, S.hi, L.hi);
    L.lo = pick(m, zero, S.lo, fma_(m, e, num(m, 0x1.7f7d1cp-20), add(m, L.lo, S.lo)));
    L.lo = fma_(m, e, num(m, 0x1.ef357ap-45), L.lo);                     /* the third part of ln2 */
    return two_sum(m, L.hi, L.lo);
}

/* |x|^y for finite |x| > 0; C's rules for signs, zeros, infinities and NaN are laid over it. */
static KVal pow_f32(Kernel *k, KVal x, KVal y) {
    Math m = math(k, x);
    double inf = (double)INFINITY;
    KVal a = absolute(m, x), zero = num(m, 0), one = num(m, 1);
    Two L = log_two(m, a);
    KVal top = test(m, K_eq, a, num(m, inf)), bottom = test(m, K_eq, a, zero);
    L.hi = pick(m, top, num(m, inf), pick(m, bottom, num(m, -inf), L.hi));
    KVal p = mul(m, L.hi, y);
    KVal tail = fma_(m, L.lo, y, fma_(m, L.hi, y, neg(m, p)));
    KVal tame = test(m, K_lt, absolute(m, p), num(m, 200));
    KVal r = exp_sum(m, p, pick(m, tame, tail, zero));
    r = pick(m, test(m, K_eq, a, one), one, r);                          /* (-1)^inf too */
    KVal floor_y = snK_op(k, K_floor, m.f, y, 0, 0), half = mul(m, y, num(m, 0.5));
    KVal whole = test(m, K_eq, floor_y, y);
    KVal odd = both(m, whole, test(m, K_ne, snK_op(k, K_floor, m.f, half, 0, 0), half));
    odd = both(m, odd, test(m, K_lt, absolute(m, y), num(m, 0x1p24)));
    r = pick(m, odd, with_sign(m, r, x), r);
    KVal bad = both(m, test(m, K_lt, x, zero),
                    both(m, test(m, K_gt, x, num(m, -inf)), test(m, K_ne, floor_y, y)));
    bad = either(m, bad, either(m, test(m, K_ne, x, x), test(m, K_ne, y, y)));
    r = pick(m, bad, num(m, (double)NAN), r);
    return pick(m, either(m, test(m, K_eq, x, one), test(m, K_eq, y, zero)), one, r);
}

/* -- Entries: any float type, computed in f32 -------------------------------------------------- */

static KVal widen(Kernel *k, KVal x) {
    return snK_op(k, K_cast, kt(K_F32, snK_type(k, x).lanes), x, 0, 0);
}

static KVal in_f32(Kernel *k, KVal (*f)(Kernel *, KVal), KVal x) {
    KType t = snK_type(k, x);
    return snK_op(k, K_cast, t, f(k, widen(k, x)), 0, 0);
}

KVal snK_exp(Kernel *k, KVal x) { return in_f32(k, exp_f32, x); }
KVal snK_exp2(Kernel *k, KVal x) { return in_f32(k, exp2_f32, x); }
KVal snK_log(Kernel *k, KVal x) { return in_f32(k, log_f32, x); }
KVal snK_tanh(Kernel *k, KVal x) { return in_f32(k, tanh_f32, x); }
KVal snK_sin(Kernel *k, KVal x) { return in_f32(k, sin_f32, x); }
KVal snK_cos(Kernel *k, KVal x) { return in_f32(k, cos_f32, x); }
KVal snK_erf(Kernel *k, KVal x) { return in_f32(k, erf_f32, x); }

KVal snK_pow(Kernel *k, KVal x, KVal y) {
    KType t = snK_type(k, x);
    return snK_op(k, K_cast, t, pow_f32(k, widen(k, x), widen(k, y)), 0, 0);
}

/* -- Philox 4x32-10 ---------------------------------------------------------------------------- */

/* Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC11). */
static KVal to_lanes(Kernel *k, KVal x, KType t) {
    return snK_type(k, x).lanes == t.lanes ? x : snK_op(k, K_splat, t, x, 0, 0);
}

KVal snK_philox(Kernel *k, const KVal key[2], const KVal ctr[4], KVal word) {
    KType u = snK_type(k, word);
    KVal c[4], key0 = key[0], key1 = key[1];
    for (int n = 0; n < 4; n++) c[n] = to_lanes(k, ctr[n], u);
    KVal m0 = snK_int(k, u, 0xD2511F53), m1 = snK_int(k, u, 0xCD9E8D57);
    for (int round = 0; round < 10; round++) {
        KType t0 = snK_type(k, key0), t1 = snK_type(k, key1);
        if (round) {
            key0 = snK_op(k, K_add, t0, key0, snK_int(k, t0, 0x9E3779B9), 0);
            key1 = snK_op(k, K_add, t1, key1, snK_int(k, t1, 0xBB67AE85), 0);
        }
        KVal h0 = snK_op(k, K_mulhi, u, c[0], m0, 0), l0 = snK_op(k, K_mul, u, c[0], m0, 0);
        KVal h1 = snK_op(k, K_mulhi, u, c[2], m1, 0), l1 = snK_op(k, K_mul, u, c[2], m1, 0);
        c[0] = snK_op(k, K_xor, u, snK_op(k, K_xor, u, h1, c[1], 0), to_lanes(k, key0, u), 0);
        c[2] = snK_op(k, K_xor, u, snK_op(k, K_xor, u, h0, c[3], 0), to_lanes(k, key1, u), 0);
        c[1] = l1;
        c[3] = l0;
    }
    KType b = kt(K_BOOL, u.lanes);
    KVal r = c[3];
    for (int n = 2; n >= 0; n--)
        r = snK_op(k, K_select, u, snK_op(k, K_eq, b, word, snK_int(k, u, n), 0), c[n], r);
    return r;
}

/* -- scalar.def -------------------------------------------------------------------------------- */

/* "The other operand when one is NaN": min(a, b) already gives b for a NaN a. */
static KVal extreme(Kernel *k, int op, KType t, KVal a, KVal b) {
    bool known = snK_type(k, a).kind != K_F32 ||
                 (k->ins.v[b].op == K_const && k->ins.v[b].f == k->ins.v[b].f);
    KVal r = snK_op(k, op, t, a, b, 0);
    if (known) return r;
    if (k->ins.v[a].op == K_const && k->ins.v[a].f == k->ins.v[a].f)
        return snK_op(k, op, t, b, a, 0);
    return snK_op(k, K_select, t, snK_op(k, K_ne, kt(K_BOOL, t.lanes), b, b, 0), a, r);
}

/* a - b trunc(a / b), put right by one b where the quotient was rounded up to the next integer. */
static KVal float_rem(Kernel *k, KVal a, KVal b) {
    Math m = math(k, a);
    KVal size = snK_op(k, K_floor, m.f, absolute(m, quo(m, a, b)), 0, 0), q = absolute(m, b),
         x = absolute(m, a);
    KVal r = fma_(m, neg(m, size), q, x);
    r = pick(m, test(m, K_lt, r, num(m, 0)), add(m, r, q), r);
    r = with_sign(m, r, a);
    KVal far = both(m, test(m, K_eq, q, num(m, (double)INFINITY)),
                    test(m, K_lt, x, num(m, (double)INFINITY)));
    return pick(m, far, a, r);
}

static KVal as(Kernel *k, KType t, KVal x) { return snK_op(k, K_cast, t, x, 0, 0); }

static KVal scalar_two(Kernel *k, int fn, KType t, KVal a, KVal b) {
    static const uint8_t op[S_N] = {
        [S_add] = K_add, [S_sub] = K_sub, [S_mul] = K_mul, [S_div] = K_div,
        [S_lt] = K_lt,   [S_le] = K_le,   [S_gt] = K_gt,   [S_ge] = K_ge,
        [S_eq] = K_eq,   [S_ne] = K_ne,   [S_and] = K_and, [S_or] = K_or,
        [S_xor] = K_xor, [S_shl] = K_shl, [S_shr] = K_shr, [S_rem] = K_rem
    };
    KType ta = snK_type(k, a), bt = kt(K_BOOL, ta.lanes);
    switch (fn) {
    case S_min: return extreme(k, K_min, ta, a, b);
    case S_max: return extreme(k, K_max, ta, a, b);
    case S_pow: return snK_pow(k, a, b);
    case S_rem: if (ta.kind == K_F32) return float_rem(k, a, b); break;
    }
    SN_ASSERT(op[fn], "scalar function %d has no kernel-IR form", fn);
    if (fn >= S_lt && fn <= S_ne) return as(k, t, snK_op(k, op[fn], bt, a, b, 0));
    return as(k, t, snK_op(k, op[fn], ta, a, b, 0));
}

static KVal scalar_one(Kernel *k, int fn, KType t, KVal a) {
    KType ta = snK_type(k, a);
    bool whole = ta.kind != K_F32;
    switch (fn) {
    case S_neg: return snK_op(k, K_neg, ta, a, 0, 0);
    case S_abs: return snK_op(k, K_abs, ta, a, 0, 0);
    case S_exp: return snK_exp(k, a);
    case S_exp2: return snK_exp2(k, a);
    case S_log: return snK_log(k, a);
    case S_sqrt: return snK_op(k, K_sqrt, ta, a, 0, 0);
    case S_tanh: return snK_tanh(k, a);
    case S_sin: return snK_sin(k, a);
    case S_cos: return snK_cos(k, a);
    case S_erf: return snK_erf(k, a);
    case S_floor: return whole ? a : snK_op(k, K_floor, ta, a, 0, 0);
    case S_ceil: return whole ? a : snK_op(k, K_ceil, ta, a, 0, 0);
    case S_rint: return whole ? a : snK_op(k, K_rint, ta, a, 0, 0);
    case S_not: return snK_op(k, K_not, ta, a, 0, 0);
    case S_cast: return as(k, t, a);
    case S_bitcast: return snK_op(k, K_bitcast, t, a, 0, 0);
    default: SN_ASSERT(0, "scalar function %d has no kernel-IR form", fn); return a;
    }
}

KVal snK_scalar(Kernel *k, int fn, KType t, const KVal *args, int nargs) {
    if (nargs == 3 && fn == S_select) {
        KVal c = as(k, kt(K_BOOL, snK_type(k, args[0]).lanes), args[0]);
        return snK_op(k, K_select, t, c, args[1], args[2]);
    }
    return nargs == 2 ? scalar_two(k, fn, t, args[0], args[1]) : scalar_one(k, fn, t, args[0]);
}
