/* host.c: the CPU as a device: loads the code object of a program and runs launch lists on the
   worker pool.

   In: a program whose code is an ELF shared object in memory (trusted: it is native code). It is
   written to a memory file, opened with dlopen, and every kernel's symbol is resolved once. Out:
   a Device, which runs the launches of a graph one after the other, each spread over the pool, each
   worker with scratch of its own. Machines that forbid running memory files get a temporary
   file instead. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ALIGN = 64, PAGE = 4096, HUGE_PAGE = 2 << 20 };

typedef struct Host {
    Device base;
    const SnProgram *program;
    Pool *pool;                  /* the session's */
    void *library;
    int fd;                      /* the memory file; open as long as the library: it is its name */
    SnHostKernel *kernel;
    char *scratch;                       /* one stretch of scratch_bytes per worker */
    size_t scratch_bytes;
    uint64_t launch, *last;              /* launches so far; per worker, the last one it ran programs of */
} Host;

double snR_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void *snR_alloc(size_t bytes)
{
    void *p = NULL;
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGN;
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ALIGN + align - 1) / align * align;     /* a vector read at the end stays inside */
    if (posix_memalign(&p, align, bytes))
        return NULL;
    if (align == HUGE_PAGE) {
        madvise(p, bytes, MADV_DONTNEED);                    /* the heap's old small pages would stay small: three times as slow */
        madvise(p, bytes, MADV_HUGEPAGE);
    }
    return p;
}

/* -- Code -------------------------------------------------------------------------------------- */

static void open_memory_file(Host *h, const SnProgram *p)
{
    char path[64];
    h->fd = memfd_create("sinter-kernels", MFD_CLOEXEC);
    if (h->fd < 0 || !snR_write_all(h->fd, p->code, p->code_bytes))
        return;
    /* A library that could not be unloaded may still hold this name; dlopen would return that. */
    for (int tries = 0; tries < 64; tries++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", h->fd);
        void *taken = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
        if (!taken) {
            h->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            return;
        }
        dlclose(taken);
        int other = fcntl(h->fd, F_DUPFD_CLOEXEC, h->fd + 1);
        if (other < 0)
            return;
        close(h->fd);
        h->fd = other;
    }
}

static void open_temporary_file(Host *h, const SnProgram *p)
{
    const char *folder = getenv("TMPDIR");
    char path[1024];
    snprintf(path, sizeof path, "%s/sinter-XXXXXX", folder && *folder ? folder : "/tmp");
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return;
    bool written = snR_write_all(fd, p->code, p->code_bytes);
    close(fd);
    if (written)
        h->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    unlink(path);
}

static int load_code(Host *h, char err[ERR_TEXT])
{
    const SnProgram *p = h->program;
    if (!p->code && p->resolve)
        return 0;
    if (!p->code || p->code_bytes < 64 || memcmp(p->code, "\177ELF", 4))
        return snR_fail(err, ERR_PROGRAM, "the program for '%s' holds no host code", p->target);
    open_memory_file(h, p);
    if (!h->library)
        open_temporary_file(h, p);
    if (!h->library) {
        const char *why = dlerror();
        return snR_fail(err, ERR_DEVICE, "cannot load the program's code: %s",
                        why ? why : strerror(errno));
    }
    return 0;
}

static int resolve_kernels(Host *h, char err[ERR_TEXT])
{
    const SnProgram *p = h->program;
    h->kernel = calloc((size_t)p->nkernels + 1, sizeof *h->kernel);
    if (!h->kernel)
        return snR_fail(err, ERR_NOMEM, "out of memory");
    for (int i = 0; i < p->nkernels; i++) {
        const char *symbol = p->kernels[i].symbol;
        if (h->library)
            *(void **)&h->kernel[i] = dlsym(h->library, symbol);
        else
            h->kernel[i] = p->resolve(symbol);
        if (!h->kernel[i])
            return snR_fail(err, ERR_PROGRAM, "kernel '%s' is missing in the program's code",
                            symbol);
    }
    return 0;
}

/* -- Running ----------------------------------------------------------------------------------- */

typedef struct Launch {
    Host *host;
    SnHostKernel kernel;
    void *const *bufs;
    const SnLaunchArgs *args;
} Launch;

static void run_part(void *arg, int worker, int64_t begin, int64_t end)
{
    const Launch *l = arg;
    Host *h = l->host;
    SnLaunchArgs args = *l->args;
    args.again = h->last[worker] == h->launch;
    h->last[worker] = h->launch;
    l->kernel(l->bufs, &args, begin, end, h->scratch + (size_t)worker * h->scratch_bytes);
}

