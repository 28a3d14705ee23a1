/* session.c: a program at work: its weights and states, its inputs, one arena per graph, and the
   public calls on them.

   In: a checked program. Out: values, by name. Storage is shared by all graphs; every graph has
   buffers for its own inputs and an arena that is allocated when it first runs. All of them are the
   device's memory (rt.h); a launch list is bound to them once. */
#include "runtime/rt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct GraphState {
    const SnGraphPlan *plan;
    void *arena;                         /* NULL until the first run */
    Span *buf;                           /* where every buffer lies; arena ones only once there is an arena */
    void *prepared;                      /* the launches, bound to their buffers */
    bool *bound;                         /* inputs: a value is there */
    double *seconds;                     /* per launch, summed; profile only */
    int64_t runs;
    bool has_run;
} GraphState;

struct sn_session {
    const SnProgram *program;
    Device *device;
    Pool *pool;
    Span *storage;
    bool *unset;                         /* storage that still has to get its initial value: made when first wanted, or never */
    GraphState *graph;
    SnLaunchArgs launch;
    uint64_t seed;
    bool profile, poison;
    char err[ERR_TEXT];
};

const char *sn_session_error(const sn_session *s) { return s->err; }

/* -- Look-up ----------------------------------------------------------------------------------- */

static GraphState *find_graph(sn_session *s, const char *name)
{
    for (int i = 0; i < s->program->ngraphs; i++)
        if (name && !strcmp(s->program->graphs[i].name, name))
            return &s->graph[i];
    snR_fail(s->err, ERR_UNKNOWN, "the program has no graph '%s'", name ? name : "");
    return NULL;
}

static int find_storage(const sn_session *s, const char *name)
{
    for (int i = 0; i < s->program->nstorage; i++)
        if (!strcmp(s->program->storage[i].t.name, name))
            return i;
    return -1;
}

static int find_input(const SnGraphPlan *g, const char *name)
{
    for (int i = 0; i < g->nbuffers; i++)
        if (g->buffers[i].kind == SN_BUF_INPUT && !strcmp(g->buffers[i].t.name, name))
            return i;
    return -1;
}

static size_t tensor_bytes(const SnTensorDesc *t)
{
    return (size_t)snR_tensor_bytes(t->dtype, t->rank, t->dim);
}

static int wrong_size(sn_session *s, const SnTensorDesc *t, size_t bytes)
{
    return snR_fail(s->err, ERR_SHAPE, "'%s' has %zu bytes (%s), got %zu", t->name, tensor_bytes(t),
                    snR_dtype_name(t->dtype), bytes);
}

/* -- Device memory ----------------------------------------------------------------------------- */

static const DeviceOps *ops(const sn_session *s) { return s->device->ops; }

static void *allocate(sn_session *s, size_t bytes, const char *what, const char *name)
{
    char why[ERR_TEXT] = "";
    void *mem = ops(s)->alloc(s->device, bytes, why);
    if (!mem)
        snR_fail(s->err, ERR_NOMEM, "%s '%s': %s", what, name, why);
    return mem;
}

static void release(sn_session *s, void *mem)
{
    if (mem)
        ops(s)->release(s->device, mem);
}

static int write_span(sn_session *s, Span to, const void *data, size_t bytes)
{
    return ops(s)->write(s->device, to.mem, to.at, data, bytes, s->err);
}

/* Its address, on a device whose memory is the host's. */
static void *address(const sn_session *s, Span x) { return ops(s)->is_host ? (char *)x.mem + x.at : NULL; }

static int set_scalar(sn_session *s, GraphState *g, int i, double v)
{
    uint64_t value = 0;
    snR_store(g->plan->buffers[i].t.dtype, &value, v);
    g->bound[i] = true;
    return write_span(s, g->buf[i], &value, tensor_bytes(&g->plan->buffers[i].t));
}

/* -- Life -------------------------------------------------------------------------------------- */

