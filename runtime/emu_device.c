/* emu_device.c: the device `emu`, or `emu:sm_NN` for a card of that generation: a program's PTX on the CPU, every access checked.

   In: a program whose target is ptx:sm_NN and whose code is PTX text. A kernel's parameters are its buffers' addresses in the order of the
   launch's args, seed low, seed high, step, micro as u32, and, where it takes one more, the address of scratch memory (scratch_bytes of
   every block, rounded up to 64). Out: a Device. Every buffer of a launch is a range of its own, so that accesses are checked against
   the bytes of the tensor and not of the arena; a buffer of the arena counts as unwritten when the kernel that computes it starts.

   The first report of a launch is its error. SN_EMU_REPORTS=n collects n of a launch and prints them to stderr; SN_EMU_BUDGET is the number
   of instructions of a block's warps after which it counts as endless. SN_EMU_BLOCKS=1 runs blocks one after the other and reports what
   two of them access in one launch and one of them writes. */
#define _GNU_SOURCE
#include "runtime/emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SYSTEM_PARAMS = 4, MAX_REPORTS = 1000 };

typedef struct Memory { uint8_t *host, *written; EmuMark *marks; EmuReaders *readers; size_t bytes; } Memory;

typedef struct Emu {
    Device base;
    const SnProgram *program;
    Pool *pool;
    EmuModule *module;
    uint64_t budget;
    int most;
    bool compare_blocks;
    EmuReport *report;
} Emu;

/* -- Memory ------------------------------------------------------------------------------------------------------------ */

static void emu_release(Device *d, void *mem)
{
    Memory *m = mem;
    (void)d;
    if (!m)
        return;
    free(m->host);
    free(m->written);
    free(m->marks);
    free(m->readers);
    free(m);
}

static void *emu_alloc(Device *d, size_t bytes, char err[ERR_TEXT])
{
    Memory *m = calloc(1, sizeof *m);
    bool compares = ((Emu *)d)->compare_blocks;
    if (m) {
        *m = (Memory){ snR_alloc(bytes), calloc(1, bytes + 1), calloc(bytes / 4 + 1, sizeof(EmuMark)), NULL, bytes };
        if (compares)
            m->readers = calloc(bytes / 4 + 1, sizeof(EmuReaders));
        if (m->host && m->written && m->marks && (m->readers || !compares))
            return m;
        emu_release(d, m);
    }
    snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes asked", bytes);
    return NULL;
}

static int emu_write(Device *d, void *mem, size_t at, const void *data, size_t bytes, char err[ERR_TEXT])
{
    Memory *m = mem;
    (void)d, (void)err;
    memcpy(m->host + at, data, bytes);
    memset(m->written + at, 1, bytes);
    return 0;
}

static int emu_read(Device *d, void *mem, size_t at, void *out, size_t bytes, char err[ERR_TEXT])
{
    Memory *m = mem;
    (void)d;
    const uint8_t *hole = memchr(m->written + at, 0, bytes);
    if (hole)
        return snR_fail(err, ERR_DEVICE, "emu: byte %zu of %zu of a result that is read has never been written", (size_t)(hole - m->written) - at, bytes);
    memcpy(out, m->host + at, bytes);
    return 0;
}

static int emu_poison(Device *d, void *mem, size_t bytes, char err[ERR_TEXT])
{
    Memory *m = mem;
    (void)d, (void)err;
    memset(m->host, 0xff, bytes);
    memset(m->written, 0, bytes);
    return 0;
}

/* -- Launches ---------------------------------------------------------------------------------------------------------- */

typedef struct Prepared {
    const SnGraphPlan *plan;
    EmuRange *range;                 /* of all launches: their buffers, then scratch */
    int64_t *fresh;                  /* per range: bytes to forget before the launch */
    Memory scratch;
} Prepared;

static size_t scratch_stride(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }
static size_t scratch_bytes(const SnKernelDesc *k) { return scratch_stride(k->scratch_bytes) * (size_t)k->grid; }

static void emu_discard(Device *d, void *prepared)
{
    Prepared *l = prepared;
    (void)d;
    free(l->range);
    free(l->fresh);
    free(l->scratch.host);
    free(l->scratch.written);
    free(l->scratch.marks);
    free(l);
}

static EmuRange buffer_range(const SnGraphPlan *g, int id, const Span *at)
{
    const Memory *m = at->mem;
    const SnBuffer *b = &g->buffers[id];
    uint8_t *host = m->host + at->at;
    bool followed = at->at % 4 == 0;             /* not a bf16 in the middle of a word */
    EmuRange r = { host, m->written + at->at, NULL, NULL, (size_t)b->bytes, (uint32_t)((uintptr_t)host & 255), b->t.name };
    r.marks = followed ? m->marks + at->at / 4 : NULL;
    r.readers = followed && m->readers ? m->readers + at->at / 4 : NULL;
    return r;
}

