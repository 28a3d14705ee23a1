/* emu_warp.c: instructions in which the lanes of a warp, or the warps of a block, work together: shuffles, votes, barriers, matrices.

   A matrix fragment is spread over the lanes as the ISA draws it: lane 4 g + t holds, of an 8 x 8 tile of 16-bit elements, row g, columns
   2 t and 2 t + 1 in one register. So one register of all lanes, read as 16-bit numbers in order, is the tile row by row.

   mma: the products are exact in f32 (8, 11 or 11 bits each), and are added in f32, rounded to nearest after every addition, to the
   accumulator, for k = 0, 1, 2 ... Hardware adds several products at a time after aligning and truncating them, in a way that NVIDIA does not
   publish; results agree to the rounding of f32 sums and not bit for bit. tf32 operands lose their low 13 bits, as in hardware.

   wgmma, TMA and mbarrier would be rows here, with waits through snE_schedule: a turn of a warp ends, it does not hang. */
#include "runtime/emu_in.h"

#include <string.h>

/* -- Shuffles and votes ------------------------------------------------------------------------------------------------ */

/* The mask of a .sync instruction: one for all lanes, which name themselves in it. false: *next is where the warp goes on. */
static bool sync_lanes(Warp *w, const Ins *i, uint32_t ref, uint32_t *mask, const Ins **next)
{
    const Lane32 *m = snE_in32(w, ref);
    int first = __builtin_ctz(w->active);
    *mask = m[first];
    if (!snE_together(w, i, *mask, next))
        return false;
    EACH_LANE(w->active, l) {
        if (m[l] != *mask)
            snE_fault(w, i, (int)l, EMU_CONVERGENCE, "the mask of lanes is 0x%x here and 0x%x in thread %d", m[l], *mask, w->id * LANES + first);
        else if (!(*mask >> l & 1))
            snE_fault(w, i, (int)l, EMU_CONVERGENCE, "the mask of lanes, 0x%x, leaves out the thread that names it", *mask);
    }
    return true;
}

/* how: 0 up, 1 down, 2 bfly, 3 idx. PTX ISA, shfl.sync: c holds the clamp and the segment mask. */
static const Ins *run_shfl(Warp *w, const Ins *i)
{
    const Ins *next;
    uint32_t mask, in_range = 0;
    if (!sync_lanes(w, i, i->more[5], &mask, &next))
        return next;
    Lane32 out[LANES];
    const Lane32 *a = snE_in32(w, i->more[2]), *b = snE_in32(w, i->more[3]), *c = snE_in32(w, i->more[4]);
    EACH_LANE(w->active, l) {
        int lane = (int)l, bval = b[l] & 31, cval = c[l] & 31, segment = c[l] >> 8 & 31;
        int max_lane = (lane & segment) | (cval & ~segment), min_lane = lane & segment, j;
        bool p;
        switch (i->how) {
        case 0: j = lane - bval; p = j >= max_lane; break;
        case 1: j = lane + bval; p = j <= max_lane; break;
        case 2: j = lane ^ bval; p = j <= max_lane; break;
        default: j = min_lane | (bval & ~segment); p = j <= max_lane;
        }
        if (!p)
            j = lane;
        if (!(w->active >> j & 1))
            snE_fault(w, i, lane, EMU_CONVERGENCE, "takes the value of thread %d, which is not here", w->id * LANES + j);
        out[l] = a[j];
        in_range |= (uint32_t)p << l;
    }
    Lane32 *d = snE_out32(w, i->more[0]);
    EACH_LANE(w->active, l) d[l] = out[l];
    if (i->more[1] != UINT32_MAX)
        snE_set_pred(w, i->more[1], in_range);
    return i + 1;
}

static void decode_shfl(Decoding *d)
{
    d->ins->how = snE_has(d->op, ".up") ? 0 : snE_has(d->op, ".down") ? 1 : snE_has(d->op, ".bfly") ? 2 : 3;
}

/* how: 0 all, 1 any, 2 uni, 3 ballot */
static const Ins *run_vote(Warp *w, const Ins *i)
{
    const Ins *next;
    uint32_t mask;
    if (!sync_lanes(w, i, i->more[2], &mask, &next))
        return next;
    uint32_t p = *snE_in32(w, i->more[1]) & w->active;
    if (i->how == 3) {
        Lane32 *d = snE_out32(w, i->more[0]);
        EACH_LANE(w->active, l) d[l] = p;
    } else
        snE_set_pred(w, i->more[0], (i->how == 0 ? p == w->active : i->how == 1 ? p != 0 : p == 0 || p == w->active) ? FULL_WARP : 0);
    return i + 1;
}

static void decode_vote(Decoding *d)
{
    d->ins->how = snE_has(d->op, ".all") ? 0 : snE_has(d->op, ".any") ? 1 : snE_has(d->op, ".uni") ? 2 : 3;
}

