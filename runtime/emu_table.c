/* emu_table.c: the rows that are neither elementwise arithmetic, nor memory, nor warps together: moves, predicates, addresses,
   conversions, hints.

   A new instruction is a row: its mnemonic with alternatives, the letters of its operands (emu_in.h), a function, and, where the function
   has to know more than the operands, one that reads it off the mnemonic once. */
#include "runtime/emu_in.h"

#include <math.h>
#include <string.h>

/* -- Moves ------------------------------------------------------------------------------------------------------------- */

/* bytes: 1 a predicate, 4, 8 */
static const Ins *run_mov(Warp *w, const Ins *i)
{
    if (i->bytes == 1)
        snE_set_pred(w, i->r[0], *snE_in32(w, i->r[1]));
    else if (i->bytes == 4) {
        Lane32 *d = snE_out32(w, i->r[0]);
        const Lane32 *a = snE_in32(w, i->r[1]);
        for (int l = 0; l < LANES; l++)
            d[l] = w->on[l] ? a[l] : d[l];
    } else {
        Lane64 *d = snE_out64(w, i->r[0]);
        const Lane64 *a = snE_in64(w, i->r[1]);
        for (int l = 0; l < LANES; l++)
            d[l] = w->on[l] ? a[l] : d[l];
    }
    return i + 1;
}

static void decode_mov(Decoding *d)
{
    int bits = snE_type(d->op, 0).bits;
    d->ins->bytes = bits == 1 ? 1 : bits == 64 ? 8 : 4;
}

static uint64_t low_bits(uint64_t v, int bits) { return bits > 63 ? v : v & ((1ull << bits) - 1); }

/* {a, b} = r: low part first. bytes: 8 for a 64-bit register */
static const Ins *run_parts(Warp *w, const Ins *i)
{
    int bits = i->bytes * 8 / i->count;
    uint32_t from = i->more[i->count];
    for (int k = 0; k < i->count; k++) {
        Lane32 *d = snE_out32(w, i->more[k]);
        EACH_LANE(w->active, l) {
            uint64_t v = i->bytes == 8 ? snE_in64(w, from)[l] : snE_in32(w, from)[l];
            d[l] = (uint32_t)low_bits(v >> k * bits, bits);
        }
    }
    return i + 1;
}

static const Ins *run_whole(Warp *w, const Ins *i)
{
    int bits = i->bytes * 8 / i->count;
    EACH_LANE(w->active, l) {
        uint64_t v = 0;
        for (int k = 0; k < i->count; k++)
            v |= low_bits(snE_in32(w, i->more[1 + k])[l], bits) << k * bits;     /* an undefined part may hold more */
        if (i->bytes == 8)
            snE_out64(w, i->more[0])[l] = v;
        else
            snE_out32(w, i->more[0])[l] = (uint32_t)v;
    }
    return i + 1;
}

static void decode_parts(Decoding *d)
{
    d->ins->bytes = snE_type(d->op, 0).bits / 8;
}

/* -- Predicates -------------------------------------------------------------------------------------------------------- */

static const Ins *run_not(Warp *w, const Ins *i)
{
    snE_set_pred(w, i->r[0], ~*snE_in32(w, i->r[1]));
    return i + 1;
}
static const Ins *run_and(Warp *w, const Ins *i)
{
    snE_set_pred(w, i->r[0], *snE_in32(w, i->r[1]) & *snE_in32(w, i->r[2]));
    return i + 1;
}
static const Ins *run_or(Warp *w, const Ins *i)
{
    snE_set_pred(w, i->r[0], *snE_in32(w, i->r[1]) | *snE_in32(w, i->r[2]));
    return i + 1;
}
static const Ins *run_xor(Warp *w, const Ins *i)
{
    snE_set_pred(w, i->r[0], *snE_in32(w, i->r[1]) ^ *snE_in32(w, i->r[2]));
    return i + 1;
}

