/* family_gemm_plain.c: the matrix product as a tile program, without graph: c[b, m, n] = op(a) op(b). What `sinter bench gemm` runs,
   and the form that the gemm family follows: grid (m, n, batch) with m fastest, so that consecutive programs of a worker keep the
   packed panel of b; a pipelined loop over K whose stages are zero outside the matrix; an epilogue over the valid part. */
#include "codegen/tile.h"

/* Rows [at, at + size) of a dimension of `extent`: how many are inside; 0 when always all. */
static TVal valid(Tile *t, TVal at, int64_t size, int64_t extent)
{
    if (extent % size == 0) return 0;
    return snT_ix(t, T_imin, snT_ix(t, T_isub, snT_idx(t, extent), at), snT_idx(t, size));
}

/* Stage the block of size [p, q] at (i, j) of a row-major matrix [.., n] in buffer buf. */
static TVal stage_block(Tile *t, int buf, TVal base, TVal i, TVal j, int64_t n, int p, int q, TVal vi, TVal vj)
{
    TVal at = snT_ix(t, T_iadd, base, snT_ix(t, T_iadd, snT_ix(t, T_imul, i, snT_idx(t, n)), j));
    return snT_stage(t, snT_load(t, buf, p, q, at, n, 1, vi, vj), vi, vj);
}

Tile *snT_gemm_plain(sn_ctx *c, Arena *arena, const GemmShape *s, const Target *target)
{
    Dtype out = s->out ? s->out : s->dtype;
    GemmSched g = snK_sched_gemm(target, s->batch, s->m, s->n, s->k, s->ta, s->tb, s->dtype);
    Tile *t = snT_new(c, arena, "gemm", "gemm");
    int A = snT_param(t, "a", s->dtype, s->batch * s->m * s->k, false);
    int B = snT_param(t, "b", s->dtype, s->batch * s->k * s->n, false);
    int C = snT_param(t, "c", out, s->batch * s->m * s->n, true);
    t->ngrid = 3;
    t->grid[0] = (s->m + g.bm - 1) / g.bm;
    t->grid[1] = (s->n + g.bn - 1) / g.bn;
    t->grid[2] = s->batch;
    t->flops = 2.0 * (double)s->batch * (double)s->m * (double)s->n * (double)s->k;
    t->bytes = (double)s->batch * ((double)snG_dtype_size(s->dtype) * (double)(s->m * s->k + s->k * s->n) +
                                   (double)snG_dtype_size(out) * (double)(s->m * s->n));

    TVal i = snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, g.bm)), vi = valid(t, i, g.bm, s->m);
    TVal j = snT_ix(t, T_imul, snT_grid(t, 1), snT_idx(t, g.bn)), vj = valid(t, j, g.bn, s->n);
    TVal z = snT_grid(t, 2);
    TVal a0 = snT_ix(t, T_imul, z, snT_idx(t, s->m * s->k)), b0 = snT_ix(t, T_imul, z, snT_idx(t, s->k * s->n));
    TVal acc = snT_var(t, snT_full(t, (TType){ SN_F32, g.bm, g.bn }, 0));
    TVal k = snT_for(t, snT_idx(t, 0), snT_idx(t, s->k), snT_idx(t, g.kc), true);
    TVal vk = valid(t, k, g.kc, s->k);
    TVal at = s->ta ? stage_block(t, A, a0, k, i, s->m, g.kc, g.bm, vk, vi) : stage_block(t, A, a0, i, k, s->k, g.bm, g.kc, vi, vk);
    TVal bt = s->tb ? stage_block(t, B, b0, j, k, s->k, g.bn, g.kc, vj, vk) : stage_block(t, B, b0, k, j, s->n, g.kc, g.bn, vk, vj);
    snT_set(t, acc, snT_dot(t, at, bt, snT_get(t, acc), s->ta, s->tb));
    snT_end(t);
    TVal y = snT_get(t, acc);                                /* the epilogue cone goes here */
    if (out != SN_F32) y = snT_ew(t, S_cast, out, y, 0, 0);
    TVal base = snT_ix(t, T_iadd, snT_ix(t, T_imul, z, snT_idx(t, s->m * s->n)),
                       snT_ix(t, T_iadd, snT_ix(t, T_imul, i, snT_idx(t, s->n)), j));
    snT_store(t, C, base, y, s->n, 1, vi, vj);
    return t;
}
