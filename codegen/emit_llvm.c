/* emit_llvm.c: kernel IR to a native object, or to PTX, by LLVM's C API. In: kernels and a target.
   Out: the bytes of an object file with one function per kernel, of the type SnHostKernel
   (runtime/program.h); or PTX text with one entry per kernel (emit_nvptx.c).

   A module of its own (libsinter_llvm.so), opened when something is compiled; it shares no code
   with the compiler and exports snK_emit_object alone. The walk prints: a value of kernel IR is
   one LLVM value, a var is an alloca that LLVM promotes, a for is a rotated loop. No fast-math
   flags, no loop or SLP vectorisation, no library calls ("no-builtins"): the object needs
   nothing from outside.

   bf16 and f16 live in registers as i16. bf16 is rounded by integer operations on every CPU: a
   plain fptrunc would call __truncsfbf2, and vcvtneps2bf16 flushes denormals. Masks are vectors
   of i1, bool elements in memory are bytes. */
#include "codegen/emit_llvm.h"

void snL_wrong(Emit *e, const char *what) { if (!e->err[0]) snprintf(e->err, 512, "%s", what); }

/* -- Types and constants ----------------------------------------------------------------------- */

static bool is_float(int kind) { return kind == K_F32; }
static bool on_card(const Emit *e) { return e->target->gpu && e->target->sm; }
static bool is_half(int kind) { return kind == K_BF16 || kind == K_F16; }
static bool is_signed(int kind) { return kind == K_I32 || kind == K_I64; }

static int bytes_of(int kind) {
    static const uint8_t n[] = { [K_F32] = 4,  [K_BF16] = 2, [K_F16] = 2, [K_I32] = 4, [K_U32] = 4,
                                 [K_BOOL] = 1, [K_I64] = 8,  [K_PTR] = 8, [K_U8] = 1 };
    return n[kind];
}

static Typ lanes_of(Typ t, int lanes) { return lanes > 1 ? LLVMVectorType(t, (unsigned)lanes) : t; }
Typ snL_ints(Emit *e, int bits, int lanes) {
    return lanes_of(LLVMIntTypeInContext(e->ctx, (unsigned)bits), lanes);
}
Typ snL_floats(Emit *e, int lanes) { return lanes_of(LLVMFloatTypeInContext(e->ctx), lanes); }

static Typ scalar(Emit *e, int kind) {
    if (kind == K_F32) return LLVMFloatTypeInContext(e->ctx);
    if (kind == K_PTR) return LLVMPointerTypeInContext(e->ctx, 0);
    return LLVMIntTypeInContext(e->ctx, kind == K_BOOL ? 1 : (unsigned)bytes_of(kind) * 8);
}

static Typ type(Emit *e, KType t) { return lanes_of(scalar(e, t.kind), t.lanes); }

/* The same in memory: bools are bytes. */
static Typ element(Emit *e, int kind) { return kind == K_BOOL ? snL_ints(e, 8, 1) : scalar(e, kind); }

static Val all(Val x, int lanes) {
    Val lane[64];
    for (int n = 0; n < lanes; n++) lane[n] = x;
    return lanes > 1 ? LLVMConstVector(lane, (unsigned)lanes) : x;
}

Val snL_int(Emit *e, int bits, int lanes, int64_t v) {
    Typ t = snL_ints(e, bits, 1);
    return all(LLVMConstInt(t, (unsigned long long)v, 1), lanes);
}

static Val float_const(Emit *e, int lanes, double v) {
    Typ t = snL_floats(e, 1);
    return all(LLVMConstReal(t, v), lanes);
}

/* f32 bits to bf16 bits, to nearest even, NaN stays quiet. */
static uint16_t bf16_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return f != f ? (uint16_t)(u >> 16 | 0x40) : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static Val constant(Emit *e, const KIns *i) {
    int lanes = i->type.lanes, kind = i->type.kind;
    if (kind == K_F32) return float_const(e, lanes, i->f);
    if (kind == K_BF16) return snL_int(e, 16, lanes, bf16_bits((float)i->f));
    if (kind == K_F16) {
        Val h = LLVMConstReal(LLVMHalfTypeInContext(e->ctx), i->f);
        return all(LLVMConstBitCast(h, snL_ints(e, 16, 1)), lanes);
    }
    return snL_int(e, kind == K_BOOL ? 1 : bytes_of(kind) * 8, lanes, i->imm);
}

Val snL_call(Emit *e, const char *name, Typ *over, unsigned nover, Val *args, unsigned n) {
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    Val f = LLVMGetIntrinsicDeclaration(e->mod, id, over, nover);
    return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->ctx, id, over, nover), f, args, n, "");
}

static Val call1(Emit *e, const char *name, Val x) {
    Typ t = LLVMTypeOf(x);
    return snL_call(e, name, &t, 1, &x, 1);
}

/* -- Arithmetic -------------------------------------------------------------------------------- */

static int bits_of(KType t) { return t.kind == K_BOOL ? 1 : bytes_of(t.kind) * 8; }
static Val like(Emit *e, KType t, int64_t v) { return snL_int(e, bits_of(t), t.lanes, v); }
static Val icmp(Emit *e, LLVMIntPredicate p, Val a, Val b) {
    return LLVMBuildICmp(e->b, p, a, b, "");
}
static Val pick(Emit *e, Val c, Val a, Val b) { return LLVMBuildSelect(e->b, c, a, b, ""); }

