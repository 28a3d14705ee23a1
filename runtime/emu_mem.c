/* emu_mem.c: loads, stores, atomics, cp.async, and the checks of every access.

   Global memory: the upper bits of an address name a range of the launch, whose bytes have flags of being written. Local memory: the same,
   per thread. Shared memory: every 4-byte word has marks (emu_in.h): who wrote it last and who reads it, each with the clock of his warp. An
   access races with a mark when nothing orders them: same thread, or a barrier after the mark that this warp has been through as
   well (vector clocks per warp: Flanagan and Freund, FastTrack, 2009). Two readers are kept, of different warps where there are some: a
   write that is not ordered with the readers meets at least one that it is not ordered with. Words of which a part was accessed get
   marks per byte. A cp.async leaves marks that are later than everything until its thread has waited for it. Atomics do not race
   with each other, and leave no marks. */
#include "runtime/emu_in.h"

#include <stdlib.h>
#include <string.h>

/* -- Addresses --------------------------------------------------------------------------------------------------------- */

/* Of all lanes: register + offset; the k-th address of the instruction. */
static void addresses(const Warp *w, const Ins *i, int k, uint32_t ref, uint64_t at[LANES])
{
    uint64_t offset = (uint64_t)(k ? i->imm2 : i->imm);
    if (i->space & (k ? 0x40 : 0x80)) {
        const Lane32 *a = snE_in32(w, ref);
        for (int l = 0; l < LANES; l++)
            at[l] = a[l] + offset;
    } else {
        const Lane64 *a = snE_in64(w, ref);
        for (int l = 0; l < LANES; l++)
            at[l] = a[l] + offset;
    }
}

/* -- Global memory ----------------------------------------------------------------------------------------------------- */

static bool find_range(const LaunchState *s, uint64_t at, EmuRange *out, uint64_t *base)
{
    uint64_t id = at >> WINDOW_BITS;
    if (id >= ID_RANGE && id - ID_RANGE < (uint64_t)s->l->nranges) {
        *out = s->l->ranges[id - ID_RANGE];
        *base = snE_address((int)(id - ID_RANGE), out->skew);
        return true;
    }
    if (id >= ID_MODULE && id - ID_MODULE < (uint64_t)s->m->nglobals) {
        const Variable *v = &s->m->globals[id - ID_MODULE];
        *out = (EmuRange){ s->m->global + v->offset, s->m->global_written + v->offset, NULL, NULL, v->bytes, 0, "a variable of the module" };
        *base = snE_middle((int)id);
        return true;
    }
    return false;
}

static bool all_written(const uint8_t *flag, uint32_t bytes)
{
    for (; bytes >= 8; bytes -= 8, flag += 8) {
        uint64_t eight;
        memcpy(&eight, flag, 8);
        if (eight != 0x0101010101010101u)
            return false;
    }
    for (uint32_t k = 0; k < bytes; k++)
        if (!flag[k])
            return false;
    return true;
}

static const char *name_of(const EmuRange *r) { return r->name && *r->name ? r->name : "memory"; }
static const char *verb(Access how) { return how == READS ? "read" : how == READS_WRITES ? "atomic access" : "write"; }

static void report_bounds(Warp *w, const Ins *i, int lane, uint32_t bytes, Access how, const EmuRange *r, int64_t offset)
{
    const char *name = name_of(r);
    if (offset < 0)
        snE_fault(w, i, lane, EMU_BOUNDS, "%s of %u bytes, %lld in front of %.40s (%zu bytes)", verb(how), bytes, (long long)-offset, name, r->bytes);
    else
        snE_fault(w, i, lane, EMU_BOUNDS, "%s of %u bytes at offset %lld of %.40s, which has %zu", verb(how), bytes, (long long)offset, name, r->bytes);
}

static void report_no_memory(Warp *w, const Ins *i, int lane, uint32_t bytes, Access how, uint64_t at)
{
    uint64_t id = at >> WINDOW_BITS;
    snE_fault(w, i, lane, EMU_BOUNDS, "%s of %u bytes at 0x%llx, %s", verb(how), bytes, (unsigned long long)at,
              id == ID_SHARED ? "a generic address of shared memory" : id == ID_LOCAL ? "a generic address of local memory" : id == 0 ? "no global address" :
              "where nothing is");
}

/* -- Races of a block in global memory: writes leave marks; what a warp reads or writes must be ordered with them -------- */

static bool ordered(const Warp *w, uint32_t mark, uint32_t thread)
{
    return mark >> THREAD_BITS < w->seen[mark >> 5 & (MAX_WARPS - 1)] || ((mark & (LANES * MAX_WARPS - 1)) == thread && mark < MARK_ASYNC);
}

