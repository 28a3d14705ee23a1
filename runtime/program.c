/* program.c: small things that every file of the runtime needs: errors, full writes, dtypes,
   rounding, and the check of a program.

   A program comes from codegen or from a bundle. snR_program_check looks at every index, size and
   offset once, so that the code that runs it does not have to. */
#include "runtime/rt.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* -- Errors ------------------------------------------------------------------------------------ */

static _Thread_local char last_error[ERR_TEXT];

char *snR_last_error(void) { return last_error; }
const char *sn_rt_error(void) { return last_error; }

int snR_fail(char err[ERR_TEXT], int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, ERR_TEXT, fmt, ap);
    va_end(ap);
    for (char *c = err; *c; c++)                 /* one line, whatever a file's names hold */
        if ((unsigned char)*c < ' ')
            *c = '?';
    return code;
}

/* -- Files ------------------------------------------------------------------------------------- */

bool snR_write_all(int fd, const void *data, size_t n)
{
    enum { AT_ONCE = 1 << 30 };
    const char *p = data;
    while (n) {
        ssize_t k = write(fd, p, n < AT_ONCE ? n : AT_ONCE);
        if (k < 0 && errno == EINTR)
            continue;
        if (k == 0)
            errno = ENOSPC;
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

void snR_keep_log(const char *kind, const char *log, const void *code, size_t bytes, char path[64])
{
    snprintf(path, 64, "/tmp/sinter-%.20s-XXXXXX", kind);
    int fd = mkstemp(path);
    bool ok = fd >= 0 && snR_write_all(fd, log, strlen(log)) && snR_write_all(fd, "\n", 1) && snR_write_all(fd, code, bytes);
    if (fd >= 0)
        close(fd);
    if (!ok)
        snprintf(path, 64, "nowhere");
}

/* -- Dtypes ------------------------------------------------------------------------------------ */

static const struct { const char *name; int size; } dtypes[] = {
    [DT_F32] = { "f32", 4 }, [DT_BF16] = { "bf16", 2 }, [DT_F16] = { "f16", 2 },
    [DT_I32] = { "i32", 4 }, [DT_U32] = { "u32", 4 }, [DT_BOOL] = { "bool", 1 },
    [SN_FILE_F64] = { "f64", 8 }, [SN_FILE_U8] = { "u8", 1 }, [SN_FILE_I8] = { "i8", 1 },
    [SN_FILE_U16] = { "u16", 2 }, [SN_FILE_I16] = { "i16", 2 }, [SN_FILE_U64] = { "u64", 8 },
    [SN_FILE_I64] = { "i64", 8 }, [SN_FILE_F8_E4M3] = { "f8e4m3", 1 },
    [SN_FILE_F8_E5M2] = { "f8e5m2", 1 },
};
enum { NDTYPES = sizeof dtypes / sizeof *dtypes };

int snR_dtype_size(int d) { return d > 0 && d < NDTYPES ? dtypes[d].size : 0; }
const char *snR_dtype_name(int d) { return d > 0 && d < NDTYPES ? dtypes[d].name : "?"; }

int64_t snR_tensor_bytes(int dtype, int rank, const int64_t *dim)
{
    int64_t n = snR_dtype_size(dtype);
    bool empty = false;
    if (n == 0 || rank < 0 || rank > SN_MAX_RANK)
        return -1;
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0)
            return -1;
        if (dim[i] == 0)
            empty = true;
        else if (n > INT64_MAX / dim[i])
            return -1;
        else
            n *= dim[i];
    }
    return empty ? 0 : n;
}

