/* emit_opencl.c: kernel IR to OpenCL C 1.2, core features alone. In: kernels. Out: one source text
   with a __kernel per kernel, and their names.

   The walk of emit_llvm.c, in C: a value is a local variable vN, a vector of 2 to 16 lanes is
   OpenCL's own, one of 32 or 64 lanes is several variables of 16 (its parts). Most ops are one
   pattern of text (`$a + $b`); what C cannot say in a line is a small function in front of the
   kernels, printed when first used. Every value has the bits that kernel IR means: integers wrap
   (unsigned arithmetic), fma() stands where an fma is and nowhere else (FP_CONTRACT OFF), sums over
   lanes are the same tree.

   bf16 and f16 live in registers as ushort and are converted by integer operations. A bool is 0 or
   1, a vector of them an int vector of 0 or -1; in memory both are bytes.

   A kernel of one core runs one work-item per group, and a group is a worker: it has a slice of the
   scratch buffer to itself, takes tasks from its own part of the grid, half of what is left at a
   time, then from the parts of others. Who runs what changes no result, as on the host. Arguments:

     b0, o0, b1, o1, ...   buffer and byte offset of every parameter
     sys                   seed low, high, step, micro-step
     scratch               one slice per group
     next, at              counters, one per group from `at` on, all 0
     tasks                 size of the grid

   A kernel of a GPU (threads > 0) is what one work-item of a group does, and a group is a program. Pointers into
   shared memory are __local ones. Arguments:

     b0, o0, ..., sys      the same
     scratch               one slice per group of this launch
     first                 program of its first group: a grid may come in several launches */
#include "codegen/kir.h"
#include <math.h>

enum { WIDEST = 16, MAX_DEPTH = 200 };

typedef struct Emit {
    const Kernel *k;
    StrBuf *lib;                     /* helper functions of the whole source */
    StrBuf text;                     /* this kernel */
    int depth;
    bool branch[MAX_DEPTH], barrier[MAX_DEPTH];   /* by depth: opened by an if; a barrier stands in it */
} Emit;

/* -- Types ------------------------------------------------------------------------------------- */

static const struct { const char *reg, *mem; uint8_t bits; bool is_signed; } kinds[] = {
    [K_F32] = { "float", "float", 32 },     [K_BF16] = { "ushort", "ushort", 16 },
    [K_F16] = { "ushort", "ushort", 16 },   [K_I32] = { "int", "int", 32, true },
    [K_U32] = { "uint", "uint", 32 },       [K_BOOL] = { "int", "uchar", 1 },
    [K_I64] = { "long", "long", 64, true }, [K_U8] = { "uchar", "uchar", 8 },
};

static int width(KType t) { return t.lanes < WIDEST ? t.lanes : WIDEST; }      /* of one part */
static int parts(KType t) { return t.lanes > WIDEST ? t.lanes / WIDEST : 1; }
static bool is_half(int kind) { return kind == K_BF16 || kind == K_F16; }

static void put_vector(StrBuf *b, const char *element, int lanes) {
    snU_puts(b, element);
    if (lanes > 1) snU_putf(b, "%d", lanes);
}

/* The unsigned integer of a kind's size: what wraps. */
static const char *unsigned_name(int kind) {
    int bits = kinds[kind].bits;
    return bits == 64 ? "ulong" : bits == 16 ? "ushort" : bits == 8 ? "uchar" : "uint";
}

/* The signed one: a mask that selects between such lanes. */
static const char *mask_name(int kind) {
    int bits = kinds[kind].bits;
    return bits == 64 ? "long" : bits == 16 ? "short" : bits == 8 ? "char" : "int";
}

static void put_pointer(StrBuf *b, int mem, int space) {
    snU_putf(b, "%s %s *", space == K_SHARED ? "__local" : "__global", kinds[mem].mem);
}

/* Of what an instruction defines. */
static void put_type(StrBuf *b, const KIns *i) {
    if (i->type.kind == K_PTR) put_pointer(b, i->mem, i->space);
    else put_vector(b, kinds[i->type.kind].reg, width(i->type));
}

/* -- Constants and names ----------------------------------------------------------------------- */

static uint32_t float_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static float bits_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }

