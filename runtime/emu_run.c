/* emu_run.c: launches: blocks over the pool, warps in turn, lanes in step; barriers and reports.

   A warp runs as one as long as its lanes agree on branches. When they part, each set of lanes is a fragment with a place in the code,
   and the one whose place is lowest runs, until it meets another at the same place and they are one again: sets meet where the code
   joins, whatever made them part. Instructions that need lanes together (barriers, shuffles, mma) park a fragment until all
   lanes they name have come; when everyone is parked or the rest has left, that is a report and not a hang.

   Warps of a block take turns of some thousand instructions, always in the same order; blocks share nothing but global memory. So
   everything a launch computes and reports is the same for any number of threads. */
#include "runtime/emu_in.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURN = 1 << 14, GRACE = 64 };

typedef struct Launch {
    LaunchState s;
    pthread_mutex_t lock;
    EmuReport *report;
    int nreports;
    _Atomic int64_t last_useful;     /* blocks behind it cannot add a report any more */
    _Atomic bool no_memory;
    _Atomic uint64_t executed;
} Launch;

uint64_t snE_address(int range, uint32_t skew) { return snE_middle(ID_RANGE + range) + skew; }
uint64_t snE_executed(const EmuModule *m) { return m->executed; }

/* -- Reports ----------------------------------------------------------------------------------------------------------- */

void snE_fault(Warp *w, const Ins *i, int lane, EmuKind kind, const char *fmt, ...)
{
    Block *b = w->block;
    char what[160], line[64];
    va_list ap;
    for (int k = 0; k < b->nreports; k++)
        if (b->report[k].line == i->line && b->report[k].kind == kind)
            return;
    if (b->stop)
        return;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    EmuReport *r = &b->report[b->nreports++];
    *r = (EmuReport){ kind, i->line, w->id * LANES + (lane < 0 ? 0 : lane), b->index, "" };
    snE_line_text(b->launch->m, i->line, line, sizeof line - 16);
    int n = snprintf(r->text, sizeof r->text, "kernel %.60s, PTX line %d `%s`, block %lld, ", b->launch->k->name, i->line, line, (long long)b->index);
    if (lane < 0)
        n += snprintf(r->text + n, sizeof r->text - (size_t)n, "warp %d: ", w->id);
    else
        n += snprintf(r->text + n, sizeof r->text - (size_t)n, "thread %d: ", w->id * LANES + lane);
    snprintf(r->text + n, sizeof r->text - (size_t)n, "%s", what);
    if (b->nreports >= b->launch->most || kind >= EMU_BARRIER) {     /* after those there is no sensible way on */
        b->stop = true;
        w->left = 0;
    }
}

/* Reports of a block into the launch's: sorted by block, one per line and kind, the lowest ones. */
static void merge_reports(Launch *l, Block *b)
{
    pthread_mutex_lock(&l->lock);
    for (int k = 0; k < b->nreports; k++) {
        const EmuReport *r = &b->report[k];
        int at = 0, same = -1;
        for (int j = 0; j < l->nreports; j++)
            if (l->report[j].line == r->line && l->report[j].kind == r->kind)
                same = j;
        if (same >= 0 && l->report[same].block <= r->block)
            continue;
        if (same >= 0)
            memmove(l->report + same, l->report + same + 1, (size_t)(--l->nreports - same) * sizeof *r);
        while (at < l->nreports && l->report[at].block <= r->block)
            at++;
        if (at >= l->s.most)
            continue;
        if (l->nreports == l->s.most)
            l->nreports--;
        memmove(l->report + at + 1, l->report + at, (size_t)(l->nreports - at) * sizeof *r);
        l->report[at] = *r;
        l->nreports++;
    }
    if (l->nreports == l->s.most)
        l->last_useful = l->report[l->nreports - 1].block;
    pthread_mutex_unlock(&l->lock);
}

/* -- Lanes that part and meet ------------------------------------------------------------------------------------------ */

void snE_set_active(Warp *w, uint32_t mask)
{
    if (mask == w->active)
        return;
    w->active = mask;
    for (int l = 0; l < LANES; l++)
        w->on[l] = -(int32_t)(mask >> l & 1);
}