/* Blocks are compared: whoever else in this launch wrote the word, or read what is now written. A part of a word leaves no mark. */
static bool meets_block(Warp *w, const Ins *i, int lane, const EmuRange *r, uint64_t offset, uint64_t at, Access how, bool whole)
{
    uint32_t run = w->block->run, first = w->block->launch->m->runs, other = 0;
    const EmuMark *m = &r->marks[at / 4];
    EmuReaders *readers = &r->readers[at / 4];
    bool written = m->run > first && m->run != run;
    if (written)
        other = m->run;
    for (int k = 0; k < 2 && how == WRITES && !other; k++)
        if (readers->run[k] > first && readers->run[k] != run)
            other = readers->run[k];
    if (other) {
        snE_fault(w, i, lane, EMU_RACE, "race of blocks: %s at offset %lld of %.40s, which block %u %s in this launch", verb(how), (long long)offset,
                  name_of(r), other - first - 1, written ? "writes" : "reads");
        return true;
    }
    if (how == READS && whole && readers->run[0] != run)
        readers->run[readers->run[0] > first] = run;
    return false;
}

static void touch_global(Warp *w, const Ins *i, int lane, const EmuRange *r, uint64_t offset, uint32_t bytes, Access how)
{
    uint32_t run = w->block->run, thread = (uint32_t)(w->id * LANES + lane), me = w->seen[w->id] << THREAD_BITS | thread;
    for (uint64_t at = offset; at < offset + bytes; at += 4) {
        EmuMark *m = &r->marks[at / 4];
        if (m->run == run && snE_is_load(i) && i->how & 8) {
            snE_fault(w, i, lane, EMU_RACE, "ld.global.nc at offset %lld of %.40s, which the kernel has written: only what no one writes may be read so",
                      (long long)offset, name_of(r));
            return;
        }
        if (m->run == run && !ordered(w, m->mark, thread)) {
            snE_fault(w, i, lane, EMU_RACE, "race: %s of %u bytes at offset %lld of %.40s, written by thread %u, with no barrier between", verb(how), bytes,
                      (long long)offset, name_of(r), m->mark & (LANES * MAX_WARPS - 1));
            return;
        }
        if (r->readers && how != READS_WRITES && meets_block(w, i, lane, r, offset, at, how, !(bytes & 3)))
            return;
        if (how == WRITES)
            *m = bytes & 3 ? (EmuMark){ 0, 0 } : (EmuMark){ run, me };   /* whoever writes a part of a word is not followed */
    }
}

/* Words next to each other; false: some were written in this run, each has to be looked at. */
static bool touch_packed(const Warp *w, EmuMark *m, uint32_t words, Access how)
{
    uint32_t run = w->block->run, me = w->seen[w->id] << THREAD_BITS | (uint32_t)(w->id * LANES), mine = 0;
    for (uint32_t k = 0; k < words * LANES; k++)
        mine |= m[k].run == run;
    if (mine)
        return false;
    for (uint32_t l = 0; how == WRITES && l < LANES; l++)
        for (uint32_t k = 0; k < words; k++)
            m[l * words + k] = (EmuMark){ run, me + l };
    return true;
}

/* The rule: all lanes lie in one range, aligned, on bytes that are written. */
static bool global_fast(Warp *w, const Ins *i, const uint64_t at[LANES], uint32_t bytes, Access how, uint8_t *p[LANES])
{
    EmuRange r;
    uint64_t base, low = UINT64_MAX, high = 0, bits = 0, apart = 0;
    if (!find_range(w->block->launch, at[0], &r, &base))
        return false;
    for (int l = 0; l < LANES; l++) {
        low = at[l] < low ? at[l] : low;
        high = at[l] > high ? at[l] : high;
        bits |= at[l];
        apart |= at[l] - at[0] - (uint64_t)l * bytes;
    }
    if (low < base || high - base > r.bytes || r.bytes - (high - base) < bytes || bits & (bytes - 1))
        return false;
    uint8_t *host = r.host;
    for (int l = 0; l < LANES; l++)
        p[l] = host + (at[l] - base);
    if (r.written && !apart) {
        if (how != WRITES && !all_written(r.written + (at[0] - base), LANES * bytes))
            return false;
        if (how != READS)
            memset(r.written + (at[0] - base), 1, LANES * bytes);
    } else if (r.written) {
        for (int l = 0; l < LANES && how != WRITES; l++)
            if (!all_written(r.written + (at[l] - base), bytes))
                return false;
        for (int l = 0; l < LANES && how != READS; l++)
            memset(r.written + (at[l] - base), 1, bytes);
    }
    if (r.marks && (apart || bytes & 3 || r.readers || !touch_packed(w, r.marks + (at[0] - base) / 4, bytes / 4, how)))
        for (int l = 0; l < LANES; l++)
            touch_global(w, i, l, &r, at[l] - base, bytes, how);
    return true;
}