/* Integer division never traps: x / 0 = x % 0 = 0, and the least number / -1 wraps. */
static Val divide(Emit *e, const KIns *i, Val a, Val b) {
    KType t = i->type;
    bool sign = is_signed(t.kind), rem = i->op == K_rem;
    Val zero = like(e, t, 0), one = like(e, t, 1), ones = like(e, t, -1);
    Val is0 = icmp(e, LLVMIntEQ, b, zero), is1 = icmp(e, LLVMIntEQ, b, ones);
    Val safe = pick(e, sign ? LLVMBuildOr(e->b, is0, is1, "") : is0, one, b), q;
    if (sign) q = rem ? LLVMBuildSRem(e->b, a, safe, "") : LLVMBuildSDiv(e->b, a, safe, "");
    else q = rem ? LLVMBuildURem(e->b, a, safe, "") : LLVMBuildUDiv(e->b, a, safe, "");
    if (sign && !rem) q = pick(e, is1, LLVMBuildNeg(e->b, a, ""), q);
    return rem ? q : pick(e, is0, zero, q); /* x % 1 is the 0 wanted in both cases */
}

/* A finite constant that is not 0 (whose sign would matter). */
static bool plain_constant(Val a) {
    LLVMBool loses;
    if (LLVMIsConstant(a) && LLVMGetTypeKind(LLVMTypeOf(a)) == LLVMVectorTypeKind) a = LLVMGetAggregateElement(a, 0);
    if (!a || !LLVMIsAConstantFP(a)) return false;
    double v = LLVMConstRealGetDouble(a, &loses);
    return v != 0 && v - v == 0;
}

static Val least(Emit *e, KType t, bool max, Val a, Val b) {
    if (is_float(t.kind) && on_card(e) && plain_constant(a)) {         /* one instruction on cards; a NaN of b's stays */
        Typ over = LLVMTypeOf(a);
        return snL_call(e, max ? "llvm.maximum" : "llvm.minimum", &over, 1, (Val[]){ a, b }, 2);
    }
    if (is_float(t.kind))
        return pick(e, LLVMBuildFCmp(e->b, max ? LLVMRealOGT : LLVMRealOLT, a, b, ""), a, b);
    if (t.kind == K_BOOL) return max ? LLVMBuildOr(e->b, a, b, "") : LLVMBuildAnd(e->b, a, b, "");
    LLVMIntPredicate p =
        is_signed(t.kind) ? (max ? LLVMIntSGT : LLVMIntSLT) : (max ? LLVMIntUGT : LLVMIntULT);
    return pick(e, icmp(e, p, a, b), a, b);
}

/* a * 2^b: one instruction on AVX-512, else two exact powers of 2 so that only the last product rounds. */
static Val ldexp_op(Emit *e, int lanes, Val a, Val b) {
    if (e->target->f32_lanes == 16 && (lanes == 1 || lanes == 16)) {
        Typ v = snL_floats(e, lanes == 1 ? 4 : 16);
        Val zero = LLVMConstNull(v), i0 = snL_int(e, 32, 1, 0), round = snL_int(e, 32, 1, 4);
        if (lanes == 1) {
            a = LLVMBuildInsertElement(e->b, zero, a, i0, "");
            b = LLVMBuildInsertElement(e->b, zero, b, i0, "");
            a = snL_call(e, "llvm.x86.avx512.mask.scalef.ss", NULL, 0, (Val[]){ a, b, zero, snL_int(e, 8, 1, -1), round }, 5);
            return LLVMBuildExtractElement(e->b, a, i0, "");
        }
        return snL_call(e, "llvm.x86.avx512.mask.scalef.ps.512", NULL, 0, (Val[]){ a, b, zero, snL_int(e, 16, 1, -1), round }, 5);
    }
    b = LLVMBuildBitCast(e->b, LLVMBuildFAdd(e->b, b, float_const(e, lanes, 12582912), ""), snL_ints(e, 32, lanes), "");
    Val n = LLVMBuildSub(e->b, b, snL_int(e, 32, lanes, 0x4b400000), "");        /* the bits of 1.5 * 2^23 */
    Val half = LLVMBuildAShr(e->b, n, snL_int(e, 32, lanes, 1), "");
    Val part[] = { half, LLVMBuildSub(e->b, n, half, "") };
    for (int k = 0; k < 2; k++) {
        Val bits = LLVMBuildShl(e->b, LLVMBuildAdd(e->b, part[k], snL_int(e, 32, lanes, 127), ""), snL_int(e, 32, lanes, 23), "");
        a = LLVMBuildFMul(e->b, a, LLVMBuildBitCast(e->b, bits, snL_floats(e, lanes), ""), "");
    }
    return a;
}

static Val float_op(Emit *e, const KIns *i, Val a, Val b, Val c) {
    switch (i->op) {
    case K_add: return LLVMBuildFAdd(e->b, a, b, "");
    case K_sub: return LLVMBuildFSub(e->b, a, b, "");
    case K_mul: return LLVMBuildFMul(e->b, a, b, "");
    case K_div: return LLVMBuildFDiv(e->b, a, b, "");
    case K_neg: return LLVMBuildFNeg(e->b, a, "");
    case K_abs: return call1(e, "llvm.fabs", a);
    case K_sqrt: return call1(e, "llvm.sqrt", a);
    case K_floor: return call1(e, "llvm.floor", a);
    case K_ceil: return call1(e, "llvm.ceil", a);
    case K_rint: return call1(e, "llvm.rint", a);
    case K_min: case K_max: return least(e, i->type, i->op == K_max, a, b);
    case K_ldexp: return ldexp_op(e, i->type.lanes, a, b);
    case K_fma: {
        Typ t = LLVMTypeOf(a);
        return snL_call(e, "llvm.fma", &t, 1, (Val[]){ a, b, c }, 3);
    }
    default: return snL_wrong(e, "no such float op"), a;
    }
}