static int set_up_graph(sn_session *s, GraphState *g, const SnGraphPlan *plan)
{
    g->plan = plan;
    g->buf = calloc((size_t)plan->nbuffers + 1, sizeof *g->buf);
    g->bound = calloc((size_t)plan->nbuffers + 1, sizeof *g->bound);
    g->seconds = calloc((size_t)plan->nlaunches + 1, sizeof *g->seconds);
    if (!g->buf || !g->bound || !g->seconds)
        return snR_fail(s->err, ERR_NOMEM, "out of memory");
    for (int i = 0; i < plan->nbuffers; i++) {
        const SnBuffer *b = &plan->buffers[i];
        if (b->kind == SN_BUF_STORAGE)
            g->buf[i] = (Span){ s->storage[b->storage].mem, s->storage[b->storage].at + (size_t)b->offset };
        if (b->kind != SN_BUF_INPUT)
            continue;
        if (!(g->buf[i].mem = allocate(s, (size_t)b->bytes, "input", b->t.name)))
            return ERR_NOMEM;
        int rc = b->has_default && b->t.rank == 0 ? set_scalar(s, g, i, b->dflt) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

/* Storage that others lie in is as long as all of them. */
static int allocate_storage(sn_session *s)
{
    const SnProgram *p = s->program;
    size_t *bytes = calloc((size_t)p->nstorage + 1, sizeof *bytes);
    int rc = bytes ? 0 : snR_fail(s->err, ERR_NOMEM, "out of memory");
    for (int i = 0; i < p->nstorage && !rc; i++) {
        const SnStorage *st = &p->storage[i];
        size_t *room = &bytes[st->inside ? st->inside - 1 : i];
        size_t top = (size_t)st->offset + tensor_bytes(&st->t);
        *room = *room > top ? *room : top;
    }
    for (int i = 0; i < p->nstorage && !rc; i++)
        if (!p->storage[i].inside && !(s->storage[i].mem = allocate(s, bytes[i], "weight", p->storage[i].t.name)))
            rc = ERR_NOMEM;
    for (int i = 0; i < p->nstorage && !rc; i++)
        if (p->storage[i].inside)
            s->storage[i] = (Span){ s->storage[p->storage[i].inside - 1].mem, (size_t)p->storage[i].offset };
    free(bytes);
    return rc;
}

static int set_up(sn_session *s, const sn_session_desc *d)
{
    const SnProgram *p = s->program;
    int rc = snR_program_check(p, s->err);
    if (rc)
        return rc;
    if (!(s->pool = snR_pool_new(d->threads)))
        return snR_fail(s->err, ERR_NOMEM, "cannot start %d worker threads", d->threads);
    s->device = snR_open_device(p, d->device, s->pool, d->threads, s->err);
    if (!s->device)
        return ERR_DEVICE;
    s->storage = calloc((size_t)p->nstorage + 1, sizeof *s->storage);
    s->graph = calloc((size_t)p->ngraphs + 1, sizeof *s->graph);
    s->unset = calloc((size_t)p->nstorage + 1, sizeof *s->unset);
    if (!s->storage || !s->graph || !s->unset)
        return snR_fail(s->err, ERR_NOMEM, "out of memory");
    if ((rc = allocate_storage(s)))
        return rc;
    for (int i = 0; i < p->ngraphs && !rc; i++)
        rc = set_up_graph(s, &s->graph[i], &p->graphs[i]);
    return rc ? rc : sn_init(s);
}

sn_session *sn_session_new(const sn_program *p, const sn_session_desc *d)
{
    static const sn_session_desc defaults;
    sn_session *s = calloc(1, sizeof *s);
    if (!s) {
        snR_fail(snR_last_error(), ERR_NOMEM, "out of memory");
        return NULL;
    }
    d = d ? d : &defaults;
    s->program = p;
    s->seed = d->seed;
    s->profile = d->profile;
    s->poison = d->poison;
    s->launch = (SnLaunchArgs){ .seed = { (uint32_t)d->seed, (uint32_t)(d->seed >> 32) } };
    if (set_up(s, d)) {
        memcpy(snR_last_error(), s->err, ERR_TEXT);
        sn_session_free(s);
        return NULL;
    }
    return s;
}

static void free_graph(sn_session *s, GraphState *g)
{
    for (int i = 0; g->plan && g->buf && i < g->plan->nbuffers; i++)
        if (g->plan->buffers[i].kind == SN_BUF_INPUT)
            release(s, g->buf[i].mem);
    if (g->prepared)
        ops(s)->discard(s->device, g->prepared);
    release(s, g->arena);
    free(g->buf);
    free(g->bound);
    free(g->seconds);
}

void sn_session_free(sn_session *s)
{
    if (!s)
        return;
    for (int i = 0; s->graph && i < s->program->ngraphs; i++)
        free_graph(s, &s->graph[i]);
    for (int i = 0; s->storage && i < s->program->nstorage; i++)
        if (!s->program->storage[i].inside)
            release(s, s->storage[i].mem);
    if (s->device)
        ops(s)->close(s->device);
    snR_pool_free(s->pool);
    free(s->graph);
    free(s->storage);
    free(s->unset);
    free(s);
}

int sn_init(sn_session *s)
{
    memset(s->unset, true, (size_t)s->program->nstorage);
    return 0;
}

/* Initial values of what has no other: a checkpoint that is loaded at once spares most of this. */
static int settle(sn_session *s)
{
    int rc = 0;
    for (int i = 0; i < s->program->nstorage && !rc; i++) {
        if (!s->unset[i])
            continue;
        const SnStorage *st = &s->program->storage[i];
        void *place = address(s, s->storage[i]), *here = place ? place : snR_alloc(tensor_bytes(&st->t));
        if (!here)
            return snR_fail(s->err, ERR_NOMEM, "out of memory for the initial value of '%s' (%zu bytes)",
                            st->t.name, tensor_bytes(&st->t));
        snR_init_storage(s->pool, st, s->seed, here);
        s->unset[i] = false;
        if (place)
            continue;
        rc = write_span(s, s->storage[i], here, tensor_bytes(&st->t));
        free(here);
    }
    return rc;
}

/* -- Values in --------------------------------------------------------------------------------- */

int sn_bind(sn_session *s, const char *graph, const char *input, const void *data, size_t bytes)
{
    GraphState *g = find_graph(s, graph);
    if (!g)
        return ERR_UNKNOWN;
    int i = find_input(g->plan, input);
    if (i < 0)
        return snR_fail(s->err, ERR_UNKNOWN, "graph '%s' has no input '%s'", graph, input);
    if (bytes != tensor_bytes(&g->plan->buffers[i].t))
        return wrong_size(s, &g->plan->buffers[i].t, bytes);
    g->bound[i] = true;
    return write_span(s, g->buf[i], data, bytes);
}

/* 0.99999999, which is 1 in f32, is not below 1; infinities and NaN are in no range. graph/eval.c has the same two, for all dtypes. */
static bool in_range(const SnBuffer *b, double v)
{
    if (!b->range)
        return true;
    if (b->t.dtype == DT_F32)
        v = (float)v;
    bool above = b->range & SN_ABOVE ? v > b->lo : v >= b->lo, below = b->range & SN_BELOW ? v < b->hi : v <= b->hi;
    return isfinite(v) && above && below && (!(b->range & SN_WHOLE) || v == floor(v));
}

void snR_range_text(const SnBuffer *b, char out[96])
{
    int n = snprintf(out, 96, "%s %g", b->range & SN_WHOLE ? "a whole number from" : b->range & SN_ABOVE ? "above" : "at least", b->lo);
    if (b->range & SN_WHOLE)
        snprintf(out + n, 96 - (size_t)n, " to %g", b->hi);
    else if (isinf(b->hi))
        snprintf(out + n, 96 - (size_t)n, " and finite");
    else
        snprintf(out + n, 96 - (size_t)n, " and %s %g", b->range & SN_BELOW ? "below" : "at most", b->hi);
}

int sn_set(sn_session *s, const char *input, double v)
{
    char range[96];
    int found = 0;
    for (int k = 0; k < s->program->ngraphs; k++) {
        GraphState *g = &s->graph[k];
        int i = find_input(g->plan, input);
        if (i < 0 || g->plan->buffers[i].t.rank != 0)
            continue;
        if (!in_range(&g->plan->buffers[i], v)) {
            snR_range_text(&g->plan->buffers[i], range);
            return snR_fail(s->err, ERR_USAGE, "%s=%g: it must be %s", input, v, range);
        }
        int rc = set_scalar(s, g, i, v);
        if (rc)
            return rc;
        found++;
    }
    return found ? 0 : snR_fail(s->err, ERR_UNKNOWN, "no graph has a scalar input '%s'", input);
}

int sn_step(sn_session *s, uint32_t step, uint32_t micro)
{
    s->launch.step = step;
    s->launch.micro = micro;
    return 0;
}

int sn_seed(sn_session *s, uint64_t seed)
{
    s->launch.seed[0] = (uint32_t)seed;
    s->launch.seed[1] = (uint32_t)(seed >> 32);
    return 0;
}

int sn_write(sn_session *s, const char *storage, const void *data, size_t bytes)
{
    int i = find_storage(s, storage);
    if (i < 0)
        return snR_fail(s->err, ERR_UNKNOWN, "the program has no weight or state '%s'", storage);
    if (bytes != tensor_bytes(&s->program->storage[i].t))
        return wrong_size(s, &s->program->storage[i].t, bytes);
    s->unset[i] = false;
    return write_span(s, s->storage[i], data, bytes);
}

/* -- Run --------------------------------------------------------------------------------------- */

static int make_arena(sn_session *s, GraphState *g)
{
    const SnGraphPlan *plan = g->plan;
    if (!(g->arena = allocate(s, (size_t)plan->arena_bytes, "the arena of graph", plan->name)))
        return ERR_NOMEM;
    for (int i = 0; i < plan->nbuffers; i++)
        if (plan->buffers[i].kind == SN_BUF_ARENA)
            g->buf[i] = (Span){ g->arena, (size_t)plan->buffers[i].offset };
    return 0;
}

int sn_run(sn_session *s, const char *graph)
{
    GraphState *g = find_graph(s, graph);
    if (!g)
        return ERR_UNKNOWN;
    for (int i = 0; i < g->plan->nbuffers; i++)
        if (g->plan->buffers[i].kind == SN_BUF_INPUT && !g->bound[i])
            return snR_fail(s->err, ERR_USAGE,
                            "input '%s' of graph '%s' has no value: bind it first",
                            g->plan->buffers[i].t.name, graph);
    int rc = settle(s);
    if (!rc && !g->arena)
        rc = make_arena(s, g);
    if (!rc && !g->prepared && !(g->prepared = ops(s)->prepare(s->device, g->plan, g->buf, s->err)))
        rc = ERR_DEVICE;
    if (!rc && s->poison && g->plan->arena_bytes)
        rc = ops(s)->poison(s->device, g->arena, (size_t)g->plan->arena_bytes, s->err);
    if (!rc)
        rc = ops(s)->run(s->device, g->prepared, &s->launch, s->profile ? g->seconds : NULL, s->err);
    if (rc)
        return rc;
    g->has_run = true;
    g->runs++;
    return 0;
}

/* -- Values out -------------------------------------------------------------------------------- */

static int read_tensor(sn_session *s, const SnTensorDesc *t, Span from, void *out, size_t bytes)
{
    if (bytes != tensor_bytes(t))
        return wrong_size(s, t, bytes);
    return ops(s)->read(s->device, from.mem, from.at, out, bytes, s->err);
}

int sn_read(sn_session *s, const char *graph, const char *output, void *out, size_t bytes)
{
    GraphState *g = graph ? find_graph(s, graph) : NULL;
    if (graph && !g)
        return ERR_UNKNOWN;
    for (int i = 0; g && i < g->plan->noutputs; i++) {
        const SnOutput *o = &g->plan->outputs[i];
        if (strcmp(o->name, output))
            continue;
        if (!g->has_run)
            return snR_fail(s->err, ERR_USAGE, "output '%s': graph '%s' has not run", output,
                            graph);
        return read_tensor(s, &g->plan->buffers[o->buffer].t, g->buf[o->buffer], out, bytes);
    }
    int i = find_storage(s, output);
    if (i < 0)
        return snR_fail(s->err, ERR_UNKNOWN, "no output, weight or state is named '%s'", output);
    int rc = settle(s);
    if (rc)
        return rc;
    return read_tensor(s, &s->program->storage[i].t, s->storage[i], out, bytes);
}

int sn_profile(sn_session *s, const char *graph, sn_kernel_time *out, int cap)
{
    GraphState *g = find_graph(s, graph);
    if (!g)
        return ERR_UNKNOWN;
    for (int i = 0; i < g->plan->nlaunches && i < cap; i++) {
        const SnKernelDesc *k = &s->program->kernels[g->plan->launches[i].kernel];
        out[i] = (sn_kernel_time){
            k->label ? k->label : k->symbol, k->family ? k->family : "", g->seconds[i],
            k->flops * (double)g->runs,      k->bytes * (double)g->runs, g->runs
        };
    }
    return g->plan->nlaunches;
}

void sn_profile_enable(sn_session *s, bool on) { s->profile = on; }

void sn_profile_reset(sn_session *s)
{
    for (int i = 0; i < s->program->ngraphs; i++) {
        GraphState *g = &s->graph[i];
        memset(g->seconds, 0, sizeof *g->seconds * (size_t)g->plan->nlaunches);
        g->runs = 0;
    }
}

/* -- Checkpoints ------------------------------------------------------------------------------- */

/* The value of storage i in host memory: where it is, or a copy. */
static const void *fetch_storage(sn_session *s, int i, void **copy)
{
    size_t bytes = tensor_bytes(&s->program->storage[i].t);
    if (address(s, s->storage[i]))
        return address(s, s->storage[i]);
    if (!(*copy = malloc(bytes + 1)))
        snR_fail(s->err, ERR_NOMEM, "out of memory: %zu bytes to save '%s'", bytes, s->program->storage[i].t.name);
    else if (!ops(s)->read(s->device, s->storage[i].mem, s->storage[i].at, *copy, bytes, s->err))
        return *copy;
    return NULL;
}

int sn_save(sn_session *s, const char *path, const char *meta)
{
    const SnProgram *p = s->program;
    const char *pairs[] = { "sinter", meta ? meta : "{}", NULL };
    sn_tensor *t = calloc((size_t)p->nstorage + 1, sizeof *t);
    void **copy = calloc((size_t)p->nstorage + 1, sizeof *copy);
    int rc = t && copy ? settle(s) : snR_fail(s->err, ERR_NOMEM, "out of memory");
    for (int i = 0; i < p->nstorage && !rc; i++) {
        const SnTensorDesc *d = &p->storage[i].t;
        t[i] = (sn_tensor){ .name = d->name,
                            .dtype = d->dtype,
                            .rank = d->rank,
                            .data = fetch_storage(s, i, &copy[i]),
                            .bytes = tensor_bytes(d) };
        memcpy(t[i].dim, d->dim, sizeof t[i].dim);
        rc = t[i].data ? 0 : ERR_DEVICE;
    }
    if (!rc)
        rc = sn_file_write(path, t, p->nstorage, pairs, s->err);
    for (int i = 0; copy && i < p->nstorage; i++)
        free(copy[i]);
    free(copy);
    free(t);
    return rc;
}

static bool same_tensor(const sn_tensor *t, const SnTensorDesc *d)
{
    return t->dtype == d->dtype && t->rank == d->rank &&
           !memcmp(t->dim, d->dim, sizeof *d->dim * d->rank);
}

/* Nothing is changed unless everything fits. */
static int check_checkpoint(sn_session *s, const sn_file *f, const char *path, bool allow_missing)
{
    for (int i = 0; i < s->program->nstorage; i++) {
        const SnTensorDesc *d = &s->program->storage[i].t;
        const sn_tensor *t = sn_file_find(f, d->name);
        if (!t && !allow_missing)
            return snR_fail(s->err, ERR_UNKNOWN, "%s: has no tensor '%s'", path, d->name);
        if (t && !same_tensor(t, d))
            return snR_fail(s->err, ERR_SHAPE,
                            "%s: tensor '%s' is %s with %zu bytes, the program has %s with %zu",
                            path, d->name, snR_dtype_name(t->dtype), t->bytes,
                            snR_dtype_name(d->dtype), tensor_bytes(d));
    }
    return 0;
}

/* A bool in a file may be any byte. */
static int load_storage(sn_session *s, int i, const sn_tensor *t)
{
    const uint8_t *from = t->data;
    uint8_t *bools = t->dtype == DT_BOOL ? malloc(t->bytes + 1) : NULL;
    if (t->dtype == DT_BOOL && !bools)
        return snR_fail(s->err, ERR_NOMEM, "out of memory: %zu bytes to load '%s'", t->bytes, t->name);
    for (size_t k = 0; bools && k < t->bytes; k++)
        bools[k] = from[k] != 0;
    int rc = write_span(s, s->storage[i], bools ? bools : from, t->bytes);
    free(bools);
    return rc;
}

int sn_load(sn_session *s, const char *path, char **meta, bool allow_missing)
{
    sn_file *f = sn_file_open(path, s->err);
    if (meta)
        *meta = NULL;
    if (!f)
        return ERR_IO;
    int rc = check_checkpoint(s, f, path, allow_missing);
    const char *text = sn_file_meta(f, "sinter");
    if (!rc && meta && text && !(*meta = strdup(text)))
        rc = snR_fail(s->err, ERR_NOMEM, "out of memory");
    for (int i = 0; i < s->program->nstorage && !rc; i++) {
        const sn_tensor *t = sn_file_find(f, s->program->storage[i].t.name);
        if (!t)
            continue;
        rc = load_storage(s, i, t);
        s->unset[i] = false;
    }
    sn_file_close(f);
    return rc;
}