/* Pointers for the lanes of mask; those with an error get NULL and are reported. */
static void global_access(Warp *w, const Ins *i, const uint64_t at[LANES], uint32_t mask, uint32_t bytes, Access how, uint8_t *p[LANES])
{
    EmuRange r = {0};
    uint64_t base = 0, id = 0;
    bool found = false;
    if (mask == FULL_WARP && global_fast(w, i, at, bytes, how, p))
        return;
    EACH_LANE(mask, l) {
        p[l] = NULL;
        if (!found || at[l] >> WINDOW_BITS != id) {
            id = at[l] >> WINDOW_BITS;
            if (!(found = find_range(w->block->launch, at[l], &r, &base))) {
                report_no_memory(w, i, (int)l, bytes, how, at[l]);
                continue;
            }
        }
        uint64_t offset = at[l] - base;
        if (offset > r.bytes || r.bytes - offset < bytes)
            report_bounds(w, i, (int)l, bytes, how, &r, (int64_t)offset);
        else if (at[l] & (bytes - 1))
            snE_fault(w, i, (int)l, EMU_MISALIGNED, "%s of %u bytes at offset %lld of %.40s: not aligned to %u", verb(how), bytes, (long long)offset,
                      name_of(&r), bytes);
        else {
            p[l] = (uint8_t *)r.host + offset;
            uint8_t *flag = r.written ? r.written + offset : NULL;
            if (r.marks)
                touch_global(w, i, (int)l, &r, offset, bytes, how);
            if (!flag)
                continue;
            if (how != WRITES && !all_written(flag, bytes))
                snE_fault(w, i, (int)l, EMU_UNINITIALISED, "reads %u bytes at offset %lld of %.40s that nobody has written", bytes, (long long)offset,
                          name_of(&r));
            if (how != READS)
                memset(flag, 1, bytes);
        }
    }
}

/* -- Local memory and parameters --------------------------------------------------------------------------------------- */

static void local_access(Warp *w, const Ins *i, const uint64_t at[LANES], uint32_t mask, uint32_t bytes, Access how, uint8_t *p[LANES])
{
    Block *b = w->block;
    uint32_t size = b->launch->k->local;
    EACH_LANE(mask, l) {
        p[l] = NULL;
        if (at[l] > size || size - at[l] < bytes)
            snE_fault(w, i, (int)l, EMU_BOUNDS, "%s of %u bytes at offset %lld of local memory, which has %u", verb(how), bytes, (long long)at[l], size);
        else if (at[l] & (bytes - 1))
            snE_fault(w, i, (int)l, EMU_MISALIGNED, "%s of %u bytes at offset %llu of local memory: not aligned", verb(how), bytes, (unsigned long long)at[l]);
        else {
            size_t place = (size_t)size * ((size_t)w->id * LANES + l) + at[l];
            p[l] = b->local + place;
            if (how == READS && !all_written(b->local_written + place, bytes))
                snE_fault(w, i, (int)l, EMU_UNINITIALISED, "reads %u bytes at offset %llu of local memory that this thread has not written", bytes,
                          (unsigned long long)at[l]);
            if (how != READS)
                memset(b->local_written + place, 1, bytes);
        }
    }
}

static void param_access(Warp *w, const Ins *i, const uint64_t at[LANES], uint32_t mask, uint32_t bytes, Access how, uint8_t *p[LANES])
{
    const LaunchState *s = w->block->launch;
    EACH_LANE(mask, l) {
        p[l] = NULL;
        if (how != READS)
            snE_fault(w, i, (int)l, EMU_BOUNDS, "writes a kernel parameter");
        else if (at[l] > s->k->param_bytes || s->k->param_bytes - at[l] < bytes)
            snE_fault(w, i, (int)l, EMU_BOUNDS, "read of %u bytes at offset %llu of the parameters, which have %u", bytes, (unsigned long long)at[l], s->k->param_bytes);
        else if (at[l] & (bytes - 1))
            snE_fault(w, i, (int)l, EMU_MISALIGNED, "read of %u bytes at offset %llu of the parameters: not aligned", bytes, (unsigned long long)at[l]);
        else
            p[l] = (uint8_t *)s->params + at[l];
    }
}

/* -- Shared memory ----------------------------------------------------------------------------------------------------- */

typedef struct Conflict { EmuKind kind; const char *what; uint32_t mark; } Conflict;

/* One word or byte. Returns what is wrong (kind of a race, or uninitialised); records the access. */
static inline bool touch(const Warp *w, Marks *m, uint32_t thread, uint32_t me, Access how, Conflict *c)
{
    bool good = true;
    if (how == READS || how == READS_WRITES) {
        if (!m->write) {
            *c = (Conflict){ EMU_UNINITIALISED, "", 0 };
            return false;
        }
        if (!ordered(w, m->write, thread)) {
            *c = m->write >= MARK_ASYNC ? (Conflict){ EMU_ASYNC, "", m->write }
                                        : (Conflict){ EMU_RACE, "written", m->write };
            return false;
        }
        if (how == READS) {
            if (m->read[0] == me)
                return true;
            if ((m->read[0] & (LANES * MAX_WARPS - 1)) == thread || ordered(w, m->read[0], thread))
                m->read[0] = me;
            else if (ordered(w, m->read[1], thread) || ((m->read[0] ^ m->read[1]) >> 5 & (MAX_WARPS - 1)) == 0)
                m->read[1] = me;
            return true;
        }
        for (int k = 0; k < 2; k++)
            if (m->read[k] && !ordered(w, m->read[k], thread)) {
                *c = (Conflict){ EMU_RACE, "read", m->read[k] };
                good = false;
            }
        return good;
    }
    if (m->write && !ordered(w, m->write, thread)) {
        *c = m->write >= MARK_ASYNC ? (Conflict){ EMU_ASYNC, "", m->write }
                                    : (Conflict){ EMU_RACE, "written", m->write };
        good = false;
    }
    for (int k = 0; k < 2 && good; k++)
        if (m->read[k] && !ordered(w, m->read[k], thread)) {
            *c = (Conflict){ EMU_RACE, "read", m->read[k] };
            good = false;
        }
    *m = (Marks){ how == WRITES_LATER ? MARK_ASYNC | thread : me, { 0, 0 } };
    return good;
}