static Val mulhi(Emit *e, int lanes, Val a, Val b) {
    Typ wide = snL_ints(e, 64, lanes);
    a = LLVMBuildZExt(e->b, a, wide, "");
    b = LLVMBuildZExt(e->b, b, wide, "");
    Val p = LLVMBuildLShr(e->b, LLVMBuildMul(e->b, a, b, ""), snL_int(e, 64, lanes, 32), "");
    return LLVMBuildTrunc(e->b, p, snL_ints(e, 32, lanes), "");
}

static Val int_op(Emit *e, const KIns *i, Val a, Val b) {
    KType t = i->type;
    switch (i->op) {
    case K_add: return LLVMBuildAdd(e->b, a, b, "");
    case K_sub: return LLVMBuildSub(e->b, a, b, "");
    case K_mul: return LLVMBuildMul(e->b, a, b, "");
    case K_div: case K_rem: return divide(e, i, a, b);
    case K_neg: return LLVMBuildNeg(e->b, a, "");
    case K_abs:
        return is_signed(t.kind)
                   ? pick(e, icmp(e, LLVMIntSLT, a, like(e, t, 0)), LLVMBuildNeg(e->b, a, ""), a)
                   : a;
    case K_min: case K_max: return least(e, t, i->op == K_max, a, b);
    case K_and: return LLVMBuildAnd(e->b, a, b, "");
    case K_or: return LLVMBuildOr(e->b, a, b, "");
    case K_xor: return LLVMBuildXor(e->b, a, b, "");
    case K_not: return LLVMBuildNot(e->b, a, "");
    case K_mulhi: return mulhi(e, t.lanes, a, b);
    case K_shl: case K_shr:
        b = LLVMBuildAnd(e->b, b, like(e, t, bits_of(t) - 1), "");
        if (i->op == K_shl) return LLVMBuildShl(e->b, a, b, "");
        return is_signed(t.kind) ? LLVMBuildAShr(e->b, a, b, "") : LLVMBuildLShr(e->b, a, b, "");
    default: return snL_wrong(e, "no such integer op"), a;
    }
}

static Val compare(Emit *e, int op, int kind, Val a, Val b) {
    static const LLVMRealPredicate real[] = { LLVMRealOLT, LLVMRealOLE, LLVMRealOGT,
                                              LLVMRealOGE, LLVMRealOEQ, LLVMRealUNE };
    static const LLVMIntPredicate sint[] = { LLVMIntSLT, LLVMIntSLE, LLVMIntSGT,
                                             LLVMIntSGE, LLVMIntEQ,  LLVMIntNE };
    static const LLVMIntPredicate uint[] = { LLVMIntULT, LLVMIntULE, LLVMIntUGT,
                                             LLVMIntUGE, LLVMIntEQ,  LLVMIntNE };
    if (is_float(kind)) return LLVMBuildFCmp(e->b, real[op - K_lt], a, b, "");
    return icmp(e, is_signed(kind) ? sint[op - K_lt] : uint[op - K_lt], a, b);
}

/* -- Conversions ------------------------------------------------------------------------------- */

static Val widen_half(Emit *e, int kind, int lanes, Val x) {
    if (kind == K_F16) {
        Val h = LLVMBuildBitCast(e->b, x, lanes_of(LLVMHalfTypeInContext(e->ctx), lanes), "");
        return LLVMBuildFPExt(e->b, h, snL_floats(e, lanes), "");
    }
    Val u = LLVMBuildShl(e->b, LLVMBuildZExt(e->b, x, snL_ints(e, 32, lanes), ""),
                         snL_int(e, 32, lanes, 16), "");
    return LLVMBuildBitCast(e->b, u, snL_floats(e, lanes), "");
}

/* An instruction for every two, on cards. */
static Val narrow_on_card(Emit *e, int lanes, Val x) {
    if (lanes == 1) return LLVMBuildBitCast(e->b, snL_call(e, "llvm.nvvm.f2bf16.rn", NULL, 0, &x, 1), snL_ints(e, 16, 1), "");
    Val words = LLVMGetPoison(snL_ints(e, 32, lanes / 2));
    for (int n = 0; n < lanes; n += 2) {
        Val pair[2];                             /* the upper half first */
        for (int k = 0; k < 2; k++) pair[k] = LLVMBuildExtractElement(e->b, x, snL_int(e, 32, 1, n + 1 - k), "");
        Val word = LLVMBuildBitCast(e->b, snL_call(e, "llvm.nvvm.ff2bf16x2.rn", NULL, 0, pair, 2), snL_ints(e, 32, 1), "");
        words = lanes == 2 ? word : LLVMBuildInsertElement(e->b, words, word, snL_int(e, 32, 1, n / 2), "");
    }
    return LLVMBuildBitCast(e->b, words, snL_ints(e, 16, lanes), "");
}

static Val narrow_half(Emit *e, int kind, int lanes, Val x) {
    if (kind == K_BF16 && on_card(e) && (lanes == 1 || lanes % 2 == 0)) return narrow_on_card(e, lanes, x);
    if (kind == K_F16) {
        Val h = LLVMBuildFPTrunc(e->b, x, lanes_of(LLVMHalfTypeInContext(e->ctx), lanes), "");
        return LLVMBuildBitCast(e->b, h, snL_ints(e, 16, lanes), "");
    }
    Val u = LLVMBuildBitCast(e->b, x, snL_ints(e, 32, lanes), "");
    Val sixteen = snL_int(e, 32, lanes, 16);
    Val high = LLVMBuildLShr(e->b, u, sixteen, "");
    Val even = LLVMBuildAnd(e->b, high, snL_int(e, 32, lanes, 1), "");
    Val up = LLVMBuildAdd(e->b, u, snL_int(e, 32, lanes, 0x7fff), "");
    up = LLVMBuildAdd(e->b, up, even, "");
    Val quiet = LLVMBuildOr(e->b, high, snL_int(e, 32, lanes, 0x40), "");
    Val r = pick(e, LLVMBuildFCmp(e->b, LLVMRealUNO, x, x, ""), quiet,
                 LLVMBuildLShr(e->b, up, sixteen, ""));
    return LLVMBuildTrunc(e->b, r, snL_ints(e, 16, lanes), "");
}