static uint32_t pc_of(const Warp *w, const Ins *i) { return (uint32_t)(i - w->block->launch->k->code); }

static void put_away(Warp *w, uint32_t mask, uint32_t pc, bool parked, uint32_t need)
{
    for (int k = 0; k < w->nother; k++)
        if (w->other[k].pc == pc && w->other[k].parked == parked && !parked) {
            w->other[k].mask |= mask;
            return;
        }
    w->other[w->nother++] = (Fragment){ mask, pc, need, parked };
}

static const Ins *resume(Warp *w, int k)
{
    Fragment f = w->other[k];
    w->other[k] = w->other[--w->nother];
    snE_set_active(w, f.mask);
    return w->block->launch->k->code + f.pc;
}

/* Everyone who has not left is parked, and no one has all it needs. */
static const Ins *stuck(Warp *w)
{
    int first = 0;
    uint32_t all = 0;
    for (int k = 0; k < w->nother; k++) {
        all |= w->other[k].mask;
        if (w->other[k].pc < w->other[first].pc)
            first = k;
    }
    const Fragment *f = &w->other[first];
    const Ins *code = w->block->launch->k->code;
    const Fragment *g = &w->other[first ? 0 : w->nother > 1 ? 1 : 0];
    uint32_t missing = f->need & ~f->mask;
    int lane = __builtin_ctz(f->mask), lacks = missing ? __builtin_ctz(missing) : 0;
    if (w->nother > 1)
        snE_fault(w, code + f->pc, lane, EMU_CONVERGENCE, "waits for thread %d of its warp, which waits in line %d: the warp has diverged",
                  w->id * LANES + lacks, code[g->pc].line);
    else
        snE_fault(w, code + f->pc, lane, EMU_CONVERGENCE, "waits for thread %d of its warp, which does not come: the warp has diverged",
                  w->id * LANES + lacks);
    w->block->stop = true;
    w->left = 0;
    w->at = code + f->pc;
    return NULL;
}

const Ins *snE_schedule(Warp *w)
{
    int best = -1;
    for (int k = 0; k < w->nother; k++) {
        const Fragment *f = &w->other[k];
        bool ready = !f->parked || !(f->need & w->alive & ~f->mask);
        if (ready && (best < 0 || f->pc < w->other[best].pc))
            best = k;
    }
    if (best >= 0)
        return resume(w, best);
    if (w->nother)
        return stuck(w);
    w->state = WARP_DONE;
    return NULL;
}

/* Lanes that wait at this very place join the active ones. */
static void meet(Warp *w, const Ins *i)
{
    uint32_t pc = pc_of(w, i), mask = w->active;
    for (int k = 0; k < w->nother; )
        if (w->other[k].pc == pc) {
            mask |= w->other[k].mask;
            w->other[k] = w->other[--w->nother];
        } else
            k++;
    snE_set_active(w, mask);
}

static const Ins *lowest(Warp *w, const Ins *i)
{
    if (w->grace > 0) {
        w->grace--;
        return i;
    }
    put_away(w, w->active, pc_of(w, i), false, 0);
    return snE_schedule(w);
}

/* Lanes that spin for what others of their warp have to do must not keep them from it: at the end of a turn, others have theirs. */
static const Ins *take_turns(Warp *w, const Ins *i)
{
    put_away(w, w->active, pc_of(w, i), false, 0);
    for (int k = 0; k < w->nother; k++) {
        int f = (int)(w->turns++ % (uint32_t)w->nother);
        if (!w->other[f].parked) {
            w->grace = GRACE;
            return resume(w, f);
        }
    }
    return snE_schedule(w);
}

bool snE_together(Warp *w, const Ins *i, uint32_t need, const Ins **next)
{
    if (w->nother)
        meet(w, i);
    if (!(need & w->alive & ~w->active))
        return true;
    put_away(w, w->active, pc_of(w, i), true, need);
    *next = snE_schedule(w);
    return false;
}

const Ins *snE_run_label(Warp *w, const Ins *i)
{
    if (w->nother) {
        const Ins *next = lowest(w, i);
        if (next != i)
            return next;
        if (!w->grace)
            meet(w, i);
    }
    return i + 1;
}