static void report_conflict(Warp *w, const Ins *i, int lane, uint64_t at, Access how, const Conflict *c)
{
    const char *does = how == READS ? "reads" : how == READS_WRITES ? "changes" : "writes";
    uint32_t who = c->mark & (LANES * MAX_WARPS - 1);
    if (c->kind == EMU_UNINITIALISED)
        snE_fault(w, i, lane, c->kind, "reads byte %llu of shared memory, which nobody has written", (unsigned long long)at);
    else if (c->kind == EMU_ASYNC)
        snE_fault(w, i, lane, c->kind, "%s byte %llu of shared memory, where a cp.async of thread %u has not been waited for", does, (unsigned long long)at, who);
    else
        snE_fault(w, i, lane, c->kind, "race: %s byte %llu of shared memory, %s by thread %u, with no barrier between", does, (unsigned long long)at, c->what, who);
}

static bool touch_bytes(Warp *w, const Ins *i, int lane, uint32_t at, uint32_t bytes, Access how)
{
    Block *b = w->block;
    uint32_t thread = (uint32_t)(w->id * LANES + lane), me = w->seen[w->id] << THREAD_BITS | thread;
    Conflict c;
    for (uint32_t k = at; k < at + bytes; k++) {
        Marks *word = &b->word[k / 4], *byte = &b->byte[k / 4 * 4];
        if (word->write != MARK_SPLIT) {
            for (int j = 0; j < 4; j++)
                byte[j] = *word;
            word->write = MARK_SPLIT;
        }
        if (!touch(w, &byte[k & 3], thread, me, how, &c)) {
            report_conflict(w, i, lane, k, how, &c);
            return false;
        }
    }
    return true;
}

static __attribute__((noinline)) bool touch_word(Warp *w, const Ins *i, int lane, uint32_t at, uint32_t me, Access how)
{
    Marks *m = &w->block->word[at / 4];
    uint32_t thread = (uint32_t)(w->id * LANES + lane);
    Conflict c;
    if (m->write != MARK_SPLIT) {
        bool good = touch(w, m, thread, me, how, &c);
        if (!good)
            report_conflict(w, i, lane, at, how, &c);
        return good;
    }
    bool good = touch_bytes(w, i, lane, at, 4, how);
    if (good && (how == WRITES || how == WRITES_LATER))
        *m = (Marks){ how == WRITES_LATER ? MARK_ASYNC | thread : me, { 0, 0 } };
    return good;
}

static inline bool unordered(const Warp *w, uint32_t mark) { return mark >> THREAD_BITS >= w->seen[mark >> 5 & (MAX_WARPS - 1)]; }
static inline bool same_warp(uint32_t a, uint32_t b) { return ((a ^ b) >> 5 & (MAX_WARPS - 1)) == 0; }

/* The rule: what was written lies before the last barrier, or was written by this thread; nobody reads what is written. Two readers are
   enough, of different warps where there are some. */
static inline bool touch_fast(const Warp *w, Marks *m, uint32_t me, Access how)
{
    uint32_t old = w->old, r0 = m->read[0], r1 = m->read[1];
    if (m->write != me && (how == READS ? m->write - 1 >= old - 1 : m->write >= old))
        return false;
    if (how == READS) {
        if (r0 == me || r1 == me)
            return true;
        if (r0 < old)
            m->read[0] = me;
        else if (!unordered(w, r0))
            return false;
        else if (r1 < old)
            m->read[1] = me;
        else
            return unordered(w, r1) && (!same_warp(r0, r1) || same_warp(r0, me));
        return true;
    }
    if (how == READS_WRITES || (r0 >= old && r0 != me) || (r1 >= old && r1 != me))
        return false;
    *m = (Marks){ how == WRITES_LATER ? MARK_ASYNC | (me & (LANES * MAX_WARPS - 1)) : me, { 0, 0 } };
    return true;
}

/* A conflict is reported and the access done all the same; NULL only out of bounds or misaligned. */
static inline uint8_t *shared_lane(Warp *w, const Ins *i, int lane, uint64_t at, uint32_t bytes, Access how)
{
    Block *b = w->block;
    uint32_t me = w->seen[w->id] << THREAD_BITS | (uint32_t)(w->id * LANES + lane);
    if (at > b->shared_bytes || b->shared_bytes - at < bytes) {
        snE_fault(w, i, lane, EMU_BOUNDS, "%s of %u bytes at offset %lld of shared memory, which has %u", verb(how), bytes, (long long)at, b->shared_bytes);
        return NULL;
    }
    if (at & (bytes - 1)) {
        snE_fault(w, i, lane, EMU_MISALIGNED, "%s of %u bytes at offset %llu of shared memory: not aligned to %u", verb(how), bytes, (unsigned long long)at, bytes);
        return NULL;
    }
    if (bytes & 3)
        touch_bytes(w, i, lane, (uint32_t)at, bytes, how);
    else
        for (uint32_t k = 0; k < bytes; k += 4)
            if (!touch_fast(w, &b->word[(at + k) / 4], me, how) && !touch_word(w, i, lane, (uint32_t)at + k, me, how))
                break;
    return b->shared + at;
}