static Val float_to_int(Emit *e, KType t, Val x) {
    Typ over[2] = { type(e, t), LLVMTypeOf(x) };
    return snL_call(e, is_signed(t.kind) ? "llvm.fptosi.sat" : "llvm.fptoui.sat", over, 2, &x, 1);
}

static Val cast(Emit *e, KType from, KType t, Val x) {
    int kind = from.kind, lanes = t.lanes;
    if (is_half(kind) && kind != t.kind) x = widen_half(e, kind, lanes, x), kind = K_F32;
    if (kind == t.kind) return x;
    if (is_float(t.kind) || is_half(t.kind)) {
        if (kind != K_F32)
            x = is_signed(kind) ? LLVMBuildSIToFP(e->b, x, snL_floats(e, lanes), "")
                                : LLVMBuildUIToFP(e->b, x, snL_floats(e, lanes), "");
        return is_half(t.kind) ? narrow_half(e, t.kind, lanes, x) : x;
    }
    if (t.kind == K_BOOL)
        return kind == K_F32 ? LLVMBuildFCmp(e->b, LLVMRealUNE, x, float_const(e, lanes, 0), "")
                             : icmp(e, LLVMIntNE, x, LLVMConstNull(LLVMTypeOf(x)));
    if (kind == K_F32) return float_to_int(e, t, x);
    int have = kind == K_BOOL ? 1 : bytes_of(kind) * 8, want = bits_of(t);
    if (have == want) return x;
    if (have > want) return LLVMBuildTrunc(e->b, x, type(e, t), "");
    return is_signed(kind) ? LLVMBuildSExt(e->b, x, type(e, t), "")
                           : LLVMBuildZExt(e->b, x, type(e, t), "");
}

/* LLVM's operands are <16 x i32> or, later, <32 x bfloat>; both are these bits. */
static Val dot_pairs(Emit *e, Val a, Val b, Val c) {
    static const char name[] = "llvm.x86.avx512bf16.dpbf16ps.512";
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    Typ params[3];
    if (!id) return snL_wrong(e, "no dot product of bf16 pairs in this LLVM"), c;
    LLVMGetParamTypes(LLVMIntrinsicGetType(e->ctx, id, NULL, 0), params);
    a = LLVMBuildBitCast(e->b, a, params[1], "");
    b = LLVMBuildBitCast(e->b, b, params[2], "");
    return snL_call(e, name, NULL, 0, (Val[]){ c, a, b }, 3);
}

/* -- Vectors ----------------------------------------------------------------------------------- */

static Val i32c(Emit *e, int v) {
    return LLVMConstInt(LLVMInt32TypeInContext(e->ctx), (unsigned)v, 0);
}

static Val shuffle(Emit *e, Val a, Val b, const uint8_t *lane, int n) {
    Val index[64];
    for (int j = 0; j < n; j++) index[j] = i32c(e, lane[j]);
    return LLVMBuildShuffleVector(e->b, a, b ? b : LLVMGetPoison(LLVMTypeOf(a)),
                                  LLVMConstVector(index, (unsigned)n), "");
}

/* A scalar as a vector of one lane, for the ops that LLVM has on vectors only. */
static Val one_lane(Emit *e, Val x) {
    if (!x || LLVMGetTypeKind(LLVMTypeOf(x)) == LLVMVectorTypeKind) return x;
    return LLVMBuildInsertElement(e->b, LLVMGetPoison(LLVMVectorType(LLVMTypeOf(x), 1)), x,
                                  i32c(e, 0), "");
}

static Val shuffle_op(Emit *e, const KIns *i, Val a, Val b) {
    const uint8_t *lane = e->k->shuffles.v[i->imm].lane;
    Val r = shuffle(e, one_lane(e, a), one_lane(e, b), lane, i->type.lanes);
    return i->type.lanes == 1 ? LLVMBuildExtractElement(e->b, r, i32c(e, 0), "") : r;
}

static Val splat(Emit *e, Val x, int lanes) {
    Val v = LLVMBuildInsertElement(
        e->b, LLVMGetPoison(LLVMVectorType(LLVMTypeOf(x), (unsigned)lanes)), x, i32c(e, 0), "");
    uint8_t zero[64] = {0};
    return shuffle(e, v, NULL, zero, lanes);
}

/* Halves combined until one lane is left. */
static Val across(Emit *e, const KIns *i, KType from, Val x) {
    for (int w = from.lanes / 2; w >= 1; w /= 2) {
        uint8_t low[64], high[64];
        for (int n = 0; n < w; n++) low[n] = (uint8_t)n, high[n] = (uint8_t)(n + w);
        Val a = shuffle(e, x, NULL, low, w), b = shuffle(e, x, NULL, high, w);
        if (i->op != K_hsum) x = least(e, kt((KKind)from.kind, w), i->op == K_hmax, a, b);
        else x = is_float(from.kind) ? LLVMBuildFAdd(e->b, a, b, "") : LLVMBuildAdd(e->b, a, b, "");
    }
    return from.lanes == 1 ? x : LLVMBuildExtractElement(e->b, x, i32c(e, 0), "");
}