/* A buffer of the arena that no launch had before, and that the kernel only stores to: what lay there is forgotten, but not under other
   operands. One that is loaded from is a view of what others wrote. */
static bool forgets(const Emu *e, const SnGraphPlan *g, const SnLaunch *l, int k, const Span *buf, const bool *known)
{
    int id = l->args[k];
    if (g->buffers[id].kind != SN_BUF_ARENA || known[id] || !snE_only_stores(e->module, e->program->kernels[l->kernel].symbol, k))
        return false;
    for (int j = 0; j < l->nargs; j++) {
        int other = l->args[j];
        if (other != id && buf[other].mem == buf[id].mem && buf[other].at < buf[id].at + (size_t)g->buffers[id].bytes &&
            buf[id].at < buf[other].at + (size_t)g->buffers[other].bytes)
            return false;
    }
    return true;
}

static void *emu_prepare(Device *d, const SnGraphPlan *g, const Span *buf, char err[ERR_TEXT])
{
    Emu *e = (Emu *)d;
    Prepared *l = calloc(1, sizeof *l);
    bool *known = calloc((size_t)g->nbuffers + 1, sizeof *known);
    size_t n = 0, most = 0;
    for (int i = 0; i < g->nlaunches; i++) {
        const SnKernelDesc *k = &e->program->kernels[g->launches[i].kernel];
        n += (size_t)g->launches[i].nargs + 1;
        most = scratch_bytes(k) > most ? scratch_bytes(k) : most;
    }
    if (l) {
        l->plan = g;
        l->range = calloc(n + 1, sizeof *l->range);
        l->fresh = calloc(n + 1, sizeof *l->fresh);
        l->scratch = (Memory){ snR_alloc(most), calloc(1, most + 1), calloc(most / 4 + 1, sizeof(EmuMark)), NULL, most };
    }
    if (!l || !known || !l->range || !l->fresh || !l->scratch.host || !l->scratch.written || !l->scratch.marks) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        free(known);
        if (l)
            emu_discard(d, l);
        return NULL;
    }
    EmuRange *r = l->range;
    for (int i = 0; i < g->nlaunches; i++) {
        const SnLaunch *launch = &g->launches[i];
        for (int k = 0; k < launch->nargs; k++, r++) {
            *r = buffer_range(g, launch->args[k], &buf[launch->args[k]]);
            l->fresh[r - l->range] = forgets(e, g, launch, k, buf, known) ? (int64_t)r->bytes : 0;
        }
        for (int k = 0; k < launch->nargs; k++)
            known[launch->args[k]] = true;
        size_t bytes = scratch_bytes(&e->program->kernels[launch->kernel]);
        *r++ = (EmuRange){ l->scratch.host, l->scratch.written, l->scratch.marks, NULL, bytes, (uint32_t)((uintptr_t)l->scratch.host & 255), "scratch" };
    }
    free(known);
    return l;
}

static int report(Emu *e, int n, char err[ERR_TEXT])
{
    for (int i = 0; e->most > 1 && i < n; i++)
        fprintf(stderr, "emu: %s\n", e->report[i].text);   /* asked for by the variable */
    return snR_fail(err, ERR_DEVICE, "emu: %s", e->report[0].text);
}

static int launch(Emu *e, const Prepared *l, int index, EmuRange *range, const SnLaunchArgs *la, char err[ERR_TEXT])
{
    const SnLaunch *one = &l->plan->launches[index];
    const SnKernelDesc *k = &e->program->kernels[one->kernel];
    int n = one->nargs;
    const void *system[SYSTEM_PARAMS] = { &la->seed[0], &la->seed[1], &la->step, &la->micro };
    const void **param = calloc((size_t)n + SYSTEM_PARAMS + 1, sizeof *param);
    uint64_t *address = calloc((size_t)n + 1, sizeof *address);
    if (!param || !address) {
        free(param), free(address);
        return snR_fail(err, ERR_NOMEM, "out of memory");
    }
    for (int i = 0; i <= n; i++)
        address[i] = snE_address(i, range[i].skew);
    for (int i = 0; i < n; i++) {
        param[i] = &address[i];
        if (l->fresh[range - l->range + i])
            memset(range[i].written, 0, range[i].bytes);
    }
    memcpy(param + n, system, sizeof system);
    param[n + SYSTEM_PARAMS] = &address[n];
    if (range[n].bytes)
        memset(range[n].written, 0, range[n].bytes);
    EmuLaunch go = { .kernel = k->symbol, .grid = { (uint32_t)k->grid }, .block = { (uint32_t)k->threads }, .shared = (uint32_t)k->shared_bytes,
                     .params = param, .nparams = snE_parameters(e->module, k->symbol), .ranges = range, .nranges = n + 1,
                     .budget = e->budget, .compare_blocks = e->compare_blocks, .most = e->most };
    int rc = k->grid ? snE_launch(e->module, &go, e->pool, e->report, err) : 0;
    free(param), free(address);
    return rc > 0 ? report(e, rc, err) : rc;
}