static const Ins *run_activemask(Warp *w, const Ins *i)
{
    Lane32 *d = snE_out32(w, i->r[0]);
    EACH_LANE(w->active, l) d[l] = w->active;
    return i + 1;
}

/* how: 0 any, 1 all; bytes: 4, 8. any: d a mask; all: d|p */
static const Ins *run_match(Warp *w, const Ins *i)
{
    const Ins *next;
    uint32_t mask, same = 0, out[LANES];
    int a = i->how ? 2 : 1;
    if (!sync_lanes(w, i, i->more[a + 1], &mask, &next))
        return next;
    EACH_LANE(w->active, l) {
        out[l] = 0;
        for (uint32_t j = 0; j < LANES; j++) {
            bool equal = i->bytes == 8 ? snE_in64(w, i->more[a])[l] == snE_in64(w, i->more[a])[j] : snE_in32(w, i->more[a])[l] == snE_in32(w, i->more[a])[j];
            out[l] |= (uint32_t)equal << j & w->active;
        }
        same |= (uint32_t)(out[l] == w->active) << l;
    }
    Lane32 *d = snE_out32(w, i->more[0]);
    EACH_LANE(w->active, l) d[l] = !i->how ? out[l] : same == w->active ? mask : 0;
    if (i->how && i->more[1] != UINT32_MAX)
        snE_set_pred(w, i->more[1], same == w->active ? FULL_WARP : 0);
    return i + 1;
}

static void decode_match(Decoding *d)
{
    d->ins->how = snE_has(d->op, ".all");
    d->ins->bytes = snE_type(d->op, 0).bits / 8;
}

/* how: 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor; bytes 1: signed */
static const Ins *run_redux(Warp *w, const Ins *i)
{
    const Ins *next;
    uint32_t mask, v = 0;
    bool first = true;
    if (!sync_lanes(w, i, i->more[2], &mask, &next))
        return next;
    const Lane32 *a = snE_in32(w, i->more[1]);
    EACH_LANE(w->active, l) {
        uint32_t x = a[l], flip = i->bytes ? 0x80000000 : 0;
        v = first ? x : i->how == 0 ? v + x : i->how == 1 ? ((x ^ flip) < (v ^ flip) ? x : v) : i->how == 2 ? ((x ^ flip) > (v ^ flip) ? x : v)
            : i->how == 3 ? v & x : i->how == 4 ? v | x : v ^ x;
        first = false;
    }
    Lane32 *d = snE_out32(w, i->more[0]);
    EACH_LANE(w->active, l) d[l] = v;
    return i + 1;
}

static void decode_redux(Decoding *d)
{
    static const char *const names[] = { ".add", ".min", ".max", ".and", ".or", ".xor" };
    for (unsigned k = 0; k < 6; k++)
        if (snE_has(d->op, names[k]))
            d->ins->how = (uint8_t)k;
    d->ins->bytes = snE_has(d->op, ".s32");
}

static const Ins *run_elect(Warp *w, const Ins *i)
{
    const Ins *next;
    uint32_t mask;
    if (!sync_lanes(w, i, i->more[2], &mask, &next))
        return next;
    uint32_t leader = (uint32_t)__builtin_ctz(w->active);
    Lane32 *d = snE_out32(w, i->more[0]);
    EACH_LANE(w->active, l) d[l] = leader;
    if (i->more[1] != UINT32_MAX)
        snE_set_pred(w, i->more[1], 1u << leader);
    return i + 1;
}

static const Ins *run_warp_sync(Warp *w, const Ins *i)
{
    const Ins *next;
    uint32_t mask;
    if (!sync_lanes(w, i, i->more[0], &mask, &next))
        return next;
    snE_synced(w);
    return i + 1;
}

/* -- Barriers of the block --------------------------------------------------------------------------------------------- */

/* Operands a (number), b (threads, may be missing), at refs `first`, `first + 1` */
static const Ins *wait_for_block(Warp *w, const Ins *i, int first, bool only_arrive)
{
    const Ins *next;
    if (!snE_together(w, i, FULL_WARP, &next))
        return next;
    int lane = __builtin_ctz(w->active);
    uint32_t id = snE_in32(w, i->more[first])[lane], ref = first < 2 ? i->more[first + 1] : UINT32_MAX, count = ref == UINT32_MAX ? 0 : snE_in32(w, ref)[lane];
    EACH_LANE(w->active, l)
        if (snE_in32(w, i->more[first])[l] != id || (ref != UINT32_MAX && snE_in32(w, ref)[l] != count))
            snE_fault(w, i, (int)l, EMU_BARRIER, "the lanes of a warp name different barriers or counts");
    if (id >= NBARRIERS) {
        snE_fault(w, i, lane, EMU_BARRIER, "barrier %u: there are %d", id, NBARRIERS);
        w->at = i + 1;
        return NULL;
    }
    return snE_wait_barrier(w, i, (int)id, count, only_arrive);
}