/* -- Memory ------------------------------------------------------------------------------------ */

static Val from_memory(Emit *e, int kind, Val x) {
    return kind == K_BOOL ? icmp(e, LLVMIntNE, x, LLVMConstNull(LLVMTypeOf(x))) : x;
}

static Val to_memory(Emit *e, KType t, Val x) {
    return t.kind == K_BOOL ? LLVMBuildZExt(e->b, x, snL_ints(e, 8, t.lanes), "") : x;
}

/* The address of p[index]; under a mask it may lie outside the buffer when every lane is off, so
   no claim is made. */
static Val address(Emit *e, Typ el, Val p, Val index, bool inside) {
    return inside ? LLVMBuildInBoundsGEP2(e->b, el, p, &index, 1, "")
                  : LLVMBuildGEP2(e->b, el, p, &index, 1, "");
}

static unsigned alignment(const KIns *i, int kind) {
    return (unsigned)(i->imm > 1 ? i->imm : 1) * (unsigned)bytes_of(kind);
}

static Val load(Emit *e, const KIns *i, Val p, Val index, Val mask) {
    KType t = i->type;
    Typ el = element(e, t.kind), ty = lanes_of(el, t.lanes);
    Val at = address(e, el, p, index, !mask);
    if (!mask) {
        Val x = LLVMBuildLoad2(e->b, ty, at, "");
        LLVMSetAlignment(x, alignment(i, t.kind));
        return from_memory(e, t.kind, x);
    }
    Typ over[2] = { LLVMVectorType(el, t.lanes), LLVMTypeOf(at) };
    Val args[4] = { at, i32c(e, (int)alignment(i, t.kind)), one_lane(e, mask),
                    LLVMConstNull(over[0]) };
    Val x = snL_call(e, "llvm.masked.load", over, 2, args, 4);
    if (t.lanes == 1) x = LLVMBuildExtractElement(e->b, x, i32c(e, 0), "");
    return from_memory(e, t.kind, x);
}

static void store(Emit *e, const KIns *i, Val p, Val index, Val x, Val mask) {
    KType t = e->k->ins.v[i->a[2]].type;
    Val at = address(e, element(e, t.kind), p, index, !mask);
    x = to_memory(e, t, x);
    if (!mask) {
        LLVMSetAlignment(LLVMBuildStore(e->b, x, at), alignment(i, t.kind));
        return;
    }
    x = one_lane(e, x);
    Typ over[2] = { LLVMTypeOf(x), LLVMTypeOf(at) };
    snL_call(e, "llvm.masked.store", over, 2,
         (Val[]){ x, at, i32c(e, (int)alignment(i, t.kind)), one_lane(e, mask) }, 4);
}

static Val all_on(Emit *e, Val mask, int lanes) {
    if (mask) return one_lane(e, mask);
    return lanes == 1 ? one_lane(e, snL_int(e, 1, 1, 1)) : snL_int(e, 1, lanes, 1);
}

static Val gather(Emit *e, const KIns *i, Val p, Val index, Val mask) {
    KType t = i->type;
    Typ el = element(e, t.kind);
    Val at = address(e, el, p, one_lane(e, index), !mask);
    Typ over[2] = { LLVMVectorType(el, t.lanes), LLVMTypeOf(at) };
    Val args[4] = { at, i32c(e, bytes_of(t.kind)), all_on(e, mask, t.lanes),
                    LLVMConstNull(over[0]) };
    Val x = snL_call(e, "llvm.masked.gather", over, 2, args, 4);
    if (t.lanes == 1) x = LLVMBuildExtractElement(e->b, x, i32c(e, 0), "");
    return from_memory(e, t.kind, x);
}

/* LLVM orders the lanes of a scatter from the first to the last, as kernel IR does. */
static void scatter(Emit *e, const KIns *i, Val p, Val index, Val x, Val mask) {
    KType t = e->k->ins.v[i->a[2]].type;
    Val at = address(e, element(e, t.kind), p, one_lane(e, index), !mask);
    x = one_lane(e, to_memory(e, t, x));
    Typ over[2] = { LLVMTypeOf(x), LLVMTypeOf(at) };
    snL_call(e, "llvm.masked.scatter", over, 2,
         (Val[]){ x, at, i32c(e, bytes_of(t.kind)), all_on(e, mask, t.lanes) }, 4);
}

static void prefetch(Emit *e, const KIns *i, Val p, Val index) {
    Val at = address(e, element(e, e->k->ins.v[i->a[0]].mem), p, index, false);
    Typ over = LLVMTypeOf(at);
    snL_call(e, "llvm.prefetch", &over, 1, (Val[]){ at, i32c(e, (int)i->imm), i32c(e, 3), i32c(e, 1) }, 4);
}

/* -- Structure --------------------------------------------------------------------------------- */

static Block new_block(Emit *e) { return LLVMAppendBasicBlockInContext(e->ctx, e->fn, ""); }
static Block here(Emit *e) { return LLVMGetInsertBlock(e->b); }

static Val alloca_at_entry(Emit *e, Typ t) { return LLVMBuildAlloca(e->entry, t, ""); }

