/* null.c: the device `null`: memory that is real, launches that do nothing. In: any program. Out: a Device.

   What it is for: the cost of everything but the kernels, programs of targets that are not here, and tests: snR_null_fault(n) makes the
   n-th call from then on fail (an allocation, a write, a read, a poisoning, a preparation or a launch), so that every path out of a
   failure is walked. Outputs are whatever was there: zeros at first. */
#include "runtime/rt.h"

#include <stdlib.h>
#include <string.h>

static int64_t fault;                            /* 0 = none; else the call that fails, counted down */

void snR_null_fault(int64_t n) { fault = n; }

static bool fails(const char *what, char err[ERR_TEXT])
{
    if (!fault || --fault)
        return false;
    snR_fail(err, ERR_DEVICE, "the device null was told to fail at this %s", what);
    return true;
}

static void *null_alloc(Device *d, size_t bytes, char err[ERR_TEXT])
{
    (void)d;
    if (fails("allocation", err))
        return NULL;
    void *p = calloc(1, bytes + 1);
    if (!p)
        snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes asked", bytes);
    return p;
}

static void null_release(Device *d, void *mem)
{
    (void)d;
    free(mem);
}

static int null_write(Device *d, void *mem, size_t at, const void *data, size_t bytes, char err[ERR_TEXT])
{
    (void)d;
    if (fails("write", err))
        return ERR_DEVICE;
    memcpy((char *)mem + at, data, bytes);
    return 0;
}

static int null_read(Device *d, void *mem, size_t at, void *out, size_t bytes, char err[ERR_TEXT])
{
    (void)d;
    if (fails("read", err))
        return ERR_DEVICE;
    memcpy(out, (char *)mem + at, bytes);
    return 0;
}

static int null_poison(Device *d, void *mem, size_t bytes, char err[ERR_TEXT])
{
    (void)d;
    if (fails("poisoning", err))
        return ERR_DEVICE;
    memset(mem, 0xff, bytes);
    return 0;
}

static void *null_prepare(Device *d, const SnGraphPlan *g, const Span *buf, char err[ERR_TEXT])
{
    (void)d;
    (void)buf;
    return fails("preparation", err) ? NULL : (void *)g;
}

static void null_discard(Device *d, void *prepared)
{
    (void)d;
    (void)prepared;
}

static int null_run(Device *d, void *prepared, const SnLaunchArgs *la, double *seconds, char err[ERR_TEXT])
{
    const SnGraphPlan *g = prepared;
    (void)d;
    (void)la;
    for (int i = 0; i < g->nlaunches; i++) {
        if (fails("launch", err))
            return ERR_DEVICE;
        if (seconds)
            seconds[i] = 0;
    }
    return 0;
}

static void null_close(Device *d) { free(d); }

static const DeviceOps ops = {
    .close = null_close, .alloc = null_alloc, .release = null_release, .write = null_write, .read = null_read, .poison = null_poison,
    .prepare = null_prepare, .discard = null_discard, .run = null_run,
};

Device *snR_null_open(char err[ERR_TEXT])
{
    Device *d = fails("opening", err) ? NULL : calloc(1, sizeof *d);
    if (d)
        d->ops = &ops;
    else if (!*err)
        snR_fail(err, ERR_NOMEM, "out of memory");
    return d;
}