void snE_touch_row(Warp *w, const Ins *i, uint32_t at, int lane, int step, Access how)
{
    for (int t = 0; t < 4; t++, at += 4, lane += step) {
        uint32_t me = w->seen[w->id] << THREAD_BITS | (uint32_t)(w->id * LANES + lane);
        if (!touch_fast(w, &w->block->word[at / 4], me, how))
            touch_word(w, i, lane, at, me, how);
    }
}

static void shared_access(Warp *w, const Ins *i, const uint64_t at[LANES], uint32_t mask, uint32_t bytes, Access how, uint8_t *p[LANES])
{
    Block *b = w->block;
    uint64_t wrong = bytes & 3;
    uint32_t me = w->seen[w->id] << THREAD_BITS | (uint32_t)(w->id * LANES), words = bytes / 4;
    EACH_LANE(mask, l)
        wrong |= (at[l] & (bytes - 1)) | (at[l] + bytes > b->shared_bytes) | at[l] >> 32;
    if (wrong) {
        EACH_LANE(mask, l)
            p[l] = shared_lane(w, i, (int)l, at[l], bytes, how);
        return;
    }
    EACH_LANE(mask, l) {
        Marks *m = b->word + at[l] / 4;
        p[l] = b->shared + at[l];
        if (how == READS && l > 1 && at[l] == at[l - 1] && at[l] == at[l - 2] && (mask >> (l - 2) & 7) == 7)
            continue;                            /* two lanes of this warp have left their marks */
        for (uint32_t k = 0; k < words; k++)
            if (!touch_fast(w, m + k, me + l, how) && !touch_word(w, i, (int)l, (uint32_t)at[l] + 4 * k, me + l, how))
                break;
    }
}

/* -- Any space --------------------------------------------------------------------------------------------------------- */

static void resolve(Warp *w, const Ins *i, uint64_t at[LANES], uint32_t bytes, Access how, uint8_t *p[LANES])
{
    uint32_t mask = w->active, part[4] = {0};
    switch (i->space & 0x3f) {
    case SPACE_GLOBAL: global_access(w, i, at, mask, bytes, how, p); return;
    case SPACE_SHARED: shared_access(w, i, at, mask, bytes, how, p); return;
    case SPACE_LOCAL: local_access(w, i, at, mask, bytes, how, p); return;
    case SPACE_PARAM: param_access(w, i, at, mask, bytes, how, p); return;
    }
    EACH_LANE(mask, l) {                         /* generic: by the window of each lane */
        uint64_t id = at[l] >> WINDOW_BITS;
        part[id == ID_SHARED || id == ID_LOCAL || id == ID_PARAM ? id : 0] |= 1u << l;
        if (id == ID_SHARED || id == ID_LOCAL || id == ID_PARAM)
            at[l] -= snE_window((int)id);
    }
    global_access(w, i, at, part[0], bytes, how, p);
    shared_access(w, i, at, part[ID_SHARED], bytes, how, p);
    local_access(w, i, at, part[ID_LOCAL], bytes, how, p);
    param_access(w, i, at, part[ID_PARAM], bytes, how, p);
}

/* Copying between memory and lanes. how of a load: 0 a 32-bit register, 1 a 64-bit, 2 a 16-bit one; | 4 sign extends, | 8 .nc */
static void load_element(Warp *w, const Ins *i, uint32_t ref, uint8_t *const p[LANES], uint32_t offset)
{
    Lane32 *d = snE_out32(w, ref);
    Lane64 *q = snE_out64(w, ref);
    EACH_LANE(w->active, l) {
        uint64_t v = 0;
        if (p[l])
            memcpy(&v, p[l] + offset, i->bytes);
        if (i->how & 4)
            v = i->bytes == 1 ? (uint64_t)(int8_t)v : i->bytes == 2 ? (uint64_t)(int16_t)v : i->bytes == 4 ? (uint64_t)(int32_t)v : v;
        if (i->how & 1)
            q[l] = v;
        else
            d[l] = i->how & 2 ? (uint16_t)v : (uint32_t)v;
    }
}

static const Ins *run_ld(Warp *w, const Ins *i)
{
    uint64_t at[LANES];
    uint8_t *p[LANES];
    addresses(w, i, 0, i->more[i->count], at);
    resolve(w, i, at, (uint32_t)i->bytes * i->count, READS, p);
    if (i->bytes == 4 && !(i->how & 7) && w->active == FULL_WARP && !w->block->nreports)
        for (uint32_t k = 0; k < i->count; k++) {
            Lane32 *d = snE_out32(w, i->more[k]);
            for (int l = 0; l < LANES; l++)
                d[l] = *(const Lane32 *)(p[l] + 4 * k);
        }
    else
        for (uint32_t k = 0; k < i->count; k++)
            load_element(w, i, i->more[k], p, k * i->bytes);
    return i + 1;
}

