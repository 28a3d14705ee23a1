/* scalar.c: elementwise functions in numbers, and rounding into dtypes.

   In: a scalar program and operands. Out: its values, as scalar.def defines them. The program runs one instruction over a
   block of elements at a time, so that the cost of reading it is shared. Integers are exact in a double. */
#include "graph/scalar.h"
#include <math.h>

enum { BLOCK = 128, DEPTH = 8 };

/* -- Rounding ------------------------------------------------------------------------------------------------ */

static double round_bf16(double v)
{
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, 4);
    if (f != f) return v;
    u += 0x7fff + (u >> 16 & 1);                               /* carries into the exponent, up to infinity */
    u &= 0xffff0000u;
    memcpy(&f, &u, 4);
    return f;
}

/* The low 32 bits of an integer of any size; NaN and infinities give 0. */
static uint32_t wrap(double v)
{
    if (fabs(v) < 0x1p63) return (uint32_t)(int64_t)v;
    return fabs(v) < INFINITY ? (uint32_t)(int64_t)fmod(v, 0x1p32) : 0;
}

double snG_round(Dtype d, double v)
{
    switch (d) {
    case SN_F32: return (float)v;
    case SN_BF16: return round_bf16(v);
    case SN_F16: return (double)(_Float16)(float)v;
    case SN_I32: return (int32_t)wrap(v);
    case SN_U32: return wrap(v);
    case SN_BOOL: return v != 0;
    default: return v;
    }
}

static void settle(Dtype d, EvalMode mode, double *v, int n)
{
    if (snG_is_float(d) && mode == EVAL_F64) return;
    if (snG_is_float(d) && mode == EVAL_F32) d = SN_F32;
    if (d == SN_F64) return;
    if (d == SN_F32) for (int i = 0; i < n; i++) v[i] = (float)v[i];
    else for (int i = 0; i < n; i++) v[i] = snG_round(d, v[i]);
}

/* -- Functions of one element that C does not have ------------------------------------------------------------- */

static double clamp_cast(Dtype to, double v)
{
    if (v != v) return 0;
    v = trunc(v);
    double lo = to == SN_I32 ? -2147483648.0 : 0, hi = to == SN_I32 ? 2147483647.0 : 4294967295.0;
    return v < lo ? lo : v > hi ? hi : v;
}

static double bits_as(Dtype from, Dtype to, double v)
{
    float f = (float)snG_round(from, v);
    uint32_t u = 0;
    if (from == SN_F32 || from == SN_BF16) memcpy(&u, &f, 4), u >>= from == SN_BF16 ? 16 : 0;
    else if (from == SN_F16) { _Float16 h = (_Float16)f; uint16_t w; memcpy(&w, &h, 2); u = w; }
    else u = wrap(v);
    if (to == SN_F16) { uint16_t w = (uint16_t)u; _Float16 h; memcpy(&h, &w, 2); return (double)h; }
    if (to == SN_I32) return (int32_t)u;
    if (to != SN_F32 && to != SN_BF16) return u;
    u <<= to == SN_BF16 ? 16 : 0;
    memcpy(&f, &u, 4);
    return f;
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
    case S_shl: return u << n;
    case S_shr: return d == SN_I32 ? (double)((int32_t)u >> n) : (double)(u >> n);
    case S_mul: return u * (uint32_t)b;
    default: SN_ASSERT(false, "integer function %d", op);
    }
    return 0;
}

/* -- Programs --------------------------------------------------------------------------------------------------- */