/* llvm.loop metadata: a node whose first operand is itself, then the property. */
static void unroll_hint(Emit *e, Val branch, int64_t count) {
    LLVMMetadataRef name, one[2], loop[2];
    if (count > 1) {
        name = LLVMMDStringInContext2(e->ctx, "llvm.loop.unroll.count", 22);
        one[1] = LLVMValueAsMetadata(i32c(e, (int)count));
    } else {
        name = LLVMMDStringInContext2(e->ctx, "llvm.loop.unroll.disable", 24);
    }
    one[0] = name;
    loop[0] = LLVMTemporaryMDNode(e->ctx, NULL, 0);
    loop[1] = LLVMMDNodeInContext2(e->ctx, one, count > 1 ? 2 : 1);
    LLVMMetadataRef node = LLVMMDNodeInContext2(e->ctx, loop, 2);
    LLVMMetadataReplaceAllUsesWith(loop[0], node);
    LLVMSetMetadata(branch, LLVMGetMDKindIDInContext(e->ctx, "llvm.loop", 9),
                    LLVMMetadataAsValue(e->ctx, node));
}

static Val open_for(Emit *e, const KIns *i, Val begin, Val end, Val step) {
    Region *r = &e->region[e->depth++];
    *r = (Region){ .at = i, .end = end, .step = step, .body = new_block(e), .join = new_block(e) };
    LLVMBuildCondBr(e->b, icmp(e, LLVMIntSLT, begin, end), r->body, r->join);
    Block from = here(e);
    LLVMPositionBuilderAtEnd(e->b, r->body);
    r->i = LLVMBuildPhi(e->b, LLVMTypeOf(begin), "");
    LLVMAddIncoming(r->i, &begin, &from, 1);
    return r->i;
}

static void open_if(Emit *e, const KIns *i, Val cond) {
    Region *r = &e->region[e->depth++];
    *r = (Region){ .at = i, .body = new_block(e), .other = new_block(e), .join = new_block(e) };
    LLVMBuildCondBr(e->b, cond, r->body, r->other);
    LLVMPositionBuilderAtEnd(e->b, r->body);
}

static void other_branch(Emit *e) {
    Region *r = &e->region[e->depth - 1];
    LLVMBuildBr(e->b, r->join);
    LLVMPositionBuilderAtEnd(e->b, r->other);
    r->has_else = true;
}

static void close_region(Emit *e) {
    Region *r = &e->region[e->depth - 1];
    if (r->at->op == K_for) {
        Val next = LLVMBuildNSWAdd(e->b, r->i, r->step, "");
        Block from = here(e);
        unroll_hint(e, LLVMBuildCondBr(e->b, icmp(e, LLVMIntSLT, next, r->end), r->body, r->join),
                    r->at->imm);
        LLVMAddIncoming(r->i, &next, &from, 1);
    } else {
        if (!r->has_else) other_branch(e);
        LLVMBuildBr(e->b, r->join);
    }
    e->depth--;
    LLVMPositionBuilderAtEnd(e->b, r->join);
}

/* -- The walk ---------------------------------------------------------------------------------- */

static Val byte_offset(Emit *e, Val p, int64_t bytes) {
    Val at = snL_int(e, 64, 1, bytes);
    return LLVMBuildInBoundsGEP2(e->entry, snL_ints(e, 8, 1), p, &at, 1, "");
}

/* Leaves stand before everything: arguments of the call, constants. bufs, la, begin, end,
   scratch are arguments 0..4. */
static Val leaf(Emit *e, const KIns *i) {
    if (e->target->gpu && i->op != K_const && i->op != K_lane) return snN_leaf(e, i);
    Typ ptr = LLVMPointerTypeInContext(e->ctx, 0), word = snL_ints(e, 32, 1);
    switch (i->op) {
    case K_const: return constant(e, i);
    case K_param: {
        Val at = byte_offset(e, LLVMGetParam(e->fn, 0), i->imm * 8);
        return LLVMBuildLoad2(e->entry, ptr, at, "");      /* no alignment claimed: it may be a part of another buffer */
    }
    case K_scratch: return byte_offset(e, LLVMGetParam(e->fn, 4), i->imm);
    case K_task: return LLVMGetParam(e->fn, 2 + (unsigned)i->imm);
    case K_sysarg:
        return LLVMBuildLoad2(e->entry, word, byte_offset(e, LLVMGetParam(e->fn, 1), i->imm * 4),
                              "");
    case K_lane: {
        Val lane[64];
        for (int n = 0; n < i->type.lanes; n++)
            lane[n] = LLVMConstInt(scalar(e, i->type.kind), (unsigned)n, 0);
        return i->type.lanes > 1 ? LLVMConstVector(lane, i->type.lanes) : lane[0];
    }
    default: return snL_wrong(e, "a GPU's op in a kernel for the host"), NULL;
    }
}

static Val value(Emit *e, const KIns *i, KType from, Val a, Val b, Val c) {
    int lanes = i->type.lanes;
    if (i->op >= K_lt && i->op <= K_ne) return compare(e, i->op, from.kind, a, b);
    if (i->op >= K_barrier && i->op <= K_tf32) return snN_op(e, i, a, b, c);
    if (i->op >= K_add && i->op <= K_mulhi)
        return is_float(i->type.kind) ? float_op(e, i, a, b, c) : int_op(e, i, a, b);
    switch (i->op) {
    case K_dpbf16: return dot_pairs(e, a, b, c);
    case K_select: return pick(e, a, b, c);
    case K_cast: return cast(e, from, i->type, a);
    case K_bitcast: return LLVMBuildBitCast(e->b, a, type(e, i->type), "");
    case K_splat: return lanes > 1 ? splat(e, a, lanes) : a;
    case K_extract:
        return from.lanes > 1 ? LLVMBuildExtractElement(e->b, a, i32c(e, (int)i->imm), "") : a;
    case K_shuffle: return shuffle_op(e, i, a, b);
    case K_hsum: case K_hmax: case K_hmin: return across(e, i, from, a);
    case K_load: return load(e, i, a, b, c);
    case K_gather: return gather(e, i, a, b, c);
    case K_offset: return address(e, element(e, i->mem), a, b, false);
    case K_get: return LLVMBuildLoad2(e->b, type(e, i->type), a, "");
    case K_var: {
        Val p = alloca_at_entry(e, type(e, i->type));
        LLVMBuildStore(e->b, a, p);
        return p;
    }
    default: return snL_wrong(e, "unknown op"), a;
    }
}