static const Ins *run_st(Warp *w, const Ins *i)
{
    uint64_t at[LANES];
    uint8_t *p[LANES];
    addresses(w, i, 0, i->more[0], at);
    resolve(w, i, at, (uint32_t)i->bytes * i->count, WRITES, p);
    for (uint32_t k = 0; k < i->count; k++) {
        uint32_t ref = i->more[1 + k];
        bool wide = i->how >> k & 1;
        const Lane32 *s = snE_in32(w, ref);
        const Lane64 *q = snE_in64(w, ref);
        EACH_LANE(w->active, l) {
            uint64_t v = wide ? q[l] : s[l];
            if (!p[l])
                continue;
            if (i->bytes == 4)
                *(Lane32 *)(p[l] + 4 * k) = (uint32_t)v;
            else
                memcpy(p[l] + k * i->bytes, &v, i->bytes);
        }
    }
    return i + 1;
}

bool snE_is_load(const Ins *i) { return i->run == run_ld; }
bool snE_is_store(const Ins *i) { return i->run == run_st; }

static int space_of(const char *op)
{
    return snE_has(op, ".global") || snE_has(op, ".const") ? SPACE_GLOBAL : snE_has(op, ".shared") || snE_has(op, ".shared::cta") ? SPACE_SHARED
           : snE_has(op, ".local") ? SPACE_LOCAL : snE_has(op, ".param") ? SPACE_PARAM : SPACE_GENERIC;
}

static void decode_memory(Decoding *d)
{
    EmuType t = snE_type(d->op, 0);
    d->ins->space |= (uint8_t)space_of(d->op);
    d->ins->bytes = t.bits / 8;
    if (!d->ins->count)
        d->ins->count = 1;
    if (d->ins->bytes * d->ins->count > 32)
        d->wrong = "more than 32 bytes at once";
}

static void decode_ld(Decoding *d)
{
    decode_memory(d);
    d->ins->how = (uint8_t)((d->bits[0] == 64 ? 1 : d->bits[0] == 16 ? 2 : 0) | (snE_type(d->op, 0).kind == 's' ? 4 : 0) | (snE_has(d->op, ".nc") ? 8 : 0));
    for (int k = 1; k < d->ins->count; k++)
        if (d->bits[k] != d->bits[0])
            d->wrong = "the registers of a vector have one size";
}

static void decode_st(Decoding *d)
{
    decode_memory(d);
    for (int k = 1; k < d->nrefs; k++)           /* constants are as wide as the type */
        if (d->bits[k] == 64 || (!d->bits[k] && d->ins->bytes == 8))
            d->ins->how |= (uint8_t)(1 << (k - 1));
}

/* S_COPY of emu_decode.c */
const Ins *snE_run_copy(Warp *w, const Ins *i)
{
    Block *b = w->block;
    size_t size = b->launch->k->local;
    EACH_LANE(w->active, l) {
        size_t frame = size * ((size_t)w->id * LANES + l);
        memcpy(b->local + frame + i->imm, b->local + frame + i->imm2, i->r[0]);
        memcpy(b->local_written + frame + i->imm, b->local_written + frame + i->imm2, i->r[0]);
    }
    return i + 1;
}

/* -- Atomics: lane after lane ------------------------------------------------------------------------------------------ */

enum { A_ADD, A_MIN, A_MAX, A_AND, A_OR, A_XOR, A_EXCH, A_CAS, A_INC, A_DEC };

static float bf16_value(uint32_t v) { return snE_float(v << 16); }

static double float_value(uint64_t v, int kind, int bits)
{
    return bits == 64 ? snE_double(v) : bits == 32 ? (double)snE_float((uint32_t)v) : kind == 'h' ? (double)bf16_value((uint32_t)v) : (double)snE_half((uint32_t)v);
}

static uint64_t float_result(uint64_t a, uint64_t b, int op, int kind, int bits)
{
    double x = float_value(a, kind, bits), y = float_value(b, kind, bits);
    if (op == A_ADD && bits == 64)
        return snE_bits64(x + y);
    if (op == A_ADD && bits == 32)
        return snE_bits((float)x + (float)y);
    if (op == A_ADD)
        return snE_round16((float)x + (float)y, kind == 'h');
    bool first = x != x ? false : y != y ? true : op == A_MIN ? x < y || (x == y && a >> (bits - 1)) : x > y || (x == y && !(a >> (bits - 1)));
    return first ? a : b;
}

static uint64_t atomic_result(uint64_t a, uint64_t b, uint64_t c, int op, EmuType t)
{
    uint64_t sign = 1ull << (t.bits - 1), flip = t.kind == 's' ? sign : 0;
    switch (op) {
    case A_ADD: return a + b;
    case A_MIN: return (a ^ flip) < (b ^ flip) ? a : b;
    case A_MAX: return (a ^ flip) > (b ^ flip) ? a : b;
    case A_AND: return a & b;
    case A_OR: return a | b;
    case A_XOR: return a ^ b;
    case A_EXCH: return b;
    case A_CAS: return a == b ? c : a;
    case A_INC: return a >= b ? 0 : a + 1;
    default: return a == 0 || a > b ? b : a - 1;
    }
}