/* how: 0 finite, 1 infinite, 2 number, 3 notanumber, 4 normal, 5 subnormal */
static const Ins *run_testp(Warp *w, const Ins *i)
{
    uint32_t bits = 0;
    EACH_LANE(w->active, l) {
        int class = i->bytes == 8 ? fpclassify(snE_double(snE_in64(w, i->r[1])[l])) : fpclassify(snE_float(snE_in32(w, i->r[1])[l]));
        bool yes = i->how == 0 ? class != FP_NAN && class != FP_INFINITE : i->how == 1 ? class == FP_INFINITE : i->how == 2 ? class != FP_NAN
                   : i->how == 3 ? class == FP_NAN : i->how == 4 ? class == FP_NORMAL : class == FP_SUBNORMAL;
        bits |= (uint32_t)yes << l;
    }
    snE_set_pred(w, i->r[0], bits);
    return i + 1;
}
static void decode_testp(Decoding *d)
{
    static const char *const names[] = { ".finite", ".infinite", ".number", ".notanumber", ".normal", ".subnormal" };
    d->ins->bytes = snE_type(d->op, 0).bits / 8;
    for (unsigned k = 0; k < 6; k++)
        if (snE_has(d->op, names[k]))
            d->ins->how = (uint8_t)k;
}

/* -- Addresses --------------------------------------------------------------------------------------------------------- */

/* imm: what is added */
static const Ins *run_cvta(Warp *w, const Ins *i)
{
    Lane64 *d = snE_out64(w, i->r[0]);
    const Lane64 *a = snE_in64(w, i->r[1]);
    for (int l = 0; l < LANES; l++)
        d[l] = w->on[l] ? a[l] + (uint64_t)i->imm : d[l];
    return i + 1;
}

static int window_of(const char *op) { return snE_has(op, ".shared") || snE_has(op, ".shared::cta") ? ID_SHARED : snE_has(op, ".local") ? ID_LOCAL : snE_has(op, ".param") ? ID_PARAM : 0; }

static void decode_cvta(Decoding *d)
{
    int64_t window = (int64_t)snE_window(window_of(d->op));
    d->ins->imm = snE_has(d->op, ".to") ? -window : window;
}

static const Ins *run_isspacep(Warp *w, const Ins *i)
{
    uint32_t bits = 0;
    EACH_LANE(w->active, l) {
        uint64_t id = snE_in64(w, i->r[1])[l] >> WINDOW_BITS;
        bits |= (uint32_t)(i->how ? id == i->how : id >= ID_RANGE) << l;
    }
    snE_set_pred(w, i->r[0], bits);
    return i + 1;
}
static void decode_isspacep(Decoding *d) { d->ins->how = (uint8_t)window_of(d->op); }

/* -- Conversions: any to any, one lane at a time ------------------------------------------------------------------------- */

enum { TO_NEAREST, TO_ZERO, DOWN, UP, TO_AWAY };
enum { CVT_SAT = 8, CVT_FTZ = 16, CVT_RELU = 32, CVT_INTEGRAL = 64 };

/* A float of any size rounded to `digits` bits, smallest exponent `least` (of the last bit), infinity from `most` on. */
static double round_to(double v, int digits, int least, double most, int mode)
{
    if (v == 0 || v != v || isinf(v))
        return v;
    int e;
    frexp(v, &e);
    int unit = e - digits > least ? e - digits : least;
    double scaled = ldexp(v, -unit), whole = trunc(scaled), rest = fabs(scaled - whole);
    bool up = mode == TO_NEAREST ? rest > 0.5 || (rest == 0.5 && fmod(whole, 2) != 0) : mode == TO_AWAY ? rest >= 0.5
              : mode == DOWN ? v < 0 && rest > 0 : mode == UP ? v > 0 && rest > 0 : false;
    if (up)
        whole += v < 0 ? -1 : 1;
    double out = ldexp(whole, unit);
    if (fabs(out) > most)
        return mode == TO_ZERO || (mode == DOWN && v > 0) || (mode == UP && v < 0) ? copysign(most, v) : copysign(INFINITY, v);
    return out == 0 ? copysign(0, v) : out;
}