const Ins *snE_run_branch(Warp *w, const Ins *i)
{
    uint32_t p = i->how ? *snE_in32(w, i->r[0]) : 0xffffffff, taken = (i->how == 2 ? ~p : p) & w->active;
    const Ins *target = i + i->imm;
    if (taken == w->active)
        return w->nother ? lowest(w, target) : target;
    if (!taken)
        return w->nother ? lowest(w, i + 1) : i + 1;
    put_away(w, taken, pc_of(w, target), false, 0);
    snE_set_active(w, w->active & ~taken);
    return lowest(w, i + 1);
}

const Ins *snE_run_exit(Warp *w, const Ins *i)
{
    (void)i;
    w->alive &= ~w->active;
    return snE_schedule(w);
}

const Ins *snE_run_written(Warp *w, const Ins *i)
{
    w->written[i->imm] |= w->active;
    return i + 1;
}

const Ins *snE_run_check(Warp *w, const Ins *i)
{
    uint32_t bad = w->active & ~w->written[i->imm];
    if (bad) {
        snE_fault(w, i, __builtin_ctz(bad), EMU_REGISTER, "reads the register %s, which this thread has not written", w->block->launch->k->checked[i->imm]);
        w->written[i->imm] |= bad;
    }
    return i + 1;
}

/* -- Barriers of the block --------------------------------------------------------------------------------------------- */

void snE_synced(Warp *w)
{
    if (w->seen[w->id] < (MARK_ASYNC >> THREAD_BITS) - 1)
        w->seen[w->id]++;
}

static void find_old(Block *b, Warp *w)
{
    uint32_t least = UINT32_MAX;
    for (int v = 0; v < b->nwarps; v++)
        least = w->seen[v] < least ? w->seen[v] : least;
    w->old = least << THREAD_BITS;
}

/* Those who waited have seen what everyone who came did before. */
static void join_clocks(Block *b, uint32_t waiting, uint32_t came)
{
    uint32_t all[MAX_WARPS] = {0};
    for (int v = 0; v < b->nwarps; v++)
        if (came >> v & 1) {
            snE_synced(&b->warp[v]);
            for (int k = 0; k < b->nwarps; k++)
                if (b->warp[v].seen[k] > all[k])
                    all[k] = b->warp[v].seen[k];
        }
    for (int v = 0; v < b->nwarps; v++)
        if (waiting >> v & 1) {
            uint32_t own = b->warp[v].seen[v];
            memcpy(b->warp[v].seen, all, sizeof all);
            b->warp[v].seen[v] = own;
            find_old(b, &b->warp[v]);
        }
}

/* bar.red: how 1 popc, 2 and, 3 or; r[0] result, r[2] predicate */
static void reduce_barrier(Block *b, const Barrier *bar)
{
    uint32_t count = 0, all = 1, any = 0;
    for (int v = 0; v < b->nwarps; v++)
        if (bar->waiting >> v & 1) {
            Warp *w = &b->warp[v];
            uint32_t p = *snE_in32(w, w->at[-1].r[2]) & w->alive;
            count += (uint32_t)__builtin_popcount(p);
            all &= p == w->alive;
            any |= p != 0;
        }
    for (int v = 0; v < b->nwarps; v++)
        if (bar->waiting >> v & 1) {
            Warp *w = &b->warp[v];
            const Ins *i = w->at - 1;
            if (i->how == 1) {
                Lane32 *d = snE_out32(w, i->r[0]);
                EACH_LANE(w->active, l) d[l] = count;
            } else
                snE_set_pred(w, i->r[0], (i->how == 2 ? all : any) ? 0xffffffff : 0);
        }
}

static bool try_release(Block *b, Barrier *bar)
{
    uint32_t running = 0, came = bar->waiting | bar->arrived;
    for (int v = 0; v < b->nwarps; v++)
        running |= b->warp[v].state == WARP_DONE ? 0 : 1u << v;
    if (!bar->waiting || (bar->count ? (uint32_t)__builtin_popcount(came) * LANES < bar->count : (running & ~came) != 0))
        return false;
    if (bar->first->how)
        reduce_barrier(b, bar);
    join_clocks(b, bar->waiting, bar->count ? came : (uint32_t)((1ull << b->nwarps) - 1));   /* who has left counts as come */
    for (int v = 0; v < b->nwarps; v++)
        if (bar->waiting >> v & 1)
            b->warp[v].state = WARP_RUNS;
    *bar = (Barrier){0};
    return true;
}