static const Ins *run_bar_sync(Warp *w, const Ins *i) { return wait_for_block(w, i, 0, false); }
static const Ins *run_bar_arrive(Warp *w, const Ins *i) { return wait_for_block(w, i, 0, true); }
static const Ins *run_bar_red(Warp *w, const Ins *i)
{
    const Ins *next;
    if (!snE_together(w, i, FULL_WARP, &next))
        return next;
    uint32_t id = snE_in32(w, i->more[1])[__builtin_ctz(w->active)];
    if (id < NBARRIERS)
        return snE_wait_barrier(w, i, (int)id, 0, false);
    snE_fault(w, i, -1, EMU_BARRIER, "barrier %u: there are %d", id, NBARRIERS);
    w->at = i + 1;
    return NULL;
}
static void decode_bar_red(Decoding *d) { d->ins->how = snE_has(d->op, ".popc") ? 1 : snE_has(d->op, ".and") ? 2 : 3; }

/* -- Matrices ---------------------------------------------------------------------------------------------------------- */

/* All 32 lanes, or a report. */
static bool whole_warp(Warp *w, const Ins *i, const Ins **next)
{
    if (!snE_together(w, i, FULL_WARP, next))
        return false;
    if (w->active == FULL_WARP)
        return true;
    int gone = __builtin_ctz(~w->active);
    snE_fault(w, i, __builtin_ctz(w->active), EMU_CONVERGENCE, "needs all 32 lanes of the warp; thread %d has left or does not exist", w->id * LANES + gone);
    *next = i + 1;
    return false;
}

/* D = A B + C of fragments; how: 0 f16, 1 bf16, 2 tf32; bytes: depth */
static const Ins *run_mma(Warp *w, const Ins *i)
{
    const Ins *next;
    if (!whole_warp(w, i, &next))
        return next;
    Fragments f = { .kind = i->how, .depth = i->bytes };
    int na = i->how == 2 ? f.depth / 2 : f.depth / 4, nb = na / 2;
    for (int k = 0; k < 4; k++) {
        f.d[k] = snE_out32(w, i->more[k]);
        f.c[k] = snE_in32(w, i->more[4 + na + nb + k]);
    }
    for (int k = 0; k < na; k++)
        f.a[k] = snE_in32(w, i->more[4 + k]);
    for (int k = 0; k < nb; k++)
        f.b[k] = snE_in32(w, i->more[4 + na + k]);
    w->block->launch->multiply(&f);
    return i + 1;
}

static void decode_mma(Decoding *d)
{
    d->ins->how = snE_has(d->op, ".tf32") ? 2 : snE_has(d->op, ".bf16") ? 1 : 0;
    d->ins->bytes = snE_has(d->op, ".m16n8k16") ? 16 : snE_has(d->op, ".m16n8k8") ? 8 : 4;
}

/* A row, whose address is the lane's; NULL: reported. The word of two elements is read or written by the lane whose register it lies in;
   transposed (how 1), the two lie in two, of which the first counts. */
static uint8_t *matrix_row(Warp *w, const Ins *i, uint32_t ref, int lane, int row, Access how)
{
    Block *b = w->block;
    uint64_t at = (i->space & 0x80 ? snE_in32(w, ref)[lane] : snE_in64(w, ref)[lane]) + (uint64_t)i->imm;
    if (!(i->space & 0x3f) && at >> WINDOW_BITS == ID_SHARED)
        at -= snE_window(ID_SHARED);
    if (at > b->shared_bytes || b->shared_bytes - at < 16)
        snE_fault(w, i, lane, EMU_BOUNDS, "a row of 16 bytes at offset %lld of shared memory, which has %u", (long long)at, b->shared_bytes);
    else if (at & 15)
        snE_fault(w, i, lane, EMU_MISALIGNED, "a row of 16 bytes at offset %llu of shared memory: not aligned to 16", (unsigned long long)at);
    else {
        snE_touch_row(w, i, (uint32_t)at, i->how ? row / 2 : 4 * row, i->how ? 8 : 1, how);
        return b->shared + at;
    }
    return NULL;
}

static const Ins *run_ldmatrix(Warp *w, const Ins *i)
{
    const Ins *next;
    if (!whole_warp(w, i, &next))
        return next;
    uint16_t out[4][8][8], tile[8][8];           /* a register of all lanes is a matrix, row by row */
    for (int k = 0; k < i->count; k++) {
        for (int row = 0; row < 8; row++) {
            uint8_t *p = matrix_row(w, i, i->more[i->count], 8 * k + row, row, READS);
            if (p)
                memcpy(tile[row], p, 16);
            else
                memset(tile[row], 0, 16);
        }
        for (int row = 0; row < 8; row++)
            for (int col = 0; col < 8; col++)
                out[k][row][col] = i->how ? tile[col][row] : tile[row][col];
    }
    for (int k = 0; k < i->count; k++)
        memcpy(snE_out32(w, i->more[k]), out[k], sizeof out[k]);
    return i + 1;
}