/* how: the operation; count: the kind of the type, high bit: two halves */
const Ins *snE_run_atom(Warp *w, const Ins *i)
{
    uint64_t at[LANES];
    uint8_t *p[LANES];
    EmuType t = { (char)(i->count & 0x7f), (uint8_t)(i->bytes * 8), (i->count & 0x80) != 0 };
    addresses(w, i, 0, i->more[1], at);
    resolve(w, i, at, i->bytes, READS_WRITES, p);
    bool wide = i->bytes == 8, real = t.kind == 'f' || t.kind == 'h';
    EACH_LANE(w->active, l) {
        uint64_t old = 0, b = wide ? snE_in64(w, i->more[2])[l] : snE_in32(w, i->more[2])[l], c = 0, v;
        if (i->how == A_CAS)
            c = wide ? snE_in64(w, i->more[3])[l] : snE_in32(w, i->more[3])[l];
        if (p[l])
            memcpy(&old, p[l], i->bytes);
        if (t.twice)
            v = float_result(old & 0xffff, b & 0xffff, i->how, t.kind, 16) | float_result(old >> 16, b >> 16, i->how, t.kind, 16) << 16;
        else
            v = real && i->how < A_AND ? float_result(old, b, i->how, t.kind, t.bits) : atomic_result(old, b, c, i->how, t);
        if (p[l])
            memcpy(p[l], &v, i->bytes);
        if (i->more[0] != UINT32_MAX) {
            if (wide)
                snE_out64(w, i->more[0])[l] = old;
            else
                snE_out32(w, i->more[0])[l] = (uint32_t)old;
        }
    }
    return i + 1;
}

static void decode_atom(Decoding *d)
{
    static const struct { const char *name; uint8_t op; } ops[] = { { ".add", A_ADD }, { ".min", A_MIN }, { ".max", A_MAX }, { ".and", A_AND }, { ".or", A_OR },
        { ".xor", A_XOR }, { ".exch", A_EXCH }, { ".cas", A_CAS }, { ".inc", A_INC }, { ".dec", A_DEC } };
    EmuType t = snE_type(d->op, 0);
    decode_memory(d);
    for (unsigned k = 0; k < sizeof ops / sizeof *ops; k++)
        if (snE_has(d->op, ops[k].name))
            d->ins->how = ops[k].op;
    d->ins->count = (uint8_t)(t.kind | (t.twice ? 0x80 : 0));
    if ((d->ins->space & 0x3f) == SPACE_PARAM || (d->ins->space & 0x3f) == SPACE_LOCAL)
        d->wrong = "atomics are on global or shared memory";
}

/* -- cp.async: the bytes come at once, the marks say when ---------------------------------------------------------------- */

static Copy *new_copy(Warp *w, uint32_t bytes)
{
    if (w->ncopies == w->capcopies) {
        int cap = w->capcopies ? 2 * w->capcopies : 32;
        Copy *more = realloc(w->copies, (size_t)cap * sizeof *more);
        if (!more)
            return NULL;
        w->copies = more;
        w->capcopies = cap;
    }
    Copy *c = &w->copies[w->ncopies++];
    c->mask = 0;
    c->bytes = bytes;
    return c;
}

const Ins *snE_run_cp_async(Warp *w, const Ins *i)
{
    uint64_t to[LANES], from[LANES];
    uint8_t *p[LANES] = {0}, *q[LANES] = {0};
    uint32_t full = 0, active = w->active;
    const Lane32 *size = i->more[2] == UINT32_MAX ? NULL : snE_in32(w, i->more[2]);
    Copy *c = new_copy(w, i->bytes);
    if (!c) {
        snE_fault(w, i, -1, EMU_TRAP, "out of memory for copies under way");
        return i + 1;
    }
    addresses(w, i, 0, i->more[0], to);
    addresses(w, i, 1, i->more[1], from);
    EACH_LANE(active, l) {
        uint32_t n = size ? size[l] : i->bytes;
        p[l] = shared_lane(w, i, (int)l, to[l], i->bytes, WRITES_LATER);
        if (n > i->bytes)
            snE_fault(w, i, (int)l, EMU_BOUNDS, "cp.async takes %u of %u bytes", n, i->bytes);
        else if (n == i->bytes)
            full |= 1u << l;
        else if (from[l] & (i->bytes - 1u))
            snE_fault(w, i, (int)l, EMU_MISALIGNED, "cp.async of %u bytes from an address that is not aligned to them", i->bytes);
        else
            for (uint32_t k = 0; k < n; k++) {   /* a part of them: byte by byte */
                uint64_t at[LANES];
                at[l] = from[l] + k;
                global_access(w, i, at, 1u << l, 1, READS, q);
                if (p[l])
                    p[l][k] = q[l] ? *q[l] : 0;
            }
        if (p[l] && n < i->bytes)
            memset(p[l] + n, 0, i->bytes - n);
        c->at[l] = (uint32_t)to[l];
        c->group[l] = w->commits[l];
        c->mask |= p[l] ? 1u << l : 0;
    }
    global_access(w, i, from, full, i->bytes, READS, q);
    EACH_LANE(full, l)
        if (p[l] && q[l])
            memcpy(p[l], q[l], i->bytes);
    return i + 1;
}