/* To nearest even; the same steps as the functions that are printed (narrow_half below). */
static uint16_t half_bits(int kind, float f) {
    uint32_t u = float_bits(f), a = u & 0x7fffffff, sign = u >> 16 & 0x8000;
    if (kind == K_BF16)
        return (uint16_t)(f != f ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000)
        return (uint16_t)(sign | (float_bits(bits_float(a) + 0.5f) - float_bits(0.5f)));
    return (uint16_t)(sign | (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13);
}

static void put_number(StrBuf *b, const KIns *i) {
    int kind = i->type.kind;
    long long v = i->imm;
    if (kind == K_F32 && isfinite(i->f)) snU_putf(b, signbit(i->f) ? "(%af)" : "%af", i->f);
    else if (kind == K_F32) snU_putf(b, "as_float(0x%xu)", float_bits((float)i->f));
    else if (is_half(kind)) snU_putf(b, "(ushort)0x%x", half_bits(kind, (float)i->f));
    else if (kind == K_BOOL) snU_puts(b, !v ? "0" : i->type.lanes > 1 ? "-1" : "1");
    else if (kind == K_I64 && v == INT64_MIN) snU_puts(b, "(-0x7fffffffffffffffL - 1)");
    else if (kind == K_I32 && v == INT32_MIN) snU_puts(b, "(-0x7fffffff - 1)");
    else if (kind == K_U8) snU_putf(b, "(uchar)%lld", v);
    else
        snU_putf(b, v < 0 ? "(%lld%s)" : "%lld%s", v,
                 kind == K_I64 ? "L" : kind == K_U32 ? "u" : "");
}

static void put_leaf(StrBuf *b, const KIns *i, int part) {
    KType t = i->type;
    switch (i->op) {
    case K_const:
        if (t.lanes > 1) snU_puts(b, "(("), put_type(b, i), snU_puts(b, ")(");
        put_number(b, i);
        if (t.lanes > 1) snU_puts(b, "))");
        break;
    case K_lane:
        if (t.lanes == 1) { snU_puts(b, "0"); break; }
        snU_puts(b, "(("), put_type(b, i), snU_puts(b, ")(");
        for (int n = 0; n < width(t); n++) snU_putf(b, n ? ", %d" : "%d", part * WIDEST + n);
        snU_puts(b, "))");
        break;
    case K_param: snU_putf(b, "p%lld", (long long)i->imm); break;
    case K_scratch: case K_shared:
        snU_puts(b, "((");
        put_pointer(b, i->mem, i->space);
        snU_putf(b, ")(%s + %lld))", i->op == K_scratch ? "scratch" : "shared", (long long)i->imm);
        break;
    case K_block: snU_puts(b, "block"); break;
    case K_thread: snU_puts(b, "thread"); break;
    case K_task: snU_puts(b, i->imm ? "last" : "first"); break;
    case K_sysarg:
        if (i->imm == 4) snU_puts(b, "again");
        else snU_putf(b, "sys.s%lld", (long long)i->imm);
        break;
    default: SN_ASSERT(0, "OpenCL C has no %s", snK_op_name(i->op));
    }
}

/* A value where it is used: part `part` of it. */
static void put_value(const Emit *e, StrBuf *b, KVal v, int part) {
    const KIns *i = &e->k->ins.v[v];
    if (i->op >= K_const && i->op <= K_lane) put_leaf(b, i, part);
    else snU_putf(b, parts(i->type) > 1 ? "v%u_%d" : "v%u", v, part);
}

static void put_lane(const Emit *e, StrBuf *b, KVal v, int lane) {
    put_value(e, b, v, lane / WIDEST);
    if (e->k->ins.v[v].type.lanes > 1) snU_putf(b, ".s%x", lane % WIDEST);
}

/* -- Patterns ---------------------------------------------------------------------------------- */

/* $a $b $c $d  operands (this part)         $t  type of the result      $n  its lanes, "" for one
   $s $u        type of operand a, the unsigned one of its size
   $m           mask type of the result
   $r(...)      ... as the result's type: same bits in a vector, a conversion in a scalar
   $p           elements in front of this part, as " + 16" */
static void put_pattern(const Emit *e, StrBuf *b, const KIns *i, int part, const char *p) {
    KType t = i->type, from = snK_type(e->k, i->a[0]);
    for (; *p; p++) {
        if (*p != '$') { snU_put(b, p, 1); continue; }
        switch (*++p) {
        case 't': put_type(b, i); break;
        case 'n': if (t.lanes > 1) snU_putf(b, "%d", width(t)); break;
        case 'u': put_vector(b, unsigned_name(from.kind), width(from)); break;
        case 's': put_vector(b, kinds[from.kind].reg, width(from)); break;
        case 'm': put_vector(b, mask_name(t.kind), width(t)); break;
        case 'p': if (part) snU_putf(b, " + %d", part * WIDEST); break;
        case 'r':
            snU_puts(b, t.lanes > 1 ? "as_" : "(");
            put_type(b, i);
            if (t.lanes == 1) snU_puts(b, ")");
            break;
        default: {
            KVal v = i->a[*p - 'a'];
            put_value(e, b, v, parts(snK_type(e->k, v)) > 1 ? part : 0);
        }
        }
    }
}

static void indent(Emit *e) { for (int n = 0; n < e->depth; n++) snU_puts(&e->text, "    "); }

/* -- Helper functions -------------------------------------------------------------------------- */

/* The first use of a helper prints it in front. Its name: sn_WHAT_KINDxLANES. */
static bool is_new(Emit *e, const char *name) {
    char call[64];
    snprintf(call, sizeof call, " %s(", name);
    return !e->lib->s || !strstr(e->lib->s, call);
}

static void helper_name(char out[48], const char *what, int kind, int lanes) {
    snprintf(out, 48, lanes > 1 ? "sn_%s_%sx%d" : "sn_%s_%s", what, snK_kind_name(kind), lanes);
}

/* Text of a helper. @T its vector type, @E the element in memory, @U the unsigned type, @M the mask
   (int lanes), @S the mask of T's own size, @W the conversion from one to the other, @F floats, @I
   uints, @N number of lanes, @L suffix of the name; @low ... the range of an integer in floats. */
static void put_helper(StrBuf *b, const char *p, int kind, int lanes) {
    static const struct { const char *low, *high, *least, *most; } range[] = {
        [K_I32] = { "-0x1.000002p+31f", "0x1p+31f", "-0x7fffffff - 1", "0x7fffffff" },
        [K_U32] = { "-1.0f", "0x1p+32f", "0u", "0xffffffffu" },
        [K_I64] = { "-0x1.000002p+63f", "0x1p+63f", "-0x7fffffffffffffffL - 1",
                    "0x7fffffffffffffffL" },
        [K_U8] = { "-1.0f", "256.0f", "0", "255" },
    };
    for (; *p; p++) {
        if (*p != '@') { snU_put(b, p, 1); continue; }
        switch (*++p) {
        case 'T': put_vector(b, kinds[kind].reg, lanes); break;
        case 'E': snU_puts(b, kinds[kind].mem); break;
        case 'U': put_vector(b, unsigned_name(kind), lanes); break;
        case 'M': put_vector(b, "int", lanes); break;
        case 'S': put_vector(b, mask_name(kind), lanes); break;
        case 'W':
            if (lanes > 1 && kinds[kind].bits != 32)
                snU_puts(b, "convert_"), put_vector(b, mask_name(kind), lanes);
            break;
        case 'F': put_vector(b, "float", lanes); break;
        case 'I': put_vector(b, "uint", lanes); break;
        case 'N': snU_putf(b, "%d", lanes); break;
        case 'L':
            snU_puts(b, snK_kind_name(kind));
            if (lanes > 1) snU_putf(b, "x%d", lanes);
            break;
        case 'h': snU_puts(b, range[kind].high), p += 3; break;
        case 'm': snU_puts(b, range[kind].most), p += 3; break;
        default: /* low, least */
            snU_puts(b, p[1] == 'o' ? range[kind].low : range[kind].least);
            p += p[1] == 'o' ? 2 : 4;
        }
    }
}

/* Integer division never traps: x / 0 = x % 0 = 0, and the least number / -1 wraps. */
static const char DIVIDE[] =
    "@T sn_div_@L(@T a, @T b)\n{\n"
    "    @T one = b == (@T)(0) ? (@T)(1) : b;\n"
    "    return b == (@T)(0) ? (@T)(0) : (@T)(a / one);\n}\n\n";
static const char DIVIDE_SIGNED[] =
    "@T sn_div_@L(@T a, @T b)\n{\n"
    "    @T q = a / (((b == (@T)(0)) | (b == (@T)(-1))) ? (@T)(1) : b);\n"
    "    q = b == (@T)(-1) ? as_@T((@U)(0) - as_@U(a)) : q;\n"
    "    return b == (@T)(0) ? (@T)(0) : q;\n}\n\n";
static const char REMAINDER[] =
    "@T sn_rem_@L(@T a, @T b)\n{\n"
    "    return a % (b == (@T)(0) ? (@T)(1) : b);\n}\n\n";
static const char REMAINDER_SIGNED[] =
    "@T sn_rem_@L(@T a, @T b)\n{\n"
    "    return a % (((b == (@T)(0)) | (b == (@T)(-1))) ? (@T)(1) : b);\n}\n\n";

/* Half formats: the bits of kernel IR, without half arithmetic on the device. A small f16 is a
   count of 2^-24; to make one, adding 0.5 rounds to that unit. */
static const char WIDEN_BF16[] =
    "@F sn_widen_@L(@T x)\n{\n"
    "    return as_@F(convert_@I(x) << 16);\n}\n\n";
static const char NARROW_BF16[] =
    "@T sn_narrow_@L(@F x)\n{\n"
    "    @I u = as_@I(x), up = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;\n"
    "    return convert_@T(x != x ? (u >> 16) | 0x40u : up);\n}\n\n";
static const char WIDEN_F16[] =
    "@F sn_widen_@L(@T x)\n{\n"
    "    @I h = convert_@I(x), a = h & 0x7fffu, s = (h & 0x8000u) << 16;\n"
    "    @I big = (a << 13) + (a >= (@I)(0x7c00u) ? (@I)(0x70000000u) : (@I)(0x38000000u));\n"
    "    @I small = as_@I(convert_@F(a) * 0x1p-24f);\n"
    "    return as_@F(s | (a < (@I)(0x400u) ? small : big));\n}\n\n";
static const char NARROW_F16[] =
    "@T sn_narrow_@L(@F x)\n{\n"
    "    @I u = as_@I(x), a = u & 0x7fffffffu;\n"
    "    @I small = as_@I(as_@F(a) + 0.5f) - 0x3f000000u;\n"
    "    @I big = (a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13;\n"
    "    big = a < (@I)(0x38800000u) ? small : big;\n"
    "    big = a >= (@I)(0x477ff000u) ? (@I)(0x7c00u) : big;\n"
    "    big = x != x ? 0x7e00u | (a >> 13 & 0x3ffu) : big;\n"
    "    return convert_@T(big | (u >> 16 & 0x8000u));\n}\n\n";

/* Two exact powers of 2, so that only the last product rounds. */
static const char LDEXP[] =
    "@T sn_ldexp_@L(@T a, @T b)\n{\n"
    "    @M n = as_@M(b + 12582912.0f) - 0x4b400000, half_n = n >> 1;\n"
    "    return a * as_@T((half_n + 127) << 23) * as_@T((n - half_n + 127) << 23);\n}\n\n";

/* Truncates and saturates; NaN gives 0. What a plain conversion is given lies inside. */
static const char TO_INT[] =
    "@T sn_toint_@L(@F x)\n{\n"
    "    @M in = (x > (@F)(@low)) & (x < (@F)(@high));\n"
    "    @T r = convert_@T(in ? x : (@F)(0));\n"
    "    @T end = @W(x >= (@F)(@high)) ? (@T)(@most) : (@T)(@least);\n"
    "    return @W(in | (x != x)) ? r : end;\n}\n\n";

static const char *use_helper(Emit *e, const char *what, int kind, int lanes, const char *text) {
    static _Thread_local char name[48];
    helper_name(name, what, kind, lanes);
    if (is_new(e, name)) put_helper(e->lib, text, kind, lanes);
    return name;
}

/* Loads and stores under a mask: whole where every lane is on, else lane by lane. */
static const char *use_masked(Emit *e, bool store, int space, int kind, int lanes) {
    char name[48], what[32];
    StrBuf text = {0};
    const char *where = space == K_SHARED ? "local" : "global";
    snprintf(what, sizeof what, "%s%s", store ? "store" : "load", space == K_SHARED ? "_local" : "");
    helper_name(name, what, kind, lanes);
    if (is_new(e, name)) {
        snU_putf(&text, store ? "void sn_%s_@L(__%s @E *p, @T x, @M on)\n{\n" : "@T sn_%s_@L(__%s @E *p, @M on)\n{\n", what, where);
        snU_puts(&text, store ? "    if (all(on)) { vstore@N(x, 0, p); return; }\n"
                              : "    if (all(on)) return vload@N(0, p);\n"
                                "    @T x = (@T)(0);\n");
        for (int n = 0; n < lanes; n++)
            snU_putf(&text, store ? "    if (on.s%x) p[%d] = x.s%x;\n" : "    if (on.s%x) x.s%x = p[%d];\n",
                     n, n, n);
        snU_puts(&text, store ? "}\n\n" : "    return x;\n}\n\n");
    }
    const char *kept = use_helper(e, what, kind, lanes, text.s ? text.s : "");
    snU_free_buf(&text);
    return kept;
}

/* -- Arithmetic -------------------------------------------------------------------------------- */

static const char *float_pattern(int op) {
    switch (op) {
    case K_add: return "$a + $b";
    case K_sub: return "$a - $b";
    case K_mul: return "$a * $b";
    case K_div: return "$a / $b";
    case K_fma: return "fma($a, $b, $c)";
    case K_neg: return "-$a";
    case K_abs: return "fabs($a)";
    case K_min: return "$a < $b ? $a : $b";
    case K_max: return "$a > $b ? $a : $b";
    case K_sqrt: return "sqrt($a)";
    case K_floor: return "floor($a)";
    case K_ceil: return "ceil($a)";
    case K_rint: return "rint($a)";
    default: return NULL;
    }
}

static const char *bool_pattern(int op, int lanes) {
    switch (op) {
    case K_and: case K_min: return "$a & $b";
    case K_or: case K_max: return "$a | $b";
    case K_xor: return "$a ^ $b";
    case K_not: return lanes > 1 ? "~$a" : "!$a";
    default: return NULL;
    }
}

/* Comparisons of integers are masks of their own width: the ternary wants just that. */
static const char *int_pattern(int op, int kind) {
    bool s = kinds[kind].is_signed;
    switch (op) {
    case K_add: return s ? "$r(as_$u($a) + as_$u($b))" : "$r($a + $b)";
    case K_sub: return s ? "$r(as_$u($a) - as_$u($b))" : "$r($a - $b)";
    case K_mul: return s ? "$r(as_$u($a) * as_$u($b))" : "$r($a * $b)";
    case K_neg: return s ? "$r(-as_$u($a))" : "$r(-$a)";
    case K_abs: return s ? "$a < ($t)(0) ? $r(-as_$u($a)) : $a" : "$a";
    case K_min: return "$a < $b ? $a : $b";
    case K_max: return "$a > $b ? $a : $b";
    case K_and: return "$a & $b";
    case K_or: return "$a | $b";
    case K_xor: return "$a ^ $b";
    case K_not: return "$r(~$a)";
    case K_shl: return s ? "$r(as_$u($a) << as_$u($b & ($t)(BITS)))" : "$r($a << ($b & ($t)(BITS)))";
    case K_shr: return "$r($a >> ($b & ($t)(BITS)))";
    default: return NULL;
    }
}

static void put_int_op(Emit *e, const KIns *i, int part) {
    KType t = i->type;
    StrBuf *b = &e->text;
    bool s = kinds[t.kind].is_signed;
    if (i->op == K_div || i->op == K_rem) {
        bool div = i->op == K_div;
        const char *text = div ? (s ? DIVIDE_SIGNED : DIVIDE) : s ? REMAINDER_SIGNED : REMAINDER;
        snU_puts(b, use_helper(e, div ? "div" : "rem", t.kind, width(t), text));
        put_pattern(e, b, i, part, "($a, $b)");
        return;
    }
    if (i->op == K_mulhi) {
        put_pattern(e, b, i, part, "convert_uint$n(convert_ulong$n($a) * convert_ulong$n($b) >> 32)");
        return;
    }
    const char *p = int_pattern(i->op, t.kind), *bits = p ? strstr(p, "BITS") : NULL;
    SN_ASSERT(p, "no integer op %s", snK_op_name(i->op));
    if (!bits) { put_pattern(e, b, i, part, p); return; }
    char shift[96];
    snprintf(shift, sizeof shift, "%.*s%d%s", (int)(bits - p), p, kinds[t.kind].bits - 1, bits + 4);
    put_pattern(e, b, i, part, shift);
}

static void put_arith(Emit *e, const KIns *i, int part) {
    int kind = i->type.kind;
    if (kind != K_F32 && kind != K_BOOL) { put_int_op(e, i, part); return; }
    if (i->op == K_ldexp) {
        snU_puts(&e->text, use_helper(e, "ldexp", kind, width(i->type), LDEXP));
        put_pattern(e, &e->text, i, part, "($a, $b)");
        return;
    }
    const char *p = kind == K_F32 ? float_pattern(i->op) : bool_pattern(i->op, i->type.lanes);
    SN_ASSERT(p, "no op %s on %s", snK_op_name(i->op), snK_kind_name(kind));
    put_pattern(e, &e->text, i, part, p);
}

/* Lanes of 0 and -1 order like false and true when they are unsigned. */
static void put_compare(Emit *e, const KIns *i, int part) {
    static const char *const sign[] = { "<", "<=", ">", ">=", "==", "!=" };
    KType from = snK_type(e->k, i->a[0]);
    char p[80];
    const char *op = sign[i->op - K_lt];
    if (from.kind == K_BOOL) snprintf(p, sizeof p, "as_$u($a) %s as_$u($b)", op);
    else if (from.lanes > 1 && kinds[from.kind].bits != 32)
        snprintf(p, sizeof p, "convert_int$n($a %s $b)", op);
    else snprintf(p, sizeof p, "$a %s $b", op);
    put_pattern(e, &e->text, i, part, p);
}

static void put_select(Emit *e, const KIns *i, int part) {
    bool lanes = snK_type(e->k, i->a[0]).lanes > 1;
    bool wide = lanes && i->type.kind != K_BOOL && kinds[i->type.kind].bits != 32;
    put_pattern(e, &e->text, i, part, wide ? "convert_$m($a) ? $b : $c" : "$a ? $b : $c");
}

/* -- Conversions ------------------------------------------------------------------------------- */

static const char *cast_pattern(KType from, KType t) {
    bool v = t.lanes > 1;
    if (t.kind == K_BOOL) {
        if (!v) return "$a != 0";
        return kinds[from.kind].bits == 32 ? "$a != 0" : "convert_int$n($a != ($s)(0))";
    }
    if (from.kind == K_BOOL) return v ? "convert_$t($a & 1)" : "($t)$a";
    return v ? "convert_$t($a)" : "($t)$a";
}

static void put_cast(Emit *e, const KIns *i, int part) {
    KType from = snK_type(e->k, i->a[0]), t = i->type;
    StrBuf *b = &e->text;
    int w = width(t), open = 0;
    if (from.kind == t.kind) { put_pattern(e, b, i, part, "$a"); return; }
    if (is_half(t.kind)) {
        bool bf = t.kind == K_BF16;
        snU_putf(b, "%s(", use_helper(e, "narrow", t.kind, w, bf ? NARROW_BF16 : NARROW_F16)), open++;
        t.kind = K_F32;
    }
    bool to_int = t.kind != K_F32 && t.kind != K_BOOL && (from.kind == K_F32 || is_half(from.kind));
    if (to_int) snU_putf(b, "%s(", use_helper(e, "toint", t.kind, w, TO_INT)), open++;
    KIns inner = *i;
    inner.type = t;
    if (is_half(from.kind)) {
        bool bf = from.kind == K_BF16;
        if (t.kind == K_BOOL) snU_puts(b, "(");
        snU_putf(b, "%s(", use_helper(e, "widen", from.kind, w, bf ? WIDEN_BF16 : WIDEN_F16));
        put_pattern(e, b, i, part, "$a)");
        if (t.kind == K_BOOL) snU_puts(b, " != 0.0f)");
    } else if (to_int || from.kind == t.kind) put_pattern(e, b, i, part, "$a");
    else put_pattern(e, b, &inner, part, cast_pattern(from, t));
    while (open--) snU_puts(b, ")");
}

/* Lanes of another size: parts join, or split, in memory order. */
static void put_bitcast(Emit *e, const KIns *i, int part) {
    KType from = snK_type(e->k, i->a[0]), t = i->type;
    StrBuf *b = &e->text;
    int have = parts(from), want = parts(t);
    if (have == want) {
        bool same = !strcmp(kinds[from.kind].reg, kinds[t.kind].reg);
        put_pattern(e, b, i, part, same ? "$a" : "as_$t($a)");
    } else if (have < want) {
        int each = width(from) * have / want, first = part % (want / have) * each;
        put_pattern(e, b, i, part, "as_$t(");
        put_value(e, b, i->a[0], part / (want / have));
        if (width(from) > 1) snU_puts(b, ".s");
        for (int n = 0; n < each; n++) snU_putf(b, "%x", first + n);
        snU_puts(b, ")");
    } else {
        put_pattern(e, b, i, part, "($t)(");
        for (int n = 0; n < have / want; n++) {
            snU_puts(b, n ? ", as_" : "as_");
            put_vector(b, kinds[t.kind].reg, width(t) * want / have);
            snU_puts(b, "(");
            put_value(e, b, i->a[0], part * (have / want) + n);
            snU_puts(b, ")");
        }
        snU_puts(b, ")");
    }
}

/* -- Vectors ----------------------------------------------------------------------------------- */

/* Lanes at..at+n-1 of the shuffle come from one variable: they are one swizzle. */
static bool is_run(const uint8_t *lane, int n, int from_lanes) {
    int each = from_lanes < WIDEST ? from_lanes : WIDEST;
    for (int k = 1; k < n; k++) if (lane[k] / each != lane[0] / each) return false;
    return true;
}

static void put_run(Emit *e, const KIns *i, const uint8_t *lane, int n) {
    int lanes = snK_type(e->k, i->a[0]).lanes, each = lanes < WIDEST ? lanes : WIDEST;
    KVal from = lane[0] < lanes ? i->a[0] : i->a[1];
    put_value(e, &e->text, from, lane[0] % lanes / each);
    if (lanes == 1) return;
    snU_puts(&e->text, ".s");
    for (int k = 0; k < n; k++) snU_putf(&e->text, "%x", lane[k] % each);
}

static void put_shuffle(Emit *e, const KIns *i, int part) {
    const uint8_t *lane = e->k->shuffles.v[i->imm].lane + part * WIDEST;
    int w = width(i->type), lanes = snK_type(e->k, i->a[0]).lanes;
    if (lanes > 1 && is_run(lane, w, lanes)) { put_run(e, i, lane, w); return; }
    if (w > 1) put_pattern(e, &e->text, i, part, "($t)(");
    for (int at = 0, n; at < w; at += n) {
        n = lanes == 1 ? 1 : w / 2 > 0 ? w / 2 : 1;
        while (n > 1 && (at % n || !is_run(lane + at, n, lanes))) n /= 2;
        if (at) snU_puts(&e->text, ", ");
        put_run(e, i, lane + at, n);
    }
    if (w > 1) snU_puts(&e->text, ")");
}

static const char *across_pattern(int op, int kind) {
    if (op == K_hsum) return kinds[kind].is_signed ? "as_%s(as_%s(%s) + as_%s(%s))" : "%s + %s";
    if (kind == K_BOOL) return op == K_hmax ? "%s | %s" : "%s & %s";
    return op == K_hmax ? "%s > %s ? %s : %s" : "%s < %s ? %s : %s";
}

/* x combined with y, both texts: one step of the tree. */
static void put_step(StrBuf *b, int op, int kind, int lanes, const char *x, const char *y) {
    char t[16], u[16];
    const char *p = across_pattern(op, kind);
    snprintf(t, sizeof t, lanes > 1 ? "%s%d" : "%s", kinds[kind].reg, lanes);
    snprintf(u, sizeof u, lanes > 1 ? "%s%d" : "%s", unsigned_name(kind), lanes);
    if (op == K_hsum && kinds[kind].is_signed) snU_putf(b, p, t, u, x, u, y);
    else if (op == K_hsum || kind == K_BOOL) snU_putf(b, p, x, y);
    else snU_putf(b, p, x, y, x, y);
}

/* Halves combined until one lane is left; a scalar bool is 0 or 1. */
static const char *use_across(Emit *e, const KIns *i, KType from) {
    static const char *const letter[] = { "x", "h", "q", "o", "s" };
    int w = width(from), n = 0;
    StrBuf text = {0};
    snU_putf(&text, "%s sn_%s_@L(@T x)\n{\n", kinds[from.kind].reg, snK_op_name(i->op));
    for (int half = w / 2; half >= 1; half /= 2, n++) {
        char lo[8], hi[8];
        snprintf(lo, sizeof lo, "%s.lo", letter[n]);
        snprintf(hi, sizeof hi, "%s.hi", letter[n]);
        snU_puts(&text, "    ");
        put_vector(&text, kinds[from.kind].reg, half);
        snU_putf(&text, " %s = ", letter[n + 1]);
        put_step(&text, i->op, from.kind, half, lo, hi);
        snU_puts(&text, ";\n");
    }
    snU_putf(&text, "    return %s%s;\n}\n\n", letter[n], from.kind == K_BOOL ? " & 1" : "");
    const char *name = use_helper(e, snK_op_name(i->op), from.kind, w, text.s);
    snU_free_buf(&text);
    return name;
}

/* Parts are combined first: they are the upper levels of the tree. */
static void put_across(Emit *e, const KIns *i) {
    KType from = snK_type(e->k, i->a[0]);
    if (from.lanes == 1) { put_pattern(e, &e->text, i, 0, "$a"); return; }
    StrBuf part[4] = {0};
    int n = parts(from);
    for (int p = 0; p < n; p++) put_value(e, &part[p], i->a[0], p);
    for (n /= 2; n >= 1; n /= 2)
        for (int p = 0; p < n; p++) {
            StrBuf sum = {0};
            snU_puts(&sum, "(");
            put_step(&sum, i->op, from.kind, width(from), part[p].s, part[p + n].s);
            snU_puts(&sum, ")");
            snU_free_buf(&part[p]);
            part[p] = sum;
        }
    snU_putf(&e->text, "%s(%s)", use_across(e, i, from), part[0].s);
    for (int p = 0; p < 4; p++) snU_free_buf(&part[p]);
}

/* -- Memory ------------------------------------------------------------------------------------ */

static int space_of(const Emit *e, KVal pointer) { return e->k->ins.v[pointer].space; }

/* A bool in memory is a byte: `byte` helpers and vloads, compared with 0. */
static void put_load(Emit *e, const KIns *i, int part) {
    KType t = i->type;
    StrBuf *b = &e->text;
    bool is_bool = t.kind == K_BOOL;
    if (t.lanes == 1) {
        put_pattern(e, b, i, part, i->a[2] ? "$c ? $a[$b] : ($t)0" : "$a[$b]");
        if (is_bool && !i->a[2]) snU_puts(b, " != 0");
        return;
    }
    if (is_bool) put_pattern(e, b, i, part, "convert_$t(");
    if (i->a[2]) {
        snU_puts(b, use_masked(e, false, space_of(e, i->a[0]), is_bool ? K_U8 : t.kind, width(t)));
        put_pattern(e, b, i, part, "($a + $b$p, $c)");
    } else put_pattern(e, b, i, part, "vload$n(0, $a + $b$p)");
    if (is_bool) put_pattern(e, b, i, part, " != (uchar$n)(0))");
}

static void put_store(Emit *e, const KIns *st) {
    KIns with = *st, *i = &with;             /* patterns speak of the stored type */
    KType t = i->type = snK_type(e->k, i->a[2]);
    StrBuf *b = &e->text;
    const char *value = t.kind == K_BOOL && t.lanes > 1 ? "convert_uchar$n($c & 1)" : "$c";
    for (int p = 0; p < parts(t); p++) {
        indent(e);
        if (t.lanes == 1) {
            put_pattern(e, b, i, p, i->a[3] ? "if ($d) $a[$b] = $c;\n" : "$a[$b] = $c;\n");
        } else if (i->a[3]) {
            snU_puts(b, use_masked(e, true, space_of(e, i->a[0]), t.kind == K_BOOL ? K_U8 : t.kind, width(t)));
            put_pattern(e, b, i, p, "($a + $b$p, ");
            put_pattern(e, b, i, p, value);
            put_pattern(e, b, i, p, ", $d);\n");
        } else {
            put_pattern(e, b, i, p, "vstore$n(");
            put_pattern(e, b, i, p, value);
            put_pattern(e, b, i, p, ", 0, $a + $b$p);\n");
        }
    }
}

static void put_element(Emit *e, const KIns *i, int lane) {
    put_value(e, &e->text, i->a[0], 0);
    snU_puts(&e->text, "[");
    put_lane(e, &e->text, i->a[1], lane);
    snU_puts(&e->text, "]");
}

static void put_gather(Emit *e, const KIns *i, int part) {
    KType t = i->type;
    StrBuf *b = &e->text;
    bool is_bool = t.kind == K_BOOL;
    const char *off = t.kind == K_F32 ? "0.0f" : "0";
    if (t.lanes > 1) put_pattern(e, b, i, part, "($t)(");
    for (int n = 0; n < width(t); n++) {
        int lane = part * WIDEST + n;
        if (n) snU_puts(b, ", ");
        if (i->a[2]) put_lane(e, b, i->a[2], lane), snU_puts(b, " ? ");
        if (is_bool) snU_puts(b, t.lanes > 1 ? "-(" : "(");
        put_element(e, i, lane);
        if (is_bool) snU_puts(b, " != 0)");
        if (i->a[2]) snU_putf(b, " : %s", off);
    }
    if (t.lanes > 1) snU_puts(b, ")");
}

static void put_scatter(Emit *e, const KIns *i) {
    KType t = snK_type(e->k, i->a[2]);
    StrBuf *b = &e->text;
    for (int n = 0; n < t.lanes; n++) {
        indent(e);
        if (i->a[3]) snU_puts(b, "if ("), put_lane(e, b, i->a[3], n), snU_puts(b, ") ");
        put_element(e, i, n);
        snU_puts(b, " = ");
        put_lane(e, b, i->a[2], n);
        snU_puts(b, t.kind == K_BOOL && t.lanes > 1 ? " & 1;\n" : ";\n");
    }
}

/* -- The walk ---------------------------------------------------------------------------------- */

static void put_expression(Emit *e, const KIns *i, int part) {
    StrBuf *b = &e->text;
    if (i->op >= K_lt && i->op <= K_ne) { put_compare(e, i, part); return; }
    if (i->op >= K_add && i->op <= K_mulhi) { put_arith(e, i, part); return; }
    switch (i->op) {
    case K_select: put_select(e, i, part); break;
    case K_cast: put_cast(e, i, part); break;
    case K_bitcast: put_bitcast(e, i, part); break;
    case K_splat: {
        bool mask = i->type.lanes > 1 && i->type.kind == K_BOOL;
        put_pattern(e, b, i, part, mask ? "($t)(-$a)" : "($t)($a)");
        break;
    }
    case K_extract:
        if (i->type.kind == K_BOOL && snK_type(e->k, i->a[0]).lanes > 1) snU_puts(b, "-");
        put_lane(e, b, i->a[0], (int)i->imm);
        break;
    case K_shuffle: put_shuffle(e, i, part); break;
    case K_hsum: case K_hmax: case K_hmin: put_across(e, i); break;
    case K_load: put_load(e, i, part); break;
    case K_gather: put_gather(e, i, part); break;
    case K_offset: put_pattern(e, b, i, part, "$a + $b"); break;
    case K_get: case K_var: put_pattern(e, b, i, part, "$a"); break;
    default: SN_ASSERT(0, "OpenCL C has no %s", snK_op_name(i->op));
    }
}

static void put_definition(Emit *e, KVal x) {
    const KIns *i = &e->k->ins.v[x];
    for (int p = 0; p < parts(i->type); p++) {
        indent(e);
        put_type(&e->text, i);
        snU_puts(&e->text, i->type.kind == K_PTR ? "" : " ");
        put_value(e, &e->text, x, p);
        snU_puts(&e->text, " = ");
        put_expression(e, i, p);
        snU_puts(&e->text, ";\n");
    }
}

static void open_block(Emit *e, bool branch) {
    e->depth++;
    SN_ASSERT(e->depth < MAX_DEPTH, "a kernel is nested %d deep", e->depth);
    e->branch[e->depth] = branch;
    e->barrier[e->depth] = false;
}

static void put_barrier(Emit *e) {
    indent(e);
    snU_puts(&e->text, "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);\n");
    for (int d = e->depth; d > 0; d--) e->barrier[d] = true;
}

/* A branch with a barrier ends in one, and one follows it: else PoCL 3.1 mixes up the work-items' variables behind it. True: it does. */
static bool close_block(Emit *e) {
    bool follows = e->branch[e->depth] && e->barrier[e->depth];
    if (follows) put_barrier(e);
    e->depth--;
    indent(e);
    return follows;
}

static void open_for(Emit *e, KVal x) {
    const KIns *i = &e->k->ins.v[x];
    if (i->imm) snU_putf(&e->text, "#pragma unroll %lld\n", (long long)i->imm);
    indent(e);
    put_pattern(e, &e->text, i, 0, "for ($t ");
    snU_putf(&e->text, "v%u = ", x);
    put_pattern(e, &e->text, i, 0, "$a; ");
    snU_putf(&e->text, "v%u < ", x);
    put_pattern(e, &e->text, i, 0, "$b; ");
    snU_putf(&e->text, "v%u += ", x);
    put_pattern(e, &e->text, i, 0, "$c) {\n");
    open_block(e, false);
}

static void put_set(Emit *e, const KIns *i) {
    for (int p = 0; p < parts(snK_type(e->k, i->a[0])); p++) {
        indent(e);
        put_pattern(e, &e->text, i, p, "$a = $b;\n");
    }
}

static void put_instruction(Emit *e, KVal x) {
    const KIns *i = &e->k->ins.v[x];
    switch (i->op) {
    case K_store: put_store(e, i); break;
    case K_scatter: put_scatter(e, i); break;
    case K_set: put_set(e, i); break;
    case K_prefetch:
        indent(e);
        put_pattern(e, &e->text, i, 0, "prefetch($a + $b, 1);\n");
        break;
    case K_barrier: put_barrier(e); break;
    case K_for: open_for(e, x); break;
    case K_if:
        indent(e);
        put_pattern(e, &e->text, i, 0, "if ($a) {\n");
        open_block(e, true);
        break;
    case K_else: {
        bool follows = close_block(e);
        snU_puts(&e->text, "} else {\n");
        open_block(e, true);
        e->barrier[e->depth] = follows;
        break;
    }
    case K_end: {
        bool follows = close_block(e);
        snU_puts(&e->text, "}\n");
        if (follows) put_barrier(e);
        break;
    }
    default: put_definition(e, x);
    }
}

/* -- Kernels ----------------------------------------------------------------------------------- */

static const char CLAIM[] =
    "/* The next tasks of part `of` of the grid, half of what is left; 0 = none. A counter counts\n"
    "   units of tasks, so that 32 bits are enough for any grid. */\n"
    "int sn_claim(volatile __global int *next, long tasks, long groups, long of, long *first, long *last)\n"
    "{\n"
    "    long a = tasks * of / groups, n = tasks * (of + 1) / groups - a, unit = 1 + (n >> 30);\n"
    "    int units = (int)((n + unit - 1) / unit), c = atomic_add(&next[of], 0);\n"
    "    while (c < units) {\n"
    "        int take = (units - c + 1) / 2, seen = atomic_cmpxchg(&next[of], c, c + take);\n"
    "        if (seen == c) {\n"
    "            *first = a + c * unit;\n"
    "            *last = a + min(n, (c + take) * unit);\n"
    "            return 1;\n"
    "        }\n"
    "        c = seen;\n"
    "    }\n"
    "    return 0;\n"
    "}\n\n";

/* On a core: a function that runs tasks, and the kernel that takes them. */
static void put_head(StrBuf *b, const Kernel *k, const char *name) {
    snU_putf(b, "void %s_tasks(", name);
    for (uint32_t p = 0; p < k->params.n; p++)
        snU_putf(b, "__global %s *p%u, ", kinds[k->params.v[p].mem].mem, p);
    snU_puts(b, "uint4 sys, uint again, long first, long last,\n    __global uchar *restrict scratch)\n{\n");
}

static void put_signature(StrBuf *b, const Kernel *k, const char *name) {
    snU_putf(b, "__kernel __attribute__((reqd_work_group_size(%d, 1, 1)))\nvoid %s(", k->threads ? k->threads : 1, name);
    for (uint32_t p = 0; p < k->params.n; p++) snU_putf(b, "__global uchar *b%u, ulong o%u, ", p, p);
    snU_puts(b, "uint4 sys, __global uchar *scratch,\n    ");
}

static long long slice(const Kernel *k) { return (long long)(k->scratch + 63) / 64 * 64; }

static void put_kernel(StrBuf *b, const Kernel *k, const char *name) {
    put_signature(b, k, name);
    snU_puts(b, "volatile __global int *next, int at, long tasks)\n{\n"
                "    uint again = 0;\n"
                "    long first, last, groups = get_num_groups(0), me = get_group_id(0);\n");
    snU_putf(b, "    scratch += me * %lldL;\n", slice(k));
    snU_putf(b, "    for (long k = 0; k < groups; k++)\n"
                "        while (sn_claim(next + at, tasks, groups, (me + k) %% groups, &first, &last)) {\n"
                "            %s_tasks(", name);
    for (uint32_t p = 0; p < k->params.n; p++)
        snU_putf(b, "(__global %s *)(b%u + o%u), ", kinds[k->params.v[p].mem].mem, p, p);
    snU_puts(b, "sys, again, first, last, scratch);\n            again = 1;\n        }\n}\n\n");
}

/* On a GPU: the kernel itself. */
static void put_gpu_head(StrBuf *b, const Kernel *k, const char *name) {
    put_signature(b, k, name);
    snU_puts(b, "long first)\n{\n");
    if (k->shared) snU_putf(b, "    __local uchar shared[%lld] __attribute__((aligned(128)));\n", (long long)k->shared);
    for (uint32_t p = 0; p < k->params.n; p++) {
        const char *mem = kinds[k->params.v[p].mem].mem;
        snU_putf(b, "    __global %s *p%u = (__global %s *)(b%u + o%u);\n", mem, p, mem, p, p);
    }
    snU_puts(b, "    const uint again = 0;\n    const long block = first + (long)get_group_id(0), thread = get_local_id(0);\n");
    if (k->scratch) snU_putf(b, "    scratch += get_group_id(0) * %lldL;\n", slice(k));
}

static void put_body(Emit *e) {
    for (KVal x = 1; x < e->k->ins.n; x++)
        if (e->k->ins.v[x].op > K_lane) put_instruction(e, x);
    snU_puts(&e->text, "}\n\n");
}

void snK_emit_opencl(StrBuf *out, const Kernel *const *kernels, int n, const char *const *names) {
    StrBuf lib = {0}, all = {0};
    bool cores = false;
    for (int j = 0; j < n; j++) cores |= !kernels[j]->threads;
    snU_puts(&lib, "#pragma OPENCL FP_CONTRACT OFF\n\n");
    if (cores) snU_puts(&lib, CLAIM);
    for (int j = 0; j < n; j++) {
        Emit e = { .k = kernels[j], .lib = &lib, .depth = 1 };
        if (e.k->threads) put_gpu_head(&e.text, e.k, names[j]);
        else put_head(&e.text, e.k, names[j]);
        put_body(&e);
        if (!e.k->threads) put_kernel(&e.text, e.k, names[j]);
        snU_put(&all, e.text.s, e.text.n);
        snU_free_buf(&e.text);
    }
    snU_put(out, lib.s, lib.n);
    if (all.n) snU_put(out, all.s, all.n);
    snU_free_buf(&lib);
    snU_free_buf(&all);
}

/* $SN_DUMP_DIR/HASH.cl */
static void dump_source(const StrBuf *source, Arena *a) {
    const char *dir = getenv("SN_DUMP_DIR");
    if (!dir || !*dir) return;
    uint64_t hash = snU_hash(source->s, source->n, 0);
    FILE *f = fopen(snU_fmt(a, "%s/%016llx.cl", dir, (unsigned long long)hash), "wb");
    if (!f) return;
    fwrite(source->s, 1, source->n, f);
    fclose(f);
}

void snK_compile_opencl(const Kernel *const *kernels, int n, void **source, size_t *bytes,
                        const char **symbols, Arena *a) {
    StrBuf text = {0};
    for (int i = 0; i < n; i++) {
        text.n = 0;
        snK_print(&text, kernels[i]);
        uint64_t hash = snU_hash(text.s, text.n, 0);
        symbols[i] = snU_fmt(a, "sn_k%d_%016llx", i, (unsigned long long)hash);
    }
    text.n = 0;
    snK_emit_opencl(&text, kernels, n, symbols);
    dump_source(&text, a);
    *source = text.s;
    *bytes = text.n;
}