const Ins *snE_wait_barrier(Warp *w, const Ins *i, int id, uint32_t count, bool only_arrive)
{
    Block *b = w->block;
    Barrier *bar = &b->barrier[id];
    uint32_t me = 1u << w->id, came = bar->waiting | bar->arrived;
    if (count % LANES || count > (uint32_t)b->nwarps * LANES)
        snE_fault(w, i, -1, EMU_BARRIER, "barrier %d for %u threads, in a block of %d: a multiple of 32 and no more than those are needed", id, count, b->threads);
    else if (came && bar->count != count)
        snE_fault(w, i, -1, EMU_BARRIER, "barrier %d for %u threads; others came to it for %u, in line %d", id, count, bar->count, bar->first->line);
    else if (came && !count && bar->first != i)
        snE_fault(w, i, -1, EMU_BARRIER, "barrier %d: other warps of the block wait for it in line %d", id, bar->first->line);
    else if (came & me)
        snE_fault(w, i, -1, EMU_BARRIER, "barrier %d: the warp came to it twice before it was complete", id);
    else {
        if (!came) {
            bar->first = i;
            bar->count = count;
        }
        if (only_arrive)
            bar->arrived |= me;
        else {
            bar->waiting |= me;
            w->state = WARP_WAITS;
            w->barrier = id;
        }
        w->at = i + 1;
        if (only_arrive && !try_release(b, bar))
            return i + 1;
        if (!only_arrive)
            try_release(b, bar);
        return w->state == WARP_RUNS ? i + 1 : NULL;
    }
    w->at = i + 1;
    return NULL;
}

static void report_deadlock(Block *b)
{
    Warp *w = NULL;
    int waiting = 0;
    for (int v = b->nwarps - 1; v >= 0; v--)
        if (b->warp[v].state == WARP_WAITS) {
            w = &b->warp[v];
            waiting++;
        }
    const Barrier *bar = &b->barrier[w->barrier];
    snE_fault(w, w->at - 1, -1, EMU_DEADLOCK, "deadlock: %d warps wait; barrier %d needs %u threads, %d came, no one else will", waiting, w->barrier, bar->count,
              __builtin_popcount(bar->waiting | bar->arrived) * LANES);
    b->stop = true;
}

/* -- Blocks ------------------------------------------------------------------------------------------------------------ */

static uint32_t special_value(const Block *b, const Warp *w, int what, int lane)
{
    const LaunchState *s = b->launch;
    uint32_t t = (uint32_t)(w->id * LANES + lane), l = (uint32_t)lane;
    switch (what) {
    case SR_TID: return t % s->block[0];
    case SR_TID + 1: return t / s->block[0] % s->block[1];
    case SR_TID + 2: return t / s->block[0] / s->block[1];
    case SR_NTID: case SR_NTID + 1: case SR_NTID + 2: return s->block[what - SR_NTID];
    case SR_CTAID: case SR_CTAID + 1: case SR_CTAID + 2: return b->id[what - SR_CTAID];
    case SR_NCTAID: case SR_NCTAID + 1: case SR_NCTAID + 2: return s->grid[what - SR_NCTAID];
    case SR_LANEID: return l;
    case SR_WARPID: return (uint32_t)w->id;
    case SR_NWARPID: return (uint32_t)b->nwarps;
    case SR_LANEMASK: return 1u << l;
    case SR_LANEMASK + 1: return (1u << l) - 1;
    case SR_LANEMASK + 2: return (2u << l) - 1;
    case SR_LANEMASK + 3: return ~((2u << l) - 1);
    case SR_LANEMASK + 4: return ~((1u << l) - 1);
    case SR_DYNSMEM: return s->l->shared;
    case SR_TOTALSMEM: return b->shared_bytes;
    case SR_ONE: return 1;
    default: return 0;
    }
}

static bool resize(void **v, size_t *cap, size_t bytes)
{
    if (bytes <= *cap)
        return true;
    free(*v);
    *cap = 0;
    *v = snR_alloc(bytes);
    if (*v)
        *cap = bytes;
    return *v != NULL;
}