static double integral(double v, int mode)
{
    return mode == TO_NEAREST ? nearbyint(v) : mode == TO_ZERO ? trunc(v) : mode == DOWN ? floor(v) : ceil(v);
}

static double read_float(uint64_t v, EmuType t, bool ftz)
{
    if (t.bits == 64)
        return snE_double(v);
    if (t.bits == 16)
        return t.kind == 'h' ? (double)snE_float((uint32_t)v << 16) : (double)snE_half((uint32_t)v);
    double d = (double)snE_float((uint32_t)v);
    return ftz && fabs(d) < 0x1p-126 ? copysign(0, d) : d;
}

static uint64_t write_float(double v, EmuType t, int mode, bool ftz)
{
    if (v != v)
        return t.bits == 64 ? 0x7fffffffffffffff : t.bits == 32 ? 0x7fffffff : 0x7fff;
    if (t.bits == 64)
        return snE_bits64(v);
    if (t.kind == 'h')
        return snE_bits((float)round_to(v, 8, -133, 0x1.fep127, mode)) >> 16;
    if (t.bits == 16)
        return snE_round16((float)round_to(v, 11, -24, 65504, mode), false);
    v = round_to(v, 24, -149, 0x1.fffffep127, mode);
    return snE_bits((float)(ftz && fabs(v) < 0x1p-126 ? copysign(0, v) : v));
}

static uint64_t float_to_int(double v, EmuType t, int mode)
{
    double low = t.kind == 's' ? -ldexp(1, t.bits - 1) : 0, high = ldexp(1, t.kind == 's' ? t.bits - 1 : t.bits);
    if (v != v)
        return 0;
    v = integral(v, mode);
    if (v < low)
        v = low;
    if (v >= high)
        return t.kind == 's' ? (1ull << (t.bits - 1)) - 1 : low_bits(~0ull, t.bits);
    return t.kind == 's' ? (uint64_t)(int64_t)v : (uint64_t)v;
}

static uint64_t extend(uint64_t v, EmuType t)
{
    v = low_bits(v, t.bits);
    return t.kind == 's' && t.bits < 64 && v >> (t.bits - 1) ? v | ~0ull << t.bits : v;
}

/* An integer as f32 or f64 of one rounding: 64 bits are more than a double holds */
static double int_to_float(uint64_t v, EmuType from, EmuType to, int mode)
{
    bool minus = from.kind == 's' && (int64_t)v < 0;
    uint64_t u = minus ? -v : v;
    int digits = to.bits == 64 ? 53 : to.bits == 32 ? 24 : to.kind == 'h' ? 8 : 11;
    int drop = u ? 64 - __builtin_clzll(u) - digits : 0;
    if (drop > 0) {
        uint64_t rest = u & ((1ull << drop) - 1), half = 1ull << (drop - 1);
        u >>= drop;
        bool up = mode == TO_NEAREST ? rest > half || (rest == half && u & 1) : mode == DOWN ? minus && rest : mode == UP ? !minus && rest : false;
        u += up;
    }
    double d = ldexp((double)u, drop > 0 ? drop : 0);
    return minus ? -d : d;
}

static uint64_t saturate_int(uint64_t v, EmuType from, EmuType to)
{
    bool minus = from.kind == 's' && (int64_t)v < 0;
    uint64_t most = to.kind == 's' ? (1ull << (to.bits - 1)) - 1 : low_bits(~0ull, to.bits);
    if (minus)
        return to.kind != 's' ? 0 : to.bits < 64 && (int64_t)v < -(int64_t)(1ull << (to.bits - 1)) ? -(1ull << (to.bits - 1)) : v;
    return v > most ? most : v;
}

static bool is_real(EmuType t) { return t.kind == 'f' || t.kind == 'h'; }