/* x[0] = op(x[0], x[1], x[2]) of n elements; d: the operands' dtype. */
static void apply(int op, Dtype d, Dtype out, double (*x)[BLOCK], int n)
{
    double *a = x[0];
    const double *b = x[1], *c = x[2];
    bool whole = !snG_is_float(d);
    if (whole && (op == S_mul || op == S_div || op == S_rem || (op >= S_and && op <= S_shr))) {
        for (int i = 0; i < n; i++) a[i] = integer(op, d, a[i], b[i]);
        return;
    }
#define EACH(expr) for (int i = 0; i < n; i++) a[i] = (expr); break
    switch (op) {
    case S_add: EACH(a[i] + b[i]);
    case S_sub: EACH(a[i] - b[i]);
    case S_mul: EACH(a[i] * b[i]);
    case S_div: EACH(a[i] / b[i]);
    case S_rem: EACH(fmod(a[i], b[i]));
    case S_neg: EACH(-a[i]);
    case S_abs: EACH(fabs(a[i]));
    case S_min: EACH(fmin(a[i], b[i]));
    case S_max: EACH(fmax(a[i], b[i]));
    case S_exp: EACH(exp(a[i]));
    case S_exp2: EACH(exp2(a[i]));
    case S_log: EACH(log(a[i]));
    case S_sqrt: EACH(sqrt(a[i]));
    case S_tanh: EACH(tanh(a[i]));
    case S_sin: EACH(sin(a[i]));
    case S_cos: EACH(cos(a[i]));
    case S_erf: EACH(erf(a[i]));
    case S_pow: EACH(pow(a[i], b[i]));
    case S_floor: EACH(floor(a[i]));
    case S_ceil: EACH(ceil(a[i]));
    case S_rint: EACH(rint(a[i]));
    case S_lt: EACH(a[i] < b[i]);
    case S_le: EACH(a[i] <= b[i]);
    case S_gt: EACH(a[i] > b[i]);
    case S_ge: EACH(a[i] >= b[i]);
    case S_eq: EACH(a[i] == b[i]);
    case S_ne: EACH(a[i] != b[i]);
    case S_not: EACH(d == SN_BOOL ? !a[i] : (double)~(int64_t)a[i]);
    case S_select: EACH(a[i] != 0 ? b[i] : c[i]);
    case S_cast: if (!whole && snG_is_int(out)) { EACH(clamp_cast(out, a[i])); } break;
    case S_bitcast: EACH(bits_as(d, out, a[i]));
    default: SN_ASSERT(false, "scalar function %d", op);
    }
#undef EACH
}

/* Bf16 and f16 are computed in f32 and rounded once, at the end, as devices do. */
static Dtype computed_in(Dtype d) { return d == SN_BF16 || d == SN_F16 ? SN_F32 : d; }

static void run_block(const Scalar *s, Dtype in, Dtype out, double (*v)[BLOCK], const double *const *arg, const int64_t *step,
                      int count, EvalMode mode)
{
    static const uint8_t nargs[S_N] = { 0,
#define SC(name, n, text, doc) [S_##name] = n,
#include "graph/scalar.def"
#undef SC
    };
    Dtype type[DEPTH];
    int n = 0;
    for (int k = 0; k < s->n; k++) {
        const ScalarIns *ins = &s->ins[k];
        SN_ASSERT(n < DEPTH - 2, "scalar program too deep");
        if (ins->op == S_ARG || ins->op == S_CONST) {
            const double *x = ins->op == S_ARG ? arg[ins->arg] : &ins->k;
            int64_t d = ins->op == S_ARG ? step[ins->arg] : 0;
            for (int i = 0; i < count; i++) v[n][i] = x[i * d];
            type[n++] = in;
            continue;
        }
        n -= nargs[ins->op];
        Dtype d = type[n + (ins->op == S_select)], r = d;
        if (ins->op >= S_lt && ins->op <= S_ne) r = SN_BOOL;
        if (ins->op == S_cast || ins->op == S_bitcast) r = out;
        apply(ins->op, d, out, &v[n], count);
        settle(computed_in(r), mode, v[n], count);
        type[n++] = r;
    }
    settle(out, mode, v[0], count);
}

void snG_scalar_map(const Scalar *s, Dtype in, Dtype out, const double *const *arg, const int64_t *step, int64_t n, EvalMode mode, double *y)
{
    double v[DEPTH][BLOCK];
    const double *x[8];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int count = n - at < BLOCK ? (int)(n - at) : BLOCK;
        for (int k = 0; k < s->nargs; k++) x[k] = arg[k] + at * step[k];
        run_block(s, in, out, v, x, step, count, mode);
        memcpy(y + at, v[0], sizeof(double) * (size_t)count);
    }
}

double snG_scalar_eval(const Scalar *s, Dtype in, Dtype out, const double *args, EvalMode mode)
{
    const double *x[8];
    int64_t step[8] = { 0 };
    double y;
    for (int k = 0; k < s->nargs; k++) x[k] = &args[k];
    snG_scalar_map(s, in, out, x, step, 1, mode, &y);
    return y;
}