/* The 16-bit pattern of v in a format of `bits` significant bits and exponents emin .. emax. */
static uint16_t half_bits(double v, int bits, int emin, int emax)
{
    uint16_t sign = signbit(v) ? 0x8000 : 0, inf = (uint16_t)((2 * emax + 1) << (bits - 1));
    int e;
    if (isnan(v))
        return (uint16_t)(sign | inf | 1 << (bits - 2));
    v = fabs(v);
    if (isinf(v))
        return sign | inf;
    if (v == 0)
        return sign;
    frexp(v, &e);
    e = e - 1 < emin ? emin : e - 1;
    double units = nearbyint(ldexp(v, bits - 1 - e));    /* of the last place; at most 2^bits */
    if (ldexp(units, e - bits + 1) >= ldexp(1, emax + 1))
        return sign | inf;
    /* A carry into the next binade carries into the exponent field by itself. */
    return (uint16_t)(sign | (uint32_t)(((e - emin) << (bits - 1)) + (int)units));
}

static uint32_t int_bits(double v)
{
    return isfinite(v) ? (uint32_t)(int64_t)fmod(trunc(v), 0x1p32) : 0;
}

void snR_store(int dtype, void *at, double v)
{
    uint16_t half;
    uint32_t word;
    float f;
    switch (dtype) {
    case DT_F32: f = (float)v; memcpy(at, &f, 4); break;
    case DT_BF16: half = half_bits(v, 8, -126, 127); memcpy(at, &half, 2); break;
    case DT_F16: half = half_bits(v, 11, -14, 15); memcpy(at, &half, 2); break;
    case DT_I32: case DT_U32: word = int_bits(v); memcpy(at, &word, 4); break;
    case DT_BOOL: *(uint8_t *)at = v != 0; break;
    case DT_F64: memcpy(at, &v, 8); break;
    default: break;
    }
}

/* -- Programs ---------------------------------------------------------------------------------- */

void snR_program_free(SnProgram *p)
{
    if (!p)
        return;
    snR_unmap(p->file);
    free(p->memory);
}

static int check_tensor(const char *what, const SnTensorDesc *t, int64_t *bytes, char err[ERR_TEXT])
{
    *bytes = t->dtype <= DT_BOOL ? snR_tensor_bytes(t->dtype, t->rank, t->dim) : -1;
    if (*bytes < 0 || !t->name)
        return snR_fail(err, ERR_PROGRAM, "bad program: %s '%s' has an impossible type", what,
                        t->name ? t->name : "");
    return 0;
}

/* Bytes from storage i to the end of the memory that it lies in, neighbours included. */
static int64_t room_behind(const SnProgram *p, int i)
{
    const SnStorage *s = &p->storage[i];
    int owner = s->inside ? s->inside - 1 : i;
    int64_t end = 0;
    for (int k = 0; k < p->nstorage; k++) {
        const SnStorage *o = &p->storage[k];
        if (k != owner && o->inside - 1 != owner)
            continue;
        int64_t top = o->offset + snR_tensor_bytes(o->t.dtype, o->t.rank, o->t.dim);
        if (top > end)
            end = top;
    }
    return end - s->offset;
}

/* The common case first: a whole weight or state. */
static bool fits_storage(const SnProgram *p, const SnBuffer *b)
{
    const SnTensorDesc *t = &p->storage[b->storage].t;
    int64_t own = snR_tensor_bytes(t->dtype, t->rank, t->dim), most = INT64_MAX - b->bytes;
    return b->offset <= most &&
           (b->offset + b->bytes <= own || b->offset + b->bytes <= room_behind(p, b->storage));
}

static int check_storage(const SnProgram *p, int i, char err[ERR_TEXT])
{
    const SnStorage *s = &p->storage[i];
    int64_t bytes;
    int rc = check_tensor("storage", &s->t, &bytes, err);
    bool ok = s->offset >= 0 && s->offset <= INT64_MAX / 2 - (rc ? 0 : bytes);
    if (!rc && s->inside)
        ok = ok && s->inside > 0 && s->inside <= p->nstorage && !p->storage[s->inside - 1].inside &&
             s->inside - 1 != i && p->storage[s->inside - 1].t.dtype == s->t.dtype &&
             s->offset % snR_dtype_size(s->t.dtype) == 0;
    else
        ok = ok && s->offset == 0;
    return rc || ok ? rc : snR_fail(err, ERR_PROGRAM, "bad program: '%s' is out of place", s->t.name);
}