static void instruction(Emit *e, KVal x) {
    const KIns *i = &e->k->ins.v[x];
    Val a = e->v[i->a[0]], b = e->v[i->a[1]], c = e->v[i->a[2]], d = e->v[i->a[3]];
    switch (i->op) {
    case K_store: store(e, i, a, b, c, d); break;
    case K_scatter: scatter(e, i, a, b, c, d); break;
    case K_set: LLVMBuildStore(e->b, b, a); break;
    case K_for: e->v[x] = open_for(e, i, a, b, c); break;
    case K_if: open_if(e, i, a); break;
    case K_else: other_branch(e); break;
    case K_end: close_region(e); break;
    case K_prefetch: if (!e->target->gpu) prefetch(e, i, a, b); break;
    case K_barrier: case K_cp_async: case K_cp_commit: case K_cp_wait: snN_op(e, i, a, b, c); break;
    default: e->v[x] = value(e, i, e->k->ins.v[i->a[0]].type, a, b, c);
    }
}

static void text_attr(Emit *e, const char *key, const char *val) {
    LLVMAttributeRef a =
        LLVMCreateStringAttribute(e->ctx, key, (unsigned)strlen(key), val, (unsigned)strlen(val));
    LLVMAddAttributeAtIndex(e->fn, LLVMAttributeFunctionIndex, a);
}

static void flag_attr(Emit *e, unsigned index, const char *key, uint64_t val) {
    unsigned id = LLVMGetEnumAttributeKindForName(key, strlen(key));
    LLVMAddAttributeAtIndex(e->fn, index, LLVMCreateEnumAttribute(e->ctx, id, val));
}

static void declare(Emit *e, const char *cpu, const char *features) {
    Typ ptr = LLVMPointerTypeInContext(e->ctx, 0), i64 = LLVMInt64TypeInContext(e->ctx);
    Typ args[5] = { ptr, ptr, i64, i64, ptr };
    Typ t = LLVMFunctionType(LLVMVoidTypeInContext(e->ctx), args, 5, 0);
    e->fn = LLVMAddFunction(e->mod, e->k->ctx->syms.v[e->k->name], t);
    flag_attr(e, LLVMAttributeFunctionIndex, "nounwind", 0);
    text_attr(e, "target-cpu", cpu);
    text_attr(e, "target-features", features);
    text_attr(e, "no-builtins", "true");
    if (e->target->f32_lanes == 16) text_attr(e, "prefer-vector-width", "512");
    flag_attr(e, 1, "noalias", 0);
    flag_attr(e, 2, "noalias", 0);
    flag_attr(e, 5, "noalias", 0);       /* scratch; two buffers may be one, written in place */
    flag_attr(e, 5, "align", 64);
}

static void emit_kernel(Emit *e, const char *cpu, const char *features) {
    if (e->target->gpu) snN_declare(e);
    else declare(e, cpu, features);
    Block entry = new_block(e), body = new_block(e);
    e->b = LLVMCreateBuilderInContext(e->ctx);
    e->entry = LLVMCreateBuilderInContext(e->ctx);
    LLVMPositionBuilderAtEnd(e->b, body);
    LLVMPositionBuilderAtEnd(e->entry, entry);
    e->v = calloc(e->k->ins.n, sizeof *e->v);
    if (!e->v) snL_wrong(e, "out of memory");
    for (KVal x = 1; x < e->k->ins.n && !e->err[0]; x++) {
        int op = e->k->ins.v[x].op;
        if (op >= K_const && op <= K_lane) e->v[x] = leaf(e, &e->k->ins.v[x]);
    }
    for (KVal x = 1; x < e->k->ins.n && !e->err[0]; x++) {
        int op = e->k->ins.v[x].op;
        if (op > K_lane) instruction(e, x);
    }
    LLVMBuildRetVoid(e->b);
    LLVMBuildBr(e->entry, body);
    LLVMDisposeBuilder(e->b);
    LLVMDisposeBuilder(e->entry);
    free(e->v);
}

/* -- The module -------------------------------------------------------------------------------- */

static void start_llvm(void) {
    LLVMInitializeNativeTarget();
    LLVMInitializeNativeAsmPrinter();
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
}

static void optimise(LLVMModuleRef mod, LLVMTargetMachineRef tm, char err[512]) {
    LLVMPassBuilderOptionsRef o = LLVMCreatePassBuilderOptions();
    LLVMPassBuilderOptionsSetLoopVectorization(o, 0);
    LLVMPassBuilderOptionsSetSLPVectorization(o, 0);
    LLVMPassBuilderOptionsSetLoopInterleaving(o, 0);
    LLVMErrorRef bad = LLVMRunPasses(mod, "default<O2>", tm, o);
    if (bad) {
        char *text = LLVMGetErrorMessage(bad);
        snprintf(err, 512, "LLVM: %s", text);
        LLVMDisposeErrorMessage(text);
    }
    LLVMDisposePassBuilderOptions(o);
}

static void dump(LLVMModuleRef mod, LLVMTargetMachineRef tm, const char *dir, const char *name) {
    char path[1024], *msg = NULL;
    snprintf(path, sizeof path, "%s/%s.ll", dir, name);
    if (LLVMPrintModuleToFile(mod, path, &msg)) LLVMDisposeMessage(msg);
    snprintf(path, sizeof path, "%s/%s.s", dir, name);
    LLVMModuleRef copy = LLVMCloneModule(mod);
    if (LLVMTargetMachineEmitToFile(tm, copy, path, LLVMAssemblyFile, &msg))
        LLVMDisposeMessage(msg);
    LLVMDisposeModule(copy);
}