static int emu_run(Device *d, void *prepared, const SnLaunchArgs *la, double *seconds, char err[ERR_TEXT])
{
    Emu *e = (Emu *)d;
    Prepared *l = prepared;
    EmuRange *range = l->range;
    for (int i = 0; i < l->plan->nlaunches; i++) {
        double before = snR_now();
        int rc = launch(e, l, i, range, la, err);
        if (rc)
            return rc;
        range += l->plan->launches[i].nargs + 1;
        if (seconds)
            seconds[i] += snR_now() - before;
    }
    return 0;
}

/* -- Life -------------------------------------------------------------------------------------------------------------- */

static void emu_close(Device *d)
{
    Emu *e = (Emu *)d;
    snE_free(e->module);
    free(e->report);
    free(e);
}

static const DeviceOps ops = {
    .close = emu_close, .alloc = emu_alloc, .release = emu_release, .write = emu_write, .read = emu_read, .poison = emu_poison,
    .prepare = emu_prepare, .discard = emu_discard, .run = emu_run,
};

/* emu[:sm_NN] -> NN, 0 when it is not said, -1 */
static int generation(const char *name)
{
    int sm = 0, used = 0;
    if (!strcmp(name, "emu"))
        return 0;
    return sscanf(name, "emu:sm_%d%n", &sm, &used) == 1 && !name[used] && sm >= 80 && sm < 1000 ? sm : -1;
}

int snR_emu_target(const char *name, char target[64], char err[ERR_TEXT])
{
    int sm = generation(name);
    if (sm < 0)
        return snR_fail(err, ERR_USAGE, "the emulator is `emu` or `emu:sm_80`, `emu:sm_90` or the like, not '%s'", name);
    snprintf(target, 64, "ptx:sm_%d", sm ? sm : 80);
    return 0;
}

static int check_program(const SnProgram *p, const char *name, char err[ERR_TEXT])
{
    int sm = generation(name), wants = 0;
    if (sm < 0 || sscanf(p->target, "ptx:sm_%d", &wants) != 1)
        return snR_fail(err, ERR_UNSUPPORTED, "the program was compiled for '%s', not for the device '%s'", p->target, name);
    if (sm && wants > sm)
        return snR_fail(err, ERR_UNSUPPORTED, "the program was compiled for sm_%d, the device '%s' is older", wants, name);
    if (!p->code || !p->code_bytes)
        return snR_fail(err, ERR_PROGRAM, "the program for '%s' holds no PTX", p->target);
    for (int i = 0; i < p->nkernels; i++)
        if (p->kernels[i].threads < 1 || p->kernels[i].shared_bytes < 0 || p->kernels[i].shared_bytes > UINT32_MAX || p->kernels[i].grid > INT32_MAX)
            return snR_fail(err, ERR_PROGRAM, "kernel '%s' is no kernel of thread blocks", p->kernels[i].symbol);
    return 0;
}

static int64_t environment(const char *name, int64_t most)
{
    const char *text = getenv(name);
    int64_t v = text ? strtoll(text, NULL, 10) : 0;
    return v < 0 ? 0 : v > most ? most : v;
}

/* Every kernel is there and takes what the convention says. */
static int check_kernels(const Emu *e, char err[ERR_TEXT])
{
    const SnProgram *p = e->program;
    for (int i = 0; i < p->nkernels; i++) {
        const SnKernelDesc *k = &p->kernels[i];
        int n = snE_parameters(e->module, k->symbol);
        if (n < 0)
            return snR_fail(err, ERR_PROGRAM, "there is no kernel '%s' in the program's PTX", k->symbol);
        if (n != k->nargs + SYSTEM_PARAMS && n != k->nargs + SYSTEM_PARAMS + 1)
            return snR_fail(err, ERR_PROGRAM, "kernel '%s' has %d parameters; %d buffers, seed, step and micro, and scratch memory are passed", k->symbol, n, k->nargs);
    }
    return 0;
}

Device *snR_emu_open(const SnProgram *p, const char *name, Pool *pool, char err[ERR_TEXT])
{
    if (check_program(p, name, err))
        return NULL;
    Emu *e = calloc(1, sizeof *e);
    if (!e) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        return NULL;
    }
    e->base.ops = &ops;
    e->program = p;
    e->pool = pool;
    e->budget = (uint64_t)environment("SN_EMU_BUDGET", INT64_MAX);
    e->most = (int)environment("SN_EMU_REPORTS", MAX_REPORTS);
    e->most = e->most ? e->most : 1;
    e->compare_blocks = environment("SN_EMU_BLOCKS", 1);
    e->report = calloc((size_t)e->most, sizeof *e->report);
    e->module = e->report ? snE_load(p->code, p->code_bytes, err) : NULL;
    if (e->module && !check_kernels(e, err))
        return &e->base;
    if (!e->report)
        snR_fail(err, ERR_NOMEM, "out of memory");
    emu_close(&e->base);
    return NULL;
}
