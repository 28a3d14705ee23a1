/* scalar.c: elementwise functions in numbers, and rounding into dtypes. See scalar.h, scalar.def. */
#include "graph/scalar.h"
#include <math.h>

static double round_bits(double v, int mantissa, int min_exp, double largest)
{
    if (v != v || v == 0 || isinf(v)) return v;
    int e;
    frexp(v, &e);                                              /* v = f 2^e, 0.5 <= |f| < 1 */
    int drop = e - mantissa;                                   /* exponent of the last kept bit */
    if (drop < min_exp) drop = min_exp;
    double r = ldexp(rint(ldexp(v, -drop)), drop);
    return fabs(r) > largest ? copysign(INFINITY, v) : r;
}

double snG_round(Dtype d, double v)
{
    switch (d) {
    case SN_F32: return (double)(float)v;
    case SN_BF16: return round_bits((double)(float)v, 8, -133, 0x1.fep127);
    case SN_F16: return round_bits((double)(float)v, 11, -24, 65504);
    case SN_I32: return v != v ? 0 : (double)(int32_t)(uint32_t)(int64_t)v;
    case SN_U32: return v != v ? 0 : (double)(uint32_t)(int64_t)v;
    case SN_BOOL: return v != 0;
    default: return v;
    }
}

static double clamp_cast(Dtype to, double v)
{
    if (v != v) return 0;
    v = trunc(v);
    double lo = to == SN_I32 ? -2147483648.0 : 0, hi = to == SN_I32 ? 2147483647.0 : 4294967295.0;
    return v < lo ? lo : v > hi ? hi : v;
}

static double bits_as(Dtype from, Dtype to, double v)
{
    uint32_t u = 0;
    float f = (float)v;
    if (from == SN_F32) memcpy(&u, &f, 4);
    else if (from == SN_BF16) { memcpy(&u, &f, 4); u >>= 16; }
    else if (from == SN_F16) { _Float16 h = (_Float16)f; uint16_t w; memcpy(&w, &h, 2); u = w; }
    else u = (uint32_t)(int64_t)v;
    if (to == SN_I32) return (int32_t)u;
    if (to == SN_F32) { memcpy(&f, &u, 4); return f; }
    if (to == SN_BF16) { u <<= 16; memcpy(&f, &u, 4); return f; }
    if (to == SN_F16) { uint16_t w = (uint16_t)u; _Float16 h; memcpy(&h, &w, 2); return (double)h; }
    return u;
}

static double integer(int op, Dtype d, double x, double y)
{
    int64_t a = (int64_t)x, b = (int64_t)y;
    unsigned n = (unsigned)b & 31;
    uint32_t u = (uint32_t)a;
    switch (op) {
    case S_div: return b ? (double)(a / b) : 0;
    case S_rem: return b ? (double)(a % b) : 0;
    case S_and: return (double)(a & b);
    case S_or: return (double)(a | b);
    case S_xor: return (double)(a ^ b);
    case S_shl: return (double)(uint32_t)(u << n);
    case S_shr: return d == SN_I32 ? (double)((int32_t)u >> n) : (double)(u >> n);
    case S_mul: return (double)(uint32_t)((uint32_t)a * (uint32_t)b);
    default: SN_ASSERT(false, "integer function %d", op); return 0;
    }
}

static double apply(int op, Dtype d, Dtype out, const double *x)
{
    bool i = snG_is_int(d) || d == SN_BOOL;
    switch (op) {
    case S_add: return x[0] + x[1];
    case S_sub: return x[0] - x[1];
    case S_mul: return i ? integer(op, d, x[0], x[1]) : x[0] * x[1];
    case S_div: return i ? integer(op, d, x[0], x[1]) : x[0] / x[1];
    case S_rem: return i ? integer(op, d, x[0], x[1]) : fmod(x[0], x[1]);
    case S_neg: return -x[0];
    case S_abs: return fabs(x[0]);
    case S_min: return fmin(x[0], x[1]);
    case S_max: return fmax(x[0], x[1]);
    case S_exp: return exp(x[0]);
    case S_log: return log(x[0]);
    case S_sqrt: return sqrt(x[0]);
    case S_tanh: return tanh(x[0]);
    case S_sin: return sin(x[0]);
    case S_cos: return cos(x[0]);
    case S_erf: return erf(x[0]);
    case S_pow: return pow(x[0], x[1]);
    case S_floor: return floor(x[0]);
    case S_ceil: return ceil(x[0]);
    case S_rint: return rint(x[0]);
    case S_lt: return x[0] < x[1];
    case S_le: return x[0] <= x[1];
    case S_gt: return x[0] > x[1];
    case S_ge: return x[0] >= x[1];
    case S_eq: return x[0] == x[1];
    case S_ne: return x[0] != x[1];
    case S_and: case S_or: case S_xor: case S_shl: case S_shr: return integer(op, d, x[0], x[1]);
    case S_not: return d == SN_BOOL ? !x[0] : (double)~(int64_t)x[0];
    case S_select: return x[0] != 0 ? x[1] : x[2];
    case S_cast: return snG_is_float(d) && snG_is_int(out) ? clamp_cast(out, x[0]) : x[0];
    case S_bitcast: return bits_as(d, out, x[0]);
    default: SN_ASSERT(false, "scalar function %d", op); return 0;
    }
}

static double settle(Dtype d, EvalMode mode, double v)
{
    if (!snG_is_float(d)) return snG_round(d, v);
    return mode == EVAL_F64 ? v : snG_round(mode == EVAL_F32 ? SN_F32 : d, v);
}

double snG_scalar_eval(const Scalar *s, Dtype in, Dtype out, const double *args, EvalMode mode)
{
    static const uint8_t nargs[S_N] = { [S_ARG] = 0,
#define SC(name, n, text, doc) [S_##name] = n,
#include "graph/scalar.def"
#undef SC
    };
    double v[32];
    Dtype type[32];
    int n = 0;
    for (int k = 0; k < s->n; k++) {
        const ScalarIns *i = &s->ins[k];
        if (i->op == S_ARG) { type[n] = in, v[n++] = args[i->arg]; continue; }
        if (i->op == S_CONST) { type[n] = in, v[n++] = i->k; continue; }
        n -= nargs[i->op];
        Dtype d = type[n + (i->op == S_select)], r = d;
        if (i->op >= S_lt && i->op <= S_ne) r = SN_BOOL;
        if (i->op == S_cast || i->op == S_bitcast) r = out;
        v[n] = settle(r, mode, apply(i->op, d, out, &v[n]));
        type[n++] = r;
    }
    return settle(out, mode, v[0]);
}