static void finish(LLVMModuleRef mod, LLVMTargetMachineRef tm, const char *dir, const char *name,
                   bool text, void **obj, size_t *bytes, char err[512]) {
    char *msg = NULL;
    if (LLVMVerifyModule(mod, LLVMReturnStatusAction, &msg)) snprintf(err, 512, "LLVM: %s", msg);
    LLVMDisposeMessage(msg);
    if (!err[0]) optimise(mod, tm, err);
    if (err[0]) return;
    if (dir) dump(mod, tm, dir, name);
    LLVMMemoryBufferRef buf;
    if (LLVMTargetMachineEmitToMemoryBuffer(tm, mod, text ? LLVMAssemblyFile : LLVMObjectFile, &msg, &buf)) {
        snprintf(err, 512, "LLVM: %s", msg);
        LLVMDisposeMessage(msg);
        return;
    }
    *bytes = LLVMGetBufferSize(buf);
    *obj = malloc(*bytes + 1);
    if (*obj) memcpy(*obj, LLVMGetBufferStart(buf), *bytes);
    else snprintf(err, 512, "out of memory");
    LLVMDisposeMemoryBuffer(buf);
}

static void compile(const Kernel *const *kernels, int n, const Target *t, const char *cpu,
                    const char *features, LLVMTargetMachineRef tm, const char *triple,
                    const char *dir, void **obj, size_t *bytes, char err[512]) {
    LLVMContextRef ctx = LLVMContextCreate();
    const char *name = kernels[0]->ctx->syms.v[kernels[0]->name];
    LLVMModuleRef mod = LLVMModuleCreateWithNameInContext(name, ctx);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(tm);
    LLVMSetModuleDataLayout(mod, layout);
    LLVMSetTarget(mod, triple);
    for (int i = 0; i < n && !err[0]; i++) {
        Emit e = { .k = kernels[i], .target = t, .ctx = ctx, .mod = mod, .err = err };
        emit_kernel(&e, cpu, features);
    }
    if (!err[0]) finish(mod, tm, dir, name, t->gpu, obj, bytes, err);
    LLVMDisposeTargetData(layout);
    LLVMDisposeModule(mod);
    LLVMContextDispose(ctx);
}

/* Who compiles, for the keys of a cache: version, CPU, features. */
static void identity(const char *triple, const char *cpu, const char *features, void **obj,
                     size_t *bytes) {
    unsigned major, minor, patch;
    LLVMGetVersion(&major, &minor, &patch);
    size_t room = strlen(triple) + strlen(cpu) + strlen(features) + 100;
    char *s = malloc(room);
    if (s)
        *bytes = (size_t)snprintf(s, room, "emitter %d llvm %u.%u.%u %s %s %s", EMITTER_VERSION,
                                  major, minor, patch, triple, cpu, features);
    *obj = s;
}

static int emit_ptx(const Kernel *const *kernels, int n, const Target *t, const char *dump_dir,
                    void **obj, size_t *bytes, char err[512]) {
    const char *triple, *features;
    char cpu[16];
    snN_identity(t, &triple, cpu, &features);
    if (n == 0) {
        identity(triple, cpu, features, obj, bytes);
        return *obj ? 0 : SN_NOMEM;
    }
    LLVMTargetMachineRef tm = snN_machine(t, err);
    if (tm) {
        compile(kernels, n, t, cpu, features, tm, triple, dump_dir, obj, bytes, err);
        LLVMDisposeTargetMachine(tm);
    }
    return err[0] ? SN_UNSUPPORTED : *obj ? 0 : SN_NOMEM;
}

/* kir.h has the type: EmitObjectFn. With n = 0 the result is the text that identifies this
   compiler and CPU. */
__attribute__((visibility("default")))
int snK_emit_object(const Kernel *const *kernels, int n, const Target *t, const char *dump_dir,
                    void **obj, size_t *bytes, char err[512]) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_llvm);
    err[0] = 0;
    *obj = NULL;
    *bytes = 0;
    if (t->gpu) return emit_ptx(kernels, n, t, dump_dir, obj, bytes, err);
    char *triple = LLVMGetDefaultTargetTriple(), *host_cpu = LLVMGetHostCPUName(),
         *host_features = LLVMGetHostCPUFeatures(), *msg = NULL;
    const char *cpu = t->cpu[0] ? t->cpu : host_cpu;
    const char *features = t->cpu[0] || t->features[0] ? t->features : host_features;
    LLVMTargetRef target;
    if (n == 0) {
        identity(triple, cpu, features, obj, bytes);
    } else if (LLVMGetTargetFromTriple(triple, &target, &msg)) {
        snprintf(err, 512, "LLVM: %s", msg);
        LLVMDisposeMessage(msg);
    } else {
        LLVMTargetMachineRef tm =
            LLVMCreateTargetMachine(target, triple, cpu, features, LLVMCodeGenLevelDefault,
                                    LLVMRelocPIC, LLVMCodeModelDefault);
        compile(kernels, n, t, cpu, features, tm, triple, dump_dir, obj, bytes, err);
        LLVMDisposeTargetMachine(tm);
    }
    LLVMDisposeMessage(triple);
    LLVMDisposeMessage(host_cpu);
    LLVMDisposeMessage(host_features);
    return err[0] ? SN_UNSUPPORTED : *obj ? 0 : SN_NOMEM;
}