static uint64_t convert(uint64_t v, EmuType to, EmuType from, int how)
{
    int mode = how & 7;
    bool ftz = how & CVT_FTZ;
    if (!is_real(from)) {
        v = extend(v, from);
        if (is_real(to))
            return write_float(int_to_float(v, from, to, mode), to, mode, ftz);
        return how & CVT_SAT ? saturate_int(v, from, to) : v;
    }
    double d = read_float(v, from, ftz);
    if (!is_real(to))
        return float_to_int(d, to, mode);
    if (how & CVT_INTEGRAL)
        d = d == 0 || d != d || isinf(d) ? d : copysign(integral(d, mode), d);
    if (how & CVT_SAT)
        d = d > 1 ? 1 : d > 0 ? d : 0;
    if (how & CVT_RELU && d < 0)
        d = 0;
    return write_float(d, to, mode, ftz);
}

/* how: rounding and flags; bytes, count: types of result and operand, kind in imm and imm2; space: width of the result's register */
static const Ins *run_cvt(Warp *w, const Ins *i)
{
    EmuType to = { (char)i->imm, i->bytes, false }, from = { (char)i->imm2, i->count, false };
    bool wide_from = i->space & 1, wide_to = i->space & 2;
    EACH_LANE(w->active, l) {
        uint64_t v = wide_from ? snE_in64(w, i->r[1])[l] : snE_in32(w, i->r[1])[l];
        v = convert(low_bits(v, from.bits), to, from, i->how);
        v = is_real(to) ? v : extend(v, to);
        if (wide_to)
            snE_out64(w, i->r[0])[l] = v;
        else
            snE_out32(w, i->r[0])[l] = i->space & 4 ? (uint16_t)v : (uint32_t)v;
    }
    return i + 1;
}

static const Ins *run_widen_u(Warp *w, const Ins *i)
{
    Lane64 *d = snE_out64(w, i->r[0]);
    const Lane32 *a = snE_in32(w, i->r[1]);
    for (int l = 0; l < LANES; l++)
        d[l] = w->on[l] ? a[l] : d[l];
    return i + 1;
}

static const Ins *run_widen_s(Warp *w, const Ins *i)
{
    Lane64 *d = snE_out64(w, i->r[0]);
    const Lane32 *a = snE_in32(w, i->r[1]);
    for (int l = 0; l < LANES; l++)
        d[l] = w->on[l] ? (uint64_t)(int32_t)a[l] : d[l];
    return i + 1;
}

static const Ins *run_narrow(Warp *w, const Ins *i)
{
    Lane32 *d = snE_out32(w, i->r[0]);
    const Lane64 *a = snE_in64(w, i->r[1]);
    for (int l = 0; l < LANES; l++)
        d[l] = w->on[l] ? (uint32_t)a[l] : d[l];
    return i + 1;
}

static void decode_cvt(Decoding *d)
{
    EmuType to = snE_type(d->op, 1), from = snE_type(d->op, 0);
    static const struct { const char *name; int how; } modes[] = { { ".rn", TO_NEAREST }, { ".rz", TO_ZERO }, { ".rm", DOWN }, { ".rp", UP }, { ".rna", TO_AWAY },
        { ".rni", TO_NEAREST | CVT_INTEGRAL }, { ".rzi", TO_ZERO | CVT_INTEGRAL }, { ".rmi", DOWN | CVT_INTEGRAL }, { ".rpi", UP | CVT_INTEGRAL },
        { ".sat", CVT_SAT }, { ".ftz", CVT_FTZ }, { ".relu", CVT_RELU } };
    int how = 0, wide_from = d->bits[1] ? d->bits[1] == 64 : from.bits == 64, wide_to = d->bits[0] == 64;
    for (unsigned k = 0; k < sizeof modes / sizeof *modes; k++)
        if (snE_has(d->op, modes[k].name))
            how |= modes[k].how;
    if (is_real(from) && !is_real(to) && !(how & CVT_INTEGRAL))
        d->wrong = "a conversion of a float to an integer names its rounding (.rzi or the like)";
    if (is_real(to) && d->bits[0] < to.bits)
        d->wrong = "the register of the result is too small";
    d->ins->how = (uint8_t)how;
    d->ins->bytes = to.bits;
    d->ins->count = from.bits;
    d->ins->imm = to.kind;
    d->ins->imm2 = from.kind;
    d->ins->space = (uint8_t)(wide_from | wide_to << 1 | (d->bits[0] == 16) << 2);
    bool plain = !is_real(to) && !is_real(from) && !(how & CVT_SAT);
    if (plain && to.bits == 64 && from.bits == 32 && wide_to && !wide_from)
        d->ins->run = from.kind == 's' ? run_widen_s : run_widen_u;
    else if (plain && to.bits == 32 && from.bits == 64 && !wide_to && wide_from)
        d->ins->run = run_narrow;
}