/* Memory for blocks of this launch: registers; shared memory with its marks; local memory with its flags. */
static bool prepare_block(Block *b, LaunchState *s)
{
    const EmuKernel *k = s->k;
    b->launch = s;
    b->threads = (int)(s->block[0] * s->block[1] * s->block[2]);
    b->nwarps = (b->threads + LANES - 1) / LANES;
    b->shared_bytes = k->shared + (k->shared && !k->open_shared ? 0 : s->l->shared);   /* what nothing names cannot be meant */
    size_t words = b->shared_bytes / 4 + 2, regs = k->reg_bytes + 4 * (size_t)k->nchecked + 255;
    regs = regs / 256 * 256;
    if (!b->warp)
        b->warp = calloc(MAX_WARPS, sizeof *b->warp);
    if (b->cap_reports < (size_t)s->most) {
        free(b->report);
        b->report = calloc((size_t)s->most, sizeof *b->report);
        b->cap_reports = b->report ? (size_t)s->most : 0;
    }
    void *shared = b->shared, *local = b->local, *registers = b->registers;
    bool good = b->warp && b->report && resize(&registers, &b->cap_registers, regs * (size_t)b->nwarps + 256) &&
                resize(&shared, &b->cap_shared, 4 * words + sizeof(Marks) * 5 * words) &&
                resize(&local, &b->cap_local, 2 * (size_t)k->local * (size_t)b->threads + 64);
    b->shared = shared, b->local = local, b->registers = registers;
    if (!good)
        return false;
    b->word = (Marks *)(b->shared + 4 * words);
    b->byte = b->word + words;
    b->local_written = b->local + (size_t)k->local * (size_t)b->threads;
    for (int v = 0; v < b->nwarps; v++) {
        Warp *w = &b->warp[v];
        w->block = b;
        w->id = v;
        w->base[0] = b->registers + regs * (size_t)v;
        w->base[1] = k->constants;
        w->written = (uint32_t *)(w->base[0] + k->reg_bytes);
        int lanes = b->threads - v * LANES;
        w->present = lanes >= LANES ? FULL_WARP : (1u << lanes) - 1;
    }
    return true;
}

static void start_warp(Block *b, Warp *w)
{
    const EmuKernel *k = b->launch->k;
    w->alive = w->present;
    w->active = ~w->present;
    snE_set_active(w, w->present);
    w->nother = w->ncopies = w->grace = 0;
    w->turns = 0;
    w->state = WARP_RUNS;
    w->at = k->code;
    for (int v = 0; v < MAX_WARPS; v++)
        w->seen[v] = 1;
    find_old(b, w);
    memset(w->commits, 0, sizeof w->commits);
    memset(w->written, 0, 4 * (size_t)k->nchecked);
    for (int n = 0; n < k->nspecial; n++) {
        Lane32 *at = snE_out32(w, k->special[n].at);
        for (int l = 0; l < LANES; l++)
            at[l] = special_value(b, w, k->special[n].what, l);
    }
}

static void run_warp(Block *b, Warp *w)
{
    const Ins *i = w->at;
    w->left = TURN;
    while (i && w->left-- > 0)
        i = i->run(w, i);
    if (i)
        w->at = w->nother ? take_turns(w, i) : i;
    b->instructions += (uint64_t)(TURN - (w->left < 0 ? 0 : w->left));
}