static int check_buffer(const SnProgram *p, const SnGraphPlan *g, int i, char err[ERR_TEXT])
{
    const SnBuffer *b = &g->buffers[i];
    int64_t bytes = 0;
    int rc = check_tensor("buffer", &b->t, &bytes, err);
    bool ok = b->bytes >= bytes;
    if (rc)
        return rc;
    if (b->kind == SN_BUF_ARENA)
        ok = ok && b->offset >= 0 && b->offset % snR_dtype_size(b->t.dtype) == 0 &&
             b->bytes <= g->arena_bytes && b->offset <= g->arena_bytes - b->bytes;
    else if (b->kind == SN_BUF_STORAGE)
        ok = ok && b->storage >= 0 && b->storage < p->nstorage && b->offset >= 0 &&
             b->offset % snR_dtype_size(b->t.dtype) == 0 &&
             p->storage[b->storage].t.dtype == b->t.dtype && fits_storage(p, b);
    else
        ok = ok && b->kind == SN_BUF_INPUT;
    if (!ok)
        return snR_fail(err, ERR_PROGRAM,
                        "bad program: buffer %d '%s' of graph '%s' is out of place", i, b->t.name,
                        g->name);
    return 0;
}

static int check_graph(const SnProgram *p, const SnGraphPlan *g, char err[ERR_TEXT])
{
    int rc = 0;
    if (!g->name || g->nbuffers < 0 || g->nlaunches < 0 || g->noutputs < 0 || g->arena_bytes < 0)
        return snR_fail(err, ERR_PROGRAM, "bad program: graph '%s'", g->name ? g->name : "");
    for (int i = 0; i < g->nbuffers && !rc; i++)
        rc = check_buffer(p, g, i, err);
    for (int i = 0; i < g->nlaunches && !rc; i++) {
        const SnLaunch *l = &g->launches[i];
        bool ok = l->kernel >= 0 && l->kernel < p->nkernels && l->nargs >= 0 &&
                  l->nargs == p->kernels[l->kernel].nargs;
        for (int k = 0; ok && k < l->nargs; k++)
            ok = l->args[k] >= 0 && l->args[k] < g->nbuffers;
        if (!ok)
            rc = snR_fail(err, ERR_PROGRAM, "bad program: launch %d of graph '%s'", i, g->name);
    }
    for (int i = 0; i < g->noutputs && !rc; i++)
        if (!g->outputs[i].name || g->outputs[i].buffer < 0 || g->outputs[i].buffer >= g->nbuffers)
            rc = snR_fail(err, ERR_PROGRAM, "bad program: output %d of graph '%s'", i, g->name);
    return rc;
}

int snR_program_check(const SnProgram *p, char err[ERR_TEXT])
{
    int rc = 0;
    if (p->nkernels < 0 || p->nstorage < 0 || p->ngraphs < 0)
        return snR_fail(err, ERR_PROGRAM, "bad program: a negative count");
    for (int i = 0; i < p->nkernels && !rc; i++) {
        const SnKernelDesc *k = &p->kernels[i];
        if (!k->symbol || k->grid < 0 || k->nargs < 0 || k->scratch_bytes < 0 || k->threads < 0 ||
            k->threads > 1024 || k->shared_bytes < 0)
            rc = snR_fail(err, ERR_PROGRAM, "bad program: kernel %d", i);
    }
    for (int i = 0; i < p->nstorage && !rc; i++) {
        rc = check_storage(p, i, err);
        for (int k = 0; k < i && !rc; k++)
            if (!strcmp(p->storage[i].t.name, p->storage[k].t.name))
                rc = snR_fail(err, ERR_PROGRAM, "bad program: two weights named '%s'",
                              p->storage[k].t.name);
    }
    for (int i = 0; i < p->ngraphs && !rc; i++)
        rc = check_graph(p, &p->graphs[i], err);
    return rc;
}