static const Ins *run_commit(Warp *w, const Ins *i)
{
    for (int l = 0; l < LANES; l++)
        w->commits[l] += w->active >> l & 1;
    return i + 1;
}

/* All but the last `keep` groups of each lane are there; what is not committed too when everything is waited for. */
static void finish_copies(Warp *w, uint32_t keep, bool everything)
{
    Block *b = w->block;
    int left = 0;
    for (int k = 0; k < w->ncopies; k++) {
        Copy *c = &w->copies[k];
        EACH_LANE(c->mask & w->active, l) {
            uint32_t thread = (uint32_t)w->id * LANES + l;
            if (!everything && (uint64_t)c->group[l] + keep >= w->commits[l])
                continue;
            for (uint32_t at = c->at[l]; at < c->at[l] + c->bytes; at += 4)
                if (b->word[at / 4].write == (MARK_ASYNC | thread))
                    b->word[at / 4].write = w->seen[w->id] << THREAD_BITS | thread;
            c->mask &= ~(1u << l);
        }
        if (c->mask)
            w->copies[left++] = *c;
    }
    w->ncopies = left;
}

static const Ins *run_wait_group(Warp *w, const Ins *i)
{
    finish_copies(w, i->bytes, false);
    return i + 1;
}

static const Ins *run_wait_all(Warp *w, const Ins *i)
{
    finish_copies(w, 0, true);
    return i + 1;
}

static void decode_cp_async(Decoding *d)
{
    if (d->ins->bytes != 4 && d->ins->bytes != 8 && d->ins->bytes != 16)
        d->wrong = "cp.async copies 4, 8 or 16 bytes";
    else if (snE_has(d->op, ".cg") && d->ins->bytes != 16)
        d->wrong = "cp.async.cg copies 16 bytes";
}

/* -- Rows -------------------------------------------------------------------------------------------------------------- */

#define ORDER "(.weak|.volatile|.relaxed|.acquire|.release|.mmio|)(.cta|.gpu|.sys|.cluster|)"
#define EVICT "(.L1::evict_normal|.L1::evict_unchanged|.L1::evict_first|.L1::evict_last|.L1::no_allocate|)(.L2::64B|.L2::128B|.L2::256B|)"
#define HINTS "(.ca|.cg|.cs|.lu|.cv|.wb|.wt|)(.nc|)" EVICT
#define ANY_TYPE "(b8|u8|s8|b16|u16|s16|b32|u32|s32|f32|b64|u64|s64|f64)"

#define ATOMIC(name, operands, what)                                                                                                   \
    { name "(.relaxed|.acquire|.release|.acq_rel|)(.cta|.gpu|.sys|.cluster|)(.global|.shared|.shared::cta|)" what, operands,            \
      snE_run_atom, 0, decode_atom }

static const Ins *run_nothing(Warp *w, const Ins *i)
{
    (void)w;
    return i + 1;
}

const Row snE_memory_rows[] = {
    { "ld" ORDER "(.const|.global|.local|.param|.shared|.shared::cta|)" HINTS "(.v2|.v4|.v8|)." ANY_TYPE, "*X[", run_ld, 0, decode_ld },
    { "ldu(.global|)(.v2|.v4|)." ANY_TYPE, "*X[", run_ld, 0, decode_ld },
    { "st" ORDER "(.global|.local|.param|.shared|.shared::cta|)" HINTS "(.v2|.v4|.v8|)." ANY_TYPE, "[*x", run_st, 0, decode_st },
    ATOMIC("atom", "T[t", "(.and|.or|.xor|.exch).(b32|b64)"),
    ATOMIC("atom", "T[tt", ".cas.(b16|b32|b64)"),
    ATOMIC("atom", "T[t", "(.add|.min|.max|.inc|.dec).(u32|s32|u64|s64)"),
    ATOMIC("atom", "T[t", ".add.(f32|f64)"),
    ATOMIC("atom", "T[t", ".add.noftz.(f16|bf16|f16x2|bf16x2)"),
    ATOMIC("red", "-[t", "(.and|.or|.xor).(b32|b64)"),
    ATOMIC("red", "-[t", "(.add|.min|.max|.inc|.dec).(u32|s32|u64|s64)"),
    ATOMIC("red", "-[t", ".add.(f32|f64)"),
    ATOMIC("red", "-[t", ".add.noftz.(f16|bf16|f16x2|bf16x2)"),
    { "cp.async(.ca|.cg).shared(::cta|).global(.L2::64B|.L2::128B|.L2::256B|)", "[[i~w", snE_run_cp_async, 0, decode_cp_async },
    { "cp.async.commit_group", "", run_commit, 0, NULL },
    { "cp.async.wait_group", "i", run_wait_group, 0, NULL },
    { "cp.async.wait_all", "", run_wait_all, 0, NULL },
    { "prefetch(.global|.local|)(.L1|.L2|.L2::evict_last|.L2::evict_normal)", "[", run_nothing, 0, NULL },
    { "prefetchu.L1", "[", run_nothing, 0, NULL },
};
const int snE_nmemory_rows = sizeof snE_memory_rows / sizeof *snE_memory_rows;
