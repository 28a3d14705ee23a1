/* lower_pairs.c: staged operands of a bf16 product as pairs along its depth, for CPUs with a dot product of
   bf16 pairs.

   In: a position in a staged bf16 tile. Out: a vector of u32 words, each two neighbours along the depth, the
   first in the low half; beyond the depth they are 0. lower_dot.c packs words where it packs elements of f32
   products, so a panel [k][NR] becomes [k / 2][NR] words and the micro-kernel is the same with another
   instruction (dpbf16 of kir.def).

   A staged bf16 value is in an f32 register and exact: its bits are the upper half of the word. */
#include "codegen/lower_cpu.h"

static KType words(const Low *lo) { return kt(K_U32, lo->L); }

bool snL_in_pairs(const Low *lo, TVal dot)
{
    const TIns *d = INS(lo, dot);
    TType a = INS(lo, d->a[0])->type;
    if (!lo->target->bf16_dot || (d->imm & 1 ? a.r : a.c) < 2) return false;   /* a single column stands for any: it has no neighbour */
    for (int o = 0; o < 2; o++) {
        const TIns *s = INS(lo, d->a[o]);
        if (s->op != T_stage || s->type.dtype != SN_BF16) return false;
    }
    return true;
}

/* low's upper halves under high's. keep: the bits of high that count. */
static KVal join(Low *lo, KVal low, KVal high, KVal keep)
{
    KType u = words(lo);
    low = snK_op(lo->k, K_shr, u, snK_op(lo->k, K_bitcast, u, low, 0, 0), snK_int(lo->k, u, 16), 0);
    high = snK_op(lo->k, K_and, u, snK_op(lo->k, K_bitcast, u, high, 0, 0), keep, 0);
    return snK_op(lo->k, K_or, u, low, high, 0);
}

KVal snL_pairs_down(Low *lo, TVal stage, KVal row, bool masked)
{
    const TIns *i = INS(lo, stage);
    Kernel *k = lo->k;
    KType u = words(lo), u1 = kt(K_U32, 1), b1 = kt(K_BOOL, 1);
    KVal next = kadd(lo, row, ki(lo, 1)), keep = snK_int(k, u, 0xffff0000), col = lo->col;
    snL_begin_row(lo, row, stage);
    lo->col = col;
    KVal low = snL_staged(lo, stage, masked);
    if (i->a[1] || i->type.r % 2) {                            /* the last row may be alone */
        KVal rows = i->a[1] ? snK_op(k, K_min, i64(), lo->v[i->a[1]].k, ki(lo, i->type.r), 0) : ki(lo, i->type.r);
        KVal in = snK_op(k, K_lt, b1, next, rows, 0);
        keep = snK_op(k, K_select, u1, in, snK_int(k, u1, 0xffff0000), snK_int(k, u1, 0));
        keep = snK_op(k, K_splat, u, keep, 0, 0);
        next = snK_op(k, K_select, i64(), in, next, row);
    }
    snL_begin_row(lo, next, stage);
    lo->col = col;
    KVal high = snL_staged(lo, stage, masked);
    lo->row = row;
    return join(lo, low, high, keep);
}

/* Whole vectors of a plain load are pairs already. */
static KVal load_pairs(Low *lo, const TIns *i)
{
    KVal at = kadd(lo, lo->v[i->a[0]].k, kmul(lo, lo->row, i->rs));
    KVal x = snK_load(lo->k, kt(K_BF16, 2 * lo->L), lo->params[i->buf], kadd(lo, at, lo->col), 0);
    return snK_op(lo->k, K_bitcast, words(lo), x, 0, 0);
}

KVal snL_pairs_across(Low *lo, TVal stage, bool masked)
{
    const TIns *i = INS(lo, stage), *from = INS(lo, i->a[0]);
    bool inside = !masked && (!from->a[1] || from->a[1] == lo->row_limit);
    if (inside && from->op == T_load && from->cs == 1) return load_pairs(lo, from);
    uint8_t even[64], odd[64];
    for (int l = 0; l < lo->L; l++) even[l] = (uint8_t)(2 * l), odd[l] = (uint8_t)(2 * l + 1);
    KVal first = lo->col, x[2];
    for (int n = 0; n < 2; n++) {
        lo->col = kadd(lo, first, ki(lo, (int64_t)n * lo->L));
        x[n] = snL_staged(lo, stage, masked);
    }
    lo->col = first;
    return join(lo, snK_shuffle(lo->k, x[0], x[1], even, lo->L), snK_shuffle(lo->k, x[0], x[1], odd, lo->L),
                snK_int(lo->k, words(lo), 0xffff0000));
}