static const Ins *run_stmatrix(Warp *w, const Ins *i)
{
    const Ins *next;
    if (!whole_warp(w, i, &next))
        return next;
    for (int k = 0; k < i->count; k++) {
        uint16_t in[8][8], tile[8];
        memcpy(in, snE_in32(w, i->more[1 + k]), sizeof in);
        for (int row = 0; row < 8; row++) {
            uint8_t *p = matrix_row(w, i, i->more[0], 8 * k + row, row, WRITES);
            for (int col = 0; col < 8; col++)
                tile[col] = i->how ? in[col][row] : in[row][col];
            if (p)
                memcpy(p, tile, 16);
        }
    }
    return i + 1;
}

static void decode_matrix(Decoding *d)
{
    d->ins->how = snE_has(d->op, ".trans");
    d->ins->space |= snE_has(d->op, ".shared") || snE_has(d->op, ".shared::cta") ? SPACE_SHARED : SPACE_GENERIC;
}

static const Ins *run_movmatrix(Warp *w, const Ins *i)
{
    const Ins *next;
    uint32_t out[LANES];
    if (!whole_warp(w, i, &next))
        return next;
    const Lane32 *a = snE_in32(w, i->more[1]);
    for (int l = 0; l < LANES; l++) {
        int row = l / 4, col = l % 4 * 2;        /* element (row, col) of the result is (col, row) of a */
        uint32_t low = a[4 * col + row / 2] >> 16 * (row & 1), high = a[4 * (col + 1) + row / 2] >> 16 * (row & 1);
        out[l] = (low & 0xffff) | high << 16;
    }
    memcpy(snE_out32(w, i->more[0]), out, sizeof out);
    return i + 1;
}

/* -- Rows -------------------------------------------------------------------------------------------------------------- */

const Row snE_warp_rows[] = {
    { "shfl.sync(.up|.down|.bfly|.idx).b32", "W|Pwwww", run_shfl, 0, decode_shfl },
    { "vote.sync(.all|.any|.uni).pred", "Ppw", run_vote, 0, decode_vote },
    { "vote.sync.ballot.b32", "Wpw", run_vote, 0, decode_vote },
    { "activemask.b32", "W", run_activemask, 0, NULL },
    { "match.any.sync.(b32|b64)", "Wtw", run_match, 0, decode_match },
    { "match.all.sync.(b32|b64)", "W|Ptw", run_match, 0, decode_match },
    { "redux.sync(.add|.min|.max).(u32|s32)", "Www", run_redux, 0, decode_redux },
    { "redux.sync(.and|.or|.xor).b32", "Www", run_redux, 0, decode_redux },
    { "elect.sync", "W|Pw", run_elect, 0, NULL },
    { "bar.warp.sync", "w", run_warp_sync, 0, NULL },
    { "(bar|barrier)(.cta|).sync(.aligned|)", "w~w", run_bar_sync, 0, NULL },
    { "(bar|barrier)(.cta|).arrive(.aligned|)", "ww", run_bar_arrive, 0, NULL },
    { "(bar|barrier)(.cta|).red.popc(.aligned|).u32", "Wwp", run_bar_red, 0, decode_bar_red },
    { "(bar|barrier)(.cta|).red(.and|.or)(.aligned|).pred", "Pwp", run_bar_red, 0, decode_bar_red },
    { "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "4W4w2w4f", run_mma, 0, decode_mma },
    { "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "4W4w2w4f", run_mma, 0, decode_mma },
    { "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", "4W2w1w4f", run_mma, 0, decode_mma },
    { "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", "4W2w1w4f", run_mma, 0, decode_mma },
    { "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "4W4w2w4f", run_mma, 0, decode_mma },
    { "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", "4W2w1w4f", run_mma, 0, decode_mma },
    { "ldmatrix.sync.aligned.m8n8(.x1|.x2|.x4)(.trans|)(.shared|.shared::cta|).b16", "*W[", run_ldmatrix, 0, decode_matrix },
    { "stmatrix.sync.aligned.m8n8(.x1|.x2|.x4)(.trans|)(.shared|.shared::cta|).b16", "[*w", run_stmatrix, 0, decode_matrix },
    { "movmatrix.sync.aligned.m8n8.trans.b16", "Ww", run_movmatrix, 0, NULL },
};
const int snE_nwarp_rows = sizeof snE_warp_rows / sizeof *snE_warp_rows;