static void run_block(Block *b, int64_t index)
{
    LaunchState *s = b->launch;
    b->index = index;
    b->run = s->m->runs + (uint32_t)index + 1;
    b->id[0] = (uint32_t)(index % s->grid[0]);
    b->id[1] = (uint32_t)(index / s->grid[0] % s->grid[1]);
    b->id[2] = (uint32_t)(index / s->grid[0] / s->grid[1]);
    b->nreports = 0;
    b->stop = false;
    b->instructions = 0;
    memset(b->word, 0, sizeof(Marks) * (b->shared_bytes / 4 + 2));
    memset(b->local_written, 0, (size_t)s->k->local * (size_t)b->threads);
    memset(b->barrier, 0, sizeof b->barrier);
    for (int v = 0; v < b->nwarps; v++)
        start_warp(b, &b->warp[v]);
    for (bool ran = true; ran && !b->stop; ) {
        ran = false;
        int waits = 0;
        for (int v = 0; v < b->nwarps && !b->stop; v++) {
            Warp *w = &b->warp[v];
            if (w->state == WARP_RUNS) {
                run_warp(b, w);
                ran = true;
            }
            if (b->instructions > s->budget) {
                snE_fault(w, w->at, -1, EMU_ENDLESS, "endless: more than %llu instructions of warps in this block", (unsigned long long)s->budget);
                b->stop = true;
            }
        }
        for (int k = 0; k < NBARRIERS && !b->stop; k++)
            if (b->barrier[k].waiting && try_release(b, &b->barrier[k]))
                ran = true;
        for (int v = 0; v < b->nwarps; v++)
            waits += b->warp[v].state == WARP_WAITS;
        if (!ran && waits && !b->stop)
            report_deadlock(b);
    }
}

/* -- Launches ---------------------------------------------------------------------------------------------------------- */

static void run_blocks(void *arg, int worker, int64_t begin, int64_t end)
{
    Launch *l = arg;
    Block *b = &l->s.m->worker[worker];
    if (!prepare_block(b, &l->s)) {
        l->no_memory = true;
        return;
    }
    for (int64_t k = begin; k < end; k++) {
        if (k > l->last_useful)
            break;
        run_block(b, k);
        l->executed += b->instructions;
        if (b->nreports)
            merge_reports(l, b);
    }
}

void snE_free_block(Block *b)
{
    for (int v = 0; b->warp && v < MAX_WARPS; v++)
        free(b->warp[v].copies);
    free(b->warp);
    free(b->report);
    free(b->registers);
    free(b->shared);
    free(b->local);
}

static const EmuKernel *find_kernel(const EmuModule *m, const char *name)
{
    for (int k = 0; k < m->nkernels; k++)
        if (!strcmp(m->kernel[k].name, name))
            return &m->kernel[k];
    return NULL;
}

static int check_launch(EmuModule *m, const EmuLaunch *l, LaunchState *s, char err[ERR_TEXT])
{
    if (!(s->k = find_kernel(m, l->kernel)))
        return snR_fail(err, ERR_PROGRAM, "there is no kernel '%s' in the PTX text", l->kernel);
    uint64_t blocks = 1, threads = 1;
    for (int d = 0; d < 3; d++) {
        s->grid[d] = l->grid[d] ? l->grid[d] : 1;
        s->block[d] = l->block[d] ? l->block[d] : 1;
        blocks = blocks > INT32_MAX ? blocks : blocks * s->grid[d];
        threads = threads > INT32_MAX ? threads : threads * s->block[d];
        if (s->k->required[d] && s->k->required[d] != s->block[d])
            return snR_fail(err, ERR_PROGRAM, "kernel '%s' asks for blocks of %u x %u x %u threads (.reqntid)", l->kernel, s->k->required[0],
                            s->k->required[1] ? s->k->required[1] : 1, s->k->required[2] ? s->k->required[2] : 1);
    }
    if (s->k->most_threads && threads > s->k->most_threads)
        return snR_fail(err, ERR_PROGRAM, "kernel '%s': blocks of %llu threads; it says at most %llu (.maxntid)", l->kernel, (unsigned long long)threads,
                        (unsigned long long)s->k->most_threads);
    if (threads > MAX_WARPS * LANES || blocks > INT32_MAX)
        return snR_fail(err, ERR_PROGRAM, "kernel '%s': blocks of %llu threads, %llu of them: at most %d threads, 2^31 - 1 blocks", l->kernel,
                        (unsigned long long)threads, (unsigned long long)blocks, MAX_WARPS * LANES);
    if (l->nparams != s->k->nparams)
        return snR_fail(err, ERR_PROGRAM, "kernel '%s' has %d parameters, %d are given", l->kernel, s->k->nparams, l->nparams);
    if ((uint64_t)s->k->shared + l->shared > MAX_SHARED)
        return snR_fail(err, ERR_PROGRAM, "kernel '%s': %u and %u bytes of shared memory, more than %d", l->kernel, s->k->shared, l->shared, MAX_SHARED);
    return 0;
}