/* A launch list and every launch's base pointers, one launch after the other. */
typedef struct Launches {
    const SnGraphPlan *plan;
    void *bufs[];
} Launches;

static int host_run(Device *d, void *prepared, const SnLaunchArgs *la, double *seconds, char err[ERR_TEXT])
{
    Host *h = (Host *)d;
    const Launches *list = prepared;
    void *const *bufs = list->bufs;
    double before = seconds ? snR_now() : 0;
    (void)err;
    for (int i = 0; i < list->plan->nlaunches; i++) {
        int k = list->plan->launches[i].kernel;
        Launch l = { h, h->kernel[k], bufs, la };
        h->launch++;
        snR_pool_run(h->pool, h->program->kernels[k].grid, run_part, &l);
        bufs += list->plan->launches[i].nargs;
        if (seconds) {
            double after = snR_now();
            seconds[i] += after - before;
            before = after;
        }
    }
    return 0;
}

static void *host_prepare(Device *d, const SnGraphPlan *plan, const Span *buf, char err[ERR_TEXT])
{
    size_t n = 1;
    (void)d;
    for (int i = 0; i < plan->nlaunches; i++)
        n += (size_t)plan->launches[i].nargs;
    Launches *l = calloc(1, sizeof *l + n * sizeof *l->bufs);
    if (!l) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        return NULL;
    }
    l->plan = plan;
    void **at = l->bufs;
    for (int i = 0; i < plan->nlaunches; i++)
        for (int k = 0; k < plan->launches[i].nargs; k++) {
            const Span *s = &buf[plan->launches[i].args[k]];
            *at++ = (char *)s->mem + s->at;
        }
    return l;
}

static void host_discard(Device *d, void *prepared)
{
    (void)d;
    free(prepared);
}

/* -- Memory: a handle is its address ----------------------------------------------------------- */

static void *host_alloc(Device *d, size_t bytes, char err[ERR_TEXT])
{
    void *p = snR_alloc(bytes);
    (void)d;
    if (!p)
        snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes asked", bytes);
    return p;
}

static void host_release(Device *d, void *mem)
{
    (void)d;
    free(mem);
}

static int host_write(Device *d, void *mem, size_t at, const void *data, size_t bytes, char err[ERR_TEXT])
{
    (void)d;
    (void)err;
    memcpy((char *)mem + at, data, bytes);
    return 0;
}

static int host_read(Device *d, void *mem, size_t at, void *out, size_t bytes, char err[ERR_TEXT])
{
    (void)d;
    (void)err;
    memcpy(out, (char *)mem + at, bytes);
    return 0;
}

static int host_poison(Device *d, void *mem, size_t bytes, char err[ERR_TEXT])
{
    (void)d;
    (void)err;
    memset(mem, 0xff, bytes);
    return 0;
}

/* -- Life -------------------------------------------------------------------------------------- */

static void host_close(Device *d)
{
    Host *h = (Host *)d;
    if (h->library)
        dlclose(h->library);
    if (h->fd >= 0)
        close(h->fd);
    free(h->kernel);
    free(h->scratch);
    free(h->last);
    free(h);
}

static const DeviceOps ops = {
    .is_host = true, .close = host_close, .alloc = host_alloc, .release = host_release, .write = host_write,
    .read = host_read, .poison = host_poison, .prepare = host_prepare, .discard = host_discard, .run = host_run,
};

Device *snR_host_open(const SnProgram *p, Pool *pool, char err[ERR_TEXT])
{
    Host *h = calloc(1, sizeof *h);
    if (!h) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        return NULL;
    }
    h->base.ops = &ops;
    h->program = p;
    h->pool = pool;
    h->fd = -1;
    if (load_code(h, err) || resolve_kernels(h, err))
        goto fail;
    for (int i = 0; i < p->nkernels; i++)
        if ((size_t)p->kernels[i].scratch_bytes > h->scratch_bytes)
            h->scratch_bytes = (size_t)p->kernels[i].scratch_bytes;
    h->scratch_bytes = (h->scratch_bytes / PAGE + 1) * PAGE;
    size_t most = h->scratch_bytes * (size_t)snR_pool_threads(pool);
    h->scratch = snR_alloc(most > HUGE_PAGE ? most : HUGE_PAGE);     /* in huge pages: attention in small ones takes up to twice as long */
    h->last = calloc((size_t)snR_pool_threads(pool), sizeof *h->last);
    if (!h->scratch || !h->last) {
        snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes of scratch for each of %d threads",
                 h->scratch_bytes, snR_pool_threads(pool));
        goto fail;
    }
    return &h->base;
fail:
    host_close(&h->base);
    return NULL;
}