/* -- The rest ---------------------------------------------------------------------------------------------------------- */

static const Ins *run_nothing(Warp *w, const Ins *i)
{
    (void)w;
    return i + 1;
}

/* The turn of this warp is over: others may do what it waits for. */
static const Ins *run_nanosleep(Warp *w, const Ins *i)
{
    w->left = 0;
    return i + 1;
}

static const Ins *run_trap(Warp *w, const Ins *i)
{
    snE_fault(w, i, __builtin_ctz(w->active), EMU_TRAP, "the kernel stops itself (trap)");
    w->block->stop = true;
    w->at = i;
    return NULL;
}

#define INTS "(u8|s8|u16|s16|u32|s32|u64|s64)"
#define REALS "(f16|bf16|f32|f64)"
const Row snE_other_rows[] = {
    { "mov.(b16|u16|s16|b32|u32|s32|f32|b64|u64|s64|f64|f16|bf16|f16x2|bf16x2|pred)", "Tt", run_mov, 0, decode_mov },
    { "mov.parts.(b32|b64)", "<t", run_parts, 0, decode_parts },
    { "mov.whole.(b32|b64)", "T>", run_whole, 0, decode_parts },
    { "not.pred", "Pp", run_not, 0, NULL },
    { "and.pred", "Ppp", run_and, 0, NULL },
    { "or.pred", "Ppp", run_or, 0, NULL },
    { "xor.pred", "Ppp", run_xor, 0, NULL },
    { "testp(.finite|.infinite|.number|.notanumber|.normal|.subnormal).(f32|f64)", "Pt", run_testp, 0, decode_testp },
    { "cvta(.to|)(.global|.shared|.shared::cta|.local|.const|.param).u64", "Tt", run_cvta, 0, decode_cvta },
    { "isspacep(.global|.shared|.shared::cta|.local|.param).u64", "Pt", run_isspacep, 0, decode_isspacep },
    { "isspacep(.global|.shared|.shared::cta|.local|.param)", "Pq", run_isspacep, 0, decode_isspacep },
    { "cvt(.sat|)." INTS "." INTS, "Ux", run_cvt, 0, decode_cvt },
    { "cvt(.rni|.rzi|.rmi|.rpi)(.ftz|)(.sat|)." INTS "." REALS, "Ux", run_cvt, 0, decode_cvt },
    { "cvt(.rn|.rz|.rm|.rp)(.sat|)." REALS "." INTS, "Ux", run_cvt, 0, decode_cvt },
    { "cvt(.rn|.rz|.rm|.rp|.rni|.rzi|.rmi|.rpi|)(.ftz|)(.relu|)(.sat|)." REALS "." REALS, "Ux", run_cvt, 0, decode_cvt },
    { "membar.(cta|gl|sys)", "", run_nothing, 0, NULL },
    { "fence(.sc|.acq_rel|)(.cta|.cluster|.gpu|.sys)", "", run_nothing, 0, NULL },
    { "fence.proxy(.async|.alias|.async.global|.async.shared::cta)", "", run_nothing, 0, NULL },
    { "griddepcontrol(.wait|.launch_dependents)", "", run_nothing, 0, NULL },
    { "nanosleep.u32", "w", run_nanosleep, 0, NULL },
    { "trap", "", run_trap, 0, NULL },
};
const int snE_nother_rows = sizeof snE_other_rows / sizeof *snE_other_rows;