static int run_launch(EmuModule *m, Launch *l, Pool *pool, int threads, char err[ERR_TEXT])
{
    if (m->nworkers < threads) {
        Block *more = realloc(m->worker, (size_t)threads * sizeof *more);
        if (!more)
            return snR_fail(err, ERR_NOMEM, "out of memory");
        memset(more + m->nworkers, 0, (size_t)(threads - m->nworkers) * sizeof *more);
        m->worker = more;
        m->nworkers = threads;
    }
    int64_t n = (int64_t)l->s.grid[0] * l->s.grid[1] * l->s.grid[2];
    if (pool && !l->s.k->ordered && !l->s.l->compare_blocks)
        snR_pool_run(pool, n, run_blocks, l);
    else
        run_blocks(l, 0, 0, n);
    m->executed += l->executed;
    m->runs += (uint32_t)n;
    return l->no_memory ? snR_fail(err, ERR_NOMEM, "out of memory for the blocks of kernel '%s'", l->s.k->name) : l->nreports;
}

int snE_launch(EmuModule *m, const EmuLaunch *l, Pool *pool, EmuReport *out, char err[ERR_TEXT])
{
    Launch s = { .s = { .m = m, .l = l, .most = l->most > 0 ? l->most : 1, .budget = l->budget ? l->budget : 1u << 28, .multiply = snE_multiply() }, .report = out };
    int rc = check_launch(m, l, &s.s, err);
    if (rc)
        return rc;
    uint8_t *params = calloc(1, s.s.k->param_bytes + 16);
    EmuReport *reports = calloc((size_t)s.s.most + 1, sizeof *reports);
    if (!params || !reports) {
        free(params), free(reports);
        return snR_fail(err, ERR_NOMEM, "out of memory");
    }
    for (int k = 0; k < l->nparams; k++)
        memcpy(params + s.s.k->params[k].offset, l->params[k], s.s.k->params[k].bytes);
    s.s.params = params;
    s.report = reports;
    s.last_useful = INT64_MAX;
    pthread_mutex_init(&s.lock, NULL);
    rc = run_launch(m, &s, pool, pool ? snR_pool_threads(pool) : 1, err);
    pthread_mutex_destroy(&s.lock);
    if (rc > 0)
        memcpy(out, reports, (size_t)rc * sizeof *out);
    free(params);
    free(reports);
    return rc;
}

int snE_parameters(const EmuModule *m, const char *kernel)
{
    const EmuKernel *k = find_kernel(m, kernel);
    return k ? k->nparams : -1;
}

bool snE_only_stores(const EmuModule *m, const char *kernel, int param)
{
    const EmuKernel *k = find_kernel(m, kernel);
    return k && param < 64 && k->stored >> param & 1 && !(k->loaded >> param & 1);
}

/* -- Modules ----------------------------------------------------------------------------------------------------------- */

EmuModule *snE_load(const char *text, size_t n, char err[ERR_TEXT])
{
    EmuModule *m = calloc(1, sizeof *m);
    while (n && !text[n - 1])                    /* a text with its closing 0 */
        n--;
    if (!m || !(m->text = malloc(n + 1)) || n > (1u << 30)) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        if (m)
            free(m->text);
        free(m);
        return NULL;
    }
    memcpy(m->text, text, n);
    m->text[n] = 0;
    m->n = n;
    if (!snE_parse(m, err))
        return m;
    snE_free(m);
    return NULL;
}

void snE_free(EmuModule *m)
{
    if (!m)
        return;
    for (int k = 0; k < m->nkernels; k++) {
        EmuKernel *e = &m->kernel[k];
        for (uint32_t c = 0; e->checked && c < e->nchecked; c++)
            free(e->checked[c]);
        free(e->name), free(e->code), free(e->more), free(e->constants), free(e->params), free(e->special), free(e->checked);
    }
    for (int k = 0; k < m->nworkers; k++)
        snE_free_block(&m->worker[k]);
    free(m->worker);
    free(m->kernel);
    free(m->global), free(m->global_written), free(m->globals);
    free(m->text);
    free(m);
}
