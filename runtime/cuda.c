/* cuda.c: NVIDIA cards: the device `cuda[:N]`, by the driver alone.

   In: a program whose target is ptx:sm_NN; its code is PTX text, which the driver compiles (and keeps, in ~/.nv/ComputeCache), or a cubin
   beside it that suits the card. What kernels take is said at the top of codegen/emit_nvptx.c. Out: a Device. libcuda.so.1, which comes with
   the driver, is opened at run time, and the few declarations that are needed stand here, so that nothing is needed to build.

   The launches of a graph are the nodes of one CUDA graph, each behind the one before, built once and started by one call. Buffers lie where
   they lie; of what changes between runs, values in memory are copied there, and seed, step and micro-step are parameters: nodes of kernels
   that read them get new ones. Per-kernel times come from a second graph with an event between any two nodes.

   Copies go through two halves of pinned memory, so that the host fills (or empties) one while the other is on its way. A write
   returns when its last part is under way; all work is in one stream.

   SN_CUDA_SYNC=1 launches kernels one by one and waits for each: a fault is then reported with its kernel. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- What is needed of cuda.h ------------------------------------------------------------------ */

typedef struct CuContext *CUcontext;
typedef struct CuModule *CUmodule;
typedef struct CuFunction *CUfunction;
typedef struct CuStream *CUstream;
typedef struct CuEvent *CUevent;
typedef struct CuGraph *CUgraph;
typedef struct CuNode *CUgraphNode;
typedef struct CuExec *CUgraphExec;
typedef unsigned long long CUdeviceptr;
typedef struct KernelNode {                      /* CUDA_KERNEL_NODE_PARAMS_v1 */
    CUfunction func;
    unsigned grid[3], block[3], shared;
    void **params, **extra;
} KernelNode;

enum {
    OUT_OF_MEMORY = 2, NO_DEVICE = 100, NO_BINARY = 209, INVALID_PTX = 218, NO_COMPILER = 221, UNSUPPORTED_PTX = 222,
    MAX_THREADS_PER_BLOCK = 1, MULTIPROCESSORS = 16, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76, MAX_SHARED_OPTIN = 97,
    FUNC_MAX_DYNAMIC_SHARED = 8, JIT_ERROR_LOG = 5, JIT_ERROR_LOG_BYTES = 6, STREAM_NON_BLOCKING = 1,
};

/* ours, the driver's, arguments; results are codes, 0 = good */
#define CU_CALLS(X)                                                                                                        \
    X(cuInit, cuInit, (unsigned))                                                                                          \
    X(cuDriverGetVersion, cuDriverGetVersion, (int *))                                                                     \
    X(cuGetErrorString, cuGetErrorString, (int, const char **))                                                            \
    X(cuDeviceGetCount, cuDeviceGetCount, (int *))                                                                         \
    X(cuDeviceGet, cuDeviceGet, (int *, int))                                                                              \
    X(cuDeviceGetName, cuDeviceGetName, (char *, int, int))                                                                \
    X(cuDeviceGetAttribute, cuDeviceGetAttribute, (int *, int, int))                                                       \
    X(cuDeviceTotalMem, cuDeviceTotalMem_v2, (size_t *, int))                                                              \
    X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (CUcontext *, int))                                              \
    X(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (int))                                                      \
    X(cuCtxSetCurrent, cuCtxSetCurrent, (CUcontext))                                                                       \
    X(cuMemGetInfo, cuMemGetInfo_v2, (size_t *, size_t *))                                                                 \
    X(cuMemAlloc, cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                                  \
    X(cuMemFree, cuMemFree_v2, (CUdeviceptr))                                                                              \
    X(cuMemAllocHost, cuMemAllocHost_v2, (void **, size_t))                                                                \
    X(cuMemFreeHost, cuMemFreeHost, (void *))                                                                              \
    X(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, (CUdeviceptr, const void *, size_t, CUstream))                              \
    X(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, (void *, CUdeviceptr, size_t, CUstream))                                    \
    X(cuMemsetD8Async, cuMemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream))                                    \
    X(cuModuleLoadDataEx, cuModuleLoadDataEx, (CUmodule *, const void *, unsigned, int *, void **))                        \
    X(cuModuleUnload, cuModuleUnload, (CUmodule))                                                                          \
    X(cuModuleGetFunction, cuModuleGetFunction, (CUfunction *, CUmodule, const char *))                                    \
    X(cuFuncSetAttribute, cuFuncSetAttribute, (CUfunction, int, int))                                                      \
    X(cuLaunchKernel, cuLaunchKernel, (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,   \
      CUstream, void **, void **))                                                                                         \
    X(cuStreamCreate, cuStreamCreate, (CUstream *, unsigned))                                                              \
    X(cuStreamDestroy, cuStreamDestroy_v2, (CUstream))                                                                     \
    X(cuStreamSynchronize, cuStreamSynchronize, (CUstream))                                                                \
    X(cuEventCreate, cuEventCreate, (CUevent *, unsigned))                                                                 \
    X(cuEventDestroy, cuEventDestroy_v2, (CUevent))                                                                        \
    X(cuEventRecord, cuEventRecord, (CUevent, CUstream))                                                                   \
    X(cuEventSynchronize, cuEventSynchronize, (CUevent))                                                                   \
    X(cuEventElapsedTime, cuEventElapsedTime, (float *, CUevent, CUevent))                                                 \
    X(cuGraphCreate, cuGraphCreate, (CUgraph *, unsigned))                                                                 \
    X(cuGraphDestroy, cuGraphDestroy, (CUgraph))                                                                           \
    X(cuGraphAddKernelNode, cuGraphAddKernelNode, (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const KernelNode *)) \
    X(cuGraphAddEventRecordNode, cuGraphAddEventRecordNode, (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUevent)) \
    X(cuGraphInstantiate, cuGraphInstantiateWithFlags, (CUgraphExec *, CUgraph, unsigned long long))                       \
    X(cuGraphExecKernelNodeSetParams, cuGraphExecKernelNodeSetParams, (CUgraphExec, CUgraphNode, const KernelNode *))      \
    X(cuGraphExecDestroy, cuGraphExecDestroy, (CUgraphExec))                                                               \
    X(cuGraphLaunch, cuGraphLaunch, (CUgraphExec, CUstream))

#define CALL(ours, theirs, args) static int (*ours) args;
CU_CALLS(CALL)
#undef CALL

static char no_driver[ERR_TEXT];     /* why not; empty = every call is there */

static void open_driver(void)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        snR_fail(no_driver, ERR_DEVICE, "no NVIDIA driver here: %s", dlerror());
        return;
    }
#define CALL(ours, theirs, args)                                                                                            \
    if (!(*(void **)&ours = dlsym(lib, #theirs)))                                                                          \
        snR_fail(no_driver, ERR_DEVICE, "libcuda.so.1 has no " #theirs ": a driver for CUDA 11.4 or later is needed");
    CU_CALLS(CALL)
#undef CALL
}

static int failed(char err[ERR_TEXT], const char *call, int code)
{
    const char *why = NULL;
    if (cuGetErrorString(code, &why) || !why)
        why = "unknown error";
    return snR_fail(err, code == OUT_OF_MEMORY ? ERR_NOMEM : ERR_DEVICE, "CUDA: %s: %s (%d)", call, why, code);
}

static int done(char err[ERR_TEXT], const char *call, int code) { return code ? failed(err, call, code) : 0; }

/* A call: 0, or a code of ours with its line in err. */
#define CU(call, ...) done(err, #call, call(__VA_ARGS__))

static int load_driver(char err[ERR_TEXT])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_driver);
    if (no_driver[0])
        return snR_fail(err, ERR_DEVICE, "%s", no_driver);
    int code = cuInit(0);
    if (code == NO_DEVICE)
        return snR_fail(err, ERR_DEVICE, "the NVIDIA driver finds no card");
    return done(err, "cuInit", code);
}

/* -- Cards --------------------------------------------------------------------------------------- */

typedef struct Card { int index, device, sm, units, threads, shared; } Card;

static int attribute(int *out, int what, int device, char err[ERR_TEXT]) { return CU(cuDeviceGetAttribute, out, what, device); }

static int read_card(int index, Card *c, char err[ERR_TEXT])
{
    int major = 0, minor = 0;
    *c = (Card){ .index = index };
    int rc = CU(cuDeviceGet, &c->device, index);
    rc = rc ? rc : attribute(&major, CAPABILITY_MAJOR, c->device, err);
    rc = rc ? rc : attribute(&minor, CAPABILITY_MINOR, c->device, err);
    rc = rc ? rc : attribute(&c->units, MULTIPROCESSORS, c->device, err);
    rc = rc ? rc : attribute(&c->threads, MAX_THREADS_PER_BLOCK, c->device, err);
    rc = rc ? rc : attribute(&c->shared, MAX_SHARED_OPTIN, c->device, err);
    c->sm = 10 * major + minor;
    return rc;
}

static int count_cards(int *n, char err[ERR_TEXT])
{
    *n = 0;
    int rc = load_driver(err);
    return rc ? rc : CU(cuDeviceGetCount, n);
}

/* cuda[:N] */
static int pick_card(const char *name, Card *c, char err[ERR_TEXT])
{
    int which = 0, used = 0, n;
    if (strcmp(name, "cuda") && (sscanf(name, "cuda:%d%n", &which, &used) != 1 || name[used] || which < 0))
        return snR_fail(err, ERR_USAGE, "an NVIDIA card is cuda or cuda:N, not '%s'", name);
    int rc = count_cards(&n, err);
    if (rc)
        return rc;
    if (!n)
        return snR_fail(err, ERR_DEVICE, "the NVIDIA driver finds no card");
    if (which >= n)
        return snR_fail(err, ERR_DEVICE, "there is no device cuda:%d, the last is cuda:%d; `sinter devices` lists them", which, n - 1);
    return read_card(which, c, err);
}

/* 90 of "ptx:sm_90" and of "ptx:sm_90a", which runs on no other card; 0: it is not for cards. */
static int target_sm(const char *target, bool *exactly)
{
    int sm = 0, used = 0;
    if (!target || sscanf(target, "ptx:sm_%d%n", &sm, &used) != 1)
        return 0;
    *exactly = target[used] == 'a';
    return target[used + *exactly] ? 0 : sm;
}

int snR_cuda_rank(const char *target, int sm)
{
    bool exactly;
    int wants = target_sm(target, &exactly);
    return !wants || wants > sm || (exactly && wants != sm) ? -1 : 2 * wants + exactly;
}

int snR_cuda_sm(const char *name, char err[ERR_TEXT])
{
    Card c;
    int rc = pick_card(name, &c, err);
    return rc ? rc : c.sm;
}

/* Cards whose shared memory a target takes for granted: codegen/target.c. */
int snR_cuda_target(const char *name, char target[64], char err[ERR_TEXT])
{
    Card c;
    int rc = pick_card(name, &c, err);
    if (rc)
        return rc;
    if (c.sm < 80)
        return snR_fail(err, ERR_UNSUPPORTED, "cuda:%d is sm_%d: kernels are made for sm_80 (A100) and later", c.index, c.sm);
    int sm = c.sm >= 90 && c.shared >= 227 << 10 ? 90 : c.sm >= 89 ? 89 : c.sm >= 86 ? 86 : 80;
    snprintf(target, 64, "ptx:sm_%d", sm);
    return 0;
}

static void card_name(const Card *c, char out[96])
{
    memset(out, 0, 96);
    if (cuDeviceGetName(out, 95, c->device))
        snprintf(out, 96, "a card");
}

int snR_cuda_devices(sn_device_info *out, int cap)
{
    char err[ERR_TEXT], name[96];
    int n, version = 0, listed = 0;
    Card c;
    if (count_cards(&n, err) || cuDriverGetVersion(&version))
        return 0;
    for (int i = 0; i < n && listed < cap; i++) {
        size_t bytes = 0;
        if (read_card(i, &c, err) || cuDeviceTotalMem(&bytes, c.device))
            continue;
        card_name(&c, name);
        sn_device_info *d = &out[listed++];
        memset(d, 0, sizeof *d);
        d->cores = c.units;
        snprintf(d->name, sizeof d->name, "cuda:%d", i);
        snprintf(d->what, sizeof d->what, "%s, sm_%d, %.1f GiB, driver for CUDA %d.%d", name, c.sm, (double)bytes / (1 << 30), version / 1000, version % 1000 / 10);
    }
    return listed;
}

/* -- A card that is open --------------------------------------------------------------------------- */

enum { HALF = 8 << 20 };                         /* bytes; of a copy through pinned memory */

typedef struct Half { char *host; CUevent done; bool busy; } Half;

typedef struct Cuda {
    Device base;
    const SnProgram *p;
    Card card;
    CUcontext context;
    CUstream stream;
    CUmodule module;
    CUfunction *function;                        /* per kernel of the program */
    Half half[2];
    int next;                                    /* the half to be used next */
    CUdeviceptr scratch;
    bool one_by_one;
} Cuda;

typedef struct Memory { CUdeviceptr at; } Memory;

/* The thread that calls may be another one than last time. */
static int enter(const Cuda *c, char err[ERR_TEXT]) { return CU(cuCtxSetCurrent, c->context); }

static int allocate(Cuda *c, size_t bytes, CUdeviceptr *out, char err[ERR_TEXT])
{
    size_t room = 0, all = 0;
    int code = cuMemAlloc(out, bytes);
    if (code != OUT_OF_MEMORY)
        return done(err, "cuMemAlloc", code);
    cuMemGetInfo(&room, &all);
    return snR_fail(err, ERR_NOMEM, "out of memory: %.2f GB asked, %.2f of %.2f GB are free on cuda:%d", (double)bytes * 1e-9, (double)room * 1e-9,
                    (double)all * 1e-9, c->card.index);
}

static void *cuda_alloc(Device *d, size_t bytes, char err[ERR_TEXT])
{
    Cuda *c = (Cuda *)d;
    Memory *m = calloc(1, sizeof *m);
    if (!m || bytes > SIZE_MAX / 2)
        snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes asked", bytes);
    else if (!enter(c, err) && !allocate(c, (bytes + 127) / 64 * 64, &m->at, err))
        return m;                                /* rounded up: a vector read at the end stays inside */
    free(m);
    return NULL;
}

static void cuda_release(Device *d, void *mem)
{
    Memory *m = mem;
    if (!m)
        return;
    cuCtxSetCurrent(((Cuda *)d)->context);
    cuMemFree(m->at);
    free(m);
}

/* -- Copies ------------------------------------------------------------------------------------------ */

static int wait_half(Half *h, char err[ERR_TEXT])
{
    int rc = h->busy ? CU(cuEventSynchronize, h->done) : 0;
    h->busy = false;
    return rc;
}

static int sent(Cuda *c, Half *h, char err[ERR_TEXT])
{
    h->busy = true;
    return CU(cuEventRecord, h->done, c->stream);
}

static int cuda_write(Device *d, void *mem, size_t at, const void *data, size_t bytes, char err[ERR_TEXT])
{
    Cuda *c = (Cuda *)d;
    CUdeviceptr to = ((Memory *)mem)->at + at;
    int rc = enter(c, err);
    for (size_t i = 0; i < bytes && !rc; i += HALF) {
        size_t n = bytes - i < HALF ? bytes - i : HALF;
        Half *h = &c->half[c->next ^= 1];
        if ((rc = wait_half(h, err)))
            break;
        memcpy(h->host, (const char *)data + i, n);
        rc = CU(cuMemcpyHtoDAsync, to + i, h->host, n, c->stream);
        rc = rc ? rc : sent(c, h, err);
    }
    return rc;
}

static int cuda_read(Device *d, void *mem, size_t at, void *out, size_t bytes, char err[ERR_TEXT])
{
    Cuda *c = (Cuda *)d;
    CUdeviceptr from = ((Memory *)mem)->at + at;
    size_t parts = (bytes + HALF - 1) / HALF;
    int rc = enter(c, err);
    for (size_t k = 0; k <= parts && parts && !rc; k++) {        /* part k is sent for, part k - 1 comes */
        if (k < parts) {
            size_t n = bytes - k * HALF < HALF ? bytes - k * HALF : HALF;
            Half *h = &c->half[k & 1];
            rc = wait_half(h, err);
            rc = rc ? rc : CU(cuMemcpyDtoHAsync, h->host, from + k * HALF, n, c->stream);
            rc = rc ? rc : sent(c, h, err);
        }
        if (k && !rc && !(rc = wait_half(&c->half[~k & 1], err))) {
            size_t i = (k - 1) * HALF;
            memcpy((char *)out + i, c->half[~k & 1].host, bytes - i < HALF ? bytes - i : HALF);
        }
    }
    return rc;
}

static int cuda_poison(Device *d, void *mem, size_t bytes, char err[ERR_TEXT])
{
    Cuda *c = (Cuda *)d;
    int rc = enter(c, err);
    return rc || !bytes ? rc : CU(cuMemsetD8Async, ((Memory *)mem)->at, 0xff, bytes, c->stream);
}

/* -- Launches ------------------------------------------------------------------------------------------ */

enum { SYSTEM = 4, EXTRA = SYSTEM + 1 };         /* parameters behind the buffers: seed, seed, step, micro; scratch */

/* A CUDA graph that can be started, and what its nodes hold. */
typedef struct Started { CUgraph graph; CUgraphExec exec; CUgraphNode *node; uint32_t sys[SYSTEM]; } Started;

typedef struct Launches {
    const SnGraphPlan *plan;
    CUdeviceptr *address;                        /* of every launch's buffers */
    void **param;                                /* every launch's parameters: nargs + EXTRA pointers each */
    uint32_t sys[SYSTEM];                        /* what those behind the buffers point to */
    Started plain, timed;
    CUevent *event;                              /* of `timed`: before the first launch and behind each */
} Launches;

static const SnKernelDesc *kernel_of(const Cuda *c, const SnGraphPlan *g, int i) { return &c->p->kernels[g->launches[i].kernel]; }

static void end_started(Started *s)
{
    if (s->exec)
        cuGraphExecDestroy(s->exec);
    if (s->graph)
        cuGraphDestroy(s->graph);
    free(s->node);
    *s = (Started){ 0 };
}

static void cuda_discard(Device *d, void *prepared)
{
    Launches *l = prepared;
    cuCtxSetCurrent(((Cuda *)d)->context);
    end_started(&l->plain);
    end_started(&l->timed);
    for (int i = 0; l->event && i <= l->plan->nlaunches; i++)
        if (l->event[i])
            cuEventDestroy(l->event[i]);
    free(l->event);
    free(l->address);
    free(l->param);
    free(l);
}

static KernelNode node_of(const Cuda *c, const SnLaunch *l, void **param)
{
    const SnKernelDesc *k = &c->p->kernels[l->kernel];
    return (KernelNode){ c->function[l->kernel], { (unsigned)k->grid, 1, 1 }, { (unsigned)k->threads, 1, 1 }, (unsigned)k->shared_bytes, param, NULL };
}

/* The list as a graph, one node behind the other; with events, one before all and one behind each launch. */
static int build(Cuda *c, Launches *l, Started *s, const CUevent *event, char err[ERR_TEXT])
{
    int n = l->plan->nlaunches;
    void **param = l->param;
    CUgraphNode before = NULL;
    s->node = calloc((size_t)n + 1, sizeof *s->node);
    memcpy(s->sys, l->sys, sizeof s->sys);
    int rc = s->node ? CU(cuGraphCreate, &s->graph, 0) : snR_fail(err, ERR_NOMEM, "out of memory");
    if (!rc && event)
        rc = CU(cuGraphAddEventRecordNode, &before, s->graph, NULL, 0, event[0]);
    for (int i = 0; i < n && !rc; i++) {
        KernelNode k = node_of(c, &l->plan->launches[i], param);
        param += l->plan->launches[i].nargs + EXTRA;
        if (k.grid[0]) {
            rc = CU(cuGraphAddKernelNode, &s->node[i], s->graph, &before, before ? 1 : 0, &k);
            before = s->node[i];
        }
        CUgraphNode behind = before;
        if (!rc && event && !(rc = CU(cuGraphAddEventRecordNode, &behind, s->graph, &before, 1, event[i + 1])))
            before = behind;
    }
    rc = rc ? rc : CU(cuGraphInstantiate, &s->exec, s->graph, 0);
    if (rc)
        end_started(s);
    return rc;
}

static void set_params(Cuda *c, Launches *l, const Span *buf)
{
    CUdeviceptr *address = l->address;
    void **param = l->param;
    for (int i = 0; i < l->plan->nlaunches; i++) {
        const SnLaunch *one = &l->plan->launches[i];
        for (int k = 0; k < one->nargs; k++) {
            const Span *s = &buf[one->args[k]];
            *address = ((Memory *)s->mem)->at + s->at;
            *param++ = address++;
        }
        for (int k = 0; k < SYSTEM; k++)
            *param++ = &l->sys[k];
        *param++ = &c->scratch;
    }
}

static void *cuda_prepare(Device *d, const SnGraphPlan *g, const Span *buf, char err[ERR_TEXT])
{
    Cuda *c = (Cuda *)d;
    Launches *l = calloc(1, sizeof *l);
    size_t args = 1, params = 1;
    for (int i = 0; i < g->nlaunches; i++) {
        args += (size_t)g->launches[i].nargs;
        params += (size_t)g->launches[i].nargs + EXTRA;
    }
    int rc = l ? enter(c, err) : snR_fail(err, ERR_NOMEM, "out of memory");
    if (!l)
        return NULL;
    l->plan = g;
    l->address = calloc(args, sizeof *l->address);
    l->param = calloc(params, sizeof *l->param);
    if (!rc && (!l->address || !l->param))
        rc = snR_fail(err, ERR_NOMEM, "out of memory");
    if (!rc)
        set_params(c, l, buf);
    if (!rc && !c->one_by_one)
        rc = build(c, l, &l->plain, NULL, err);
    if (!rc)
        return l;
    cuda_discard(d, l);
    return NULL;
}

/* New parameters for the nodes whose kernels read what has changed. */
static int renew(Cuda *c, Launches *l, Started *s, char err[ERR_TEXT])
{
    void **param = l->param;
    int rc = 0;
    if (!memcmp(s->sys, l->sys, sizeof s->sys))
        return 0;
    for (int i = 0; i < l->plan->nlaunches && !rc; i++) {
        KernelNode k = node_of(c, &l->plan->launches[i], param);
        param += l->plan->launches[i].nargs + EXTRA;
        if (s->node[i] && !kernel_of(c, l->plan, i)->timeless)
            rc = CU(cuGraphExecKernelNodeSetParams, s->exec, s->node[i], &k);
    }
    if (!rc)
        memcpy(s->sys, l->sys, sizeof s->sys);
    return rc;
}

static int prepare_timed(Cuda *c, Launches *l, char err[ERR_TEXT])
{
    int n = l->plan->nlaunches, rc = 0;
    if (l->timed.exec)
        return 0;
    if (!l->event && !(l->event = calloc((size_t)n + 1, sizeof *l->event)))
        return snR_fail(err, ERR_NOMEM, "out of memory");
    for (int i = 0; i <= n && !rc; i++)
        rc = l->event[i] ? 0 : CU(cuEventCreate, &l->event[i], 0);
    return rc ? rc : build(c, l, &l->timed, l->event, err);
}

static int add_times(const Launches *l, double *seconds, char err[ERR_TEXT])
{
    int rc = 0;
    for (int i = 0; i < l->plan->nlaunches && !rc; i++) {
        float ms = 0;
        rc = CU(cuEventElapsedTime, &ms, l->event[i], l->event[i + 1]);
        seconds[i] += 1e-3 * ms;
    }
    return rc;
}

/* The error of a whole graph does not say which kernel it was. */
static int graph_failed(const Launches *l, int code, char err[ERR_TEXT])
{
    char why[ERR_TEXT];
    int rc = failed(why, "cuStreamSynchronize", code);
    return snR_fail(err, rc, "graph '%s': %.120s; SN_CUDA_SYNC=1 names the kernel, --device emu says where in it", l->plan->name, why);
}

static int run_one_by_one(Cuda *c, Launches *l, double *seconds, char err[ERR_TEXT])
{
    void **param = l->param;
    int rc = 0;
    for (int i = 0; i < l->plan->nlaunches && !rc; i++) {
        const SnKernelDesc *k = kernel_of(c, l->plan, i);
        KernelNode n = node_of(c, &l->plan->launches[i], param);
        double before = snR_now();
        param += l->plan->launches[i].nargs + EXTRA;
        if (!k->grid)
            continue;
        int code = cuLaunchKernel(n.func, n.grid[0], 1, 1, n.block[0], 1, 1, n.shared, c->stream, n.params, NULL);
        code = code ? code : cuStreamSynchronize(c->stream);
        char why[ERR_TEXT];
        if (code && (rc = failed(why, "cuLaunchKernel", code)))
            rc = snR_fail(err, rc, "graph '%s', launch %d, kernel '%s' (%s): %.120s", l->plan->name, i, k->label, k->symbol, why);
        if (seconds)
            seconds[i] += snR_now() - before;
    }
    return rc;
}

static int cuda_run(Device *d, void *prepared, const SnLaunchArgs *la, double *seconds, char err[ERR_TEXT])
{
    Cuda *c = (Cuda *)d;
    Launches *l = prepared;
    Started *s = seconds ? &l->timed : &l->plain;
    memcpy(l->sys, (const uint32_t[SYSTEM]){ la->seed[0], la->seed[1], la->step, la->micro }, sizeof l->sys);
    int rc = enter(c, err);
    if (rc || c->one_by_one)
        return rc ? rc : run_one_by_one(c, l, seconds, err);
    if (seconds)
        rc = prepare_timed(c, l, err);
    rc = rc ? rc : renew(c, l, s, err);
    rc = rc ? rc : CU(cuGraphLaunch, s->exec, c->stream);
    int code = rc ? 0 : cuStreamSynchronize(c->stream);
    rc = code ? graph_failed(l, code, err) : rc;
    return rc || !seconds ? rc : add_times(l, seconds, err);
}

/* -- Code -------------------------------------------------------------------------------------------------- */

static int driver_version(void)
{
    int v = 0;
    return cuDriverGetVersion(&v) ? 0 : v;
}

/* ".version 8.5" of a PTX text */
static void ptx_version(const char *text, char out[16])
{
    const char *v = strstr(text, ".version");
    if (!v || sscanf(v, ".version %15[0-9.]", out) != 1)
        snprintf(out, 16, "?");
}

static int load_failed(const Cuda *c, int code, const char *text, const char *log, char err[ERR_TEXT])
{
    char version[16], path[64];
    int v = driver_version();
    ptx_version(text, version);
    if (code == UNSUPPORTED_PTX)
        return snR_fail(err, ERR_DEVICE, "the driver (for CUDA %d.%d) is older than the program's PTX %s: update the driver, or build with --cubin", v / 1000,
                        v % 1000 / 10, version);
    if (code == NO_COMPILER)
        return snR_fail(err, ERR_DEVICE, "the driver has no PTX compiler here (libnvidia-ptxjitcompiler.so.1): install it, or build with --cubin");
    if (code == NO_BINARY)
        return snR_fail(err, ERR_DEVICE, "the code for %s does not run on cuda:%d (sm_%d): build with -t ptx:sm_80", c->p->target, c->card.index, c->card.sm);
    if (code != INVALID_PTX && !*log)
        return failed(err, "cuModuleLoadDataEx", code);
    const char *first = strstr(log, "error");
    snR_keep_log("cuda", log, text, strlen(text), path);
    return snR_fail(err, ERR_DEVICE, "CUDA: cuModuleLoadDataEx (%d): %.120s; log and PTX: %s", code, first ? first : *log ? log : "no log", path);
}

static int load_ptx(Cuda *c, char err[ERR_TEXT])
{
    enum { LOG = 1 << 14 };
    int option[2] = { JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES };
    char *text = strndup(c->p->code, c->p->code_bytes), *log = calloc(1, LOG + 1);
    void *value[2] = { log, (void *)(uintptr_t)LOG };
    int rc = text && log ? 0 : snR_fail(err, ERR_NOMEM, "out of memory");
    int code = rc ? 0 : cuModuleLoadDataEx(&c->module, text, 2, option, value);
    if (code == OUT_OF_MEMORY)
        rc = failed(err, "cuModuleLoadDataEx", code);
    else if (code)
        rc = load_failed(c, code, text, log, err);
    free(text);
    free(log);
    return rc;
}

/* A cubin runs on cards of its generation, from its own on. One that the driver does not take leaves the PTX. */
static int load_code(Cuda *c, char err[ERR_TEXT])
{
    bool exactly;
    int made_for = target_sm(c->p->target, &exactly);
    if (c->p->cubin_bytes && made_for / 10 == c->card.sm / 10) {
        int code = cuModuleLoadDataEx(&c->module, c->p->cubin, 0, NULL, NULL);
        if (!code || code == OUT_OF_MEMORY)
            return done(err, "cuModuleLoadDataEx", code);
    }
    return load_ptx(c, err);
}

/* The kernels, and leave for large shared memory. */
static int find_kernels(Cuda *c, char err[ERR_TEXT])
{
    enum { WITHOUT_LEAVE = 48 << 10 };
    int rc = 0;
    c->function = calloc((size_t)c->p->nkernels + 1, sizeof *c->function);
    if (!c->function)
        return snR_fail(err, ERR_NOMEM, "out of memory");
    for (int i = 0; i < c->p->nkernels && !rc; i++) {
        const SnKernelDesc *k = &c->p->kernels[i];
        rc = CU(cuModuleGetFunction, &c->function[i], c->module, k->symbol);
        if (!rc && k->shared_bytes > WITHOUT_LEAVE)
            rc = CU(cuFuncSetAttribute, c->function[i], FUNC_MAX_DYNAMIC_SHARED, (int)k->shared_bytes);
    }
    return rc;
}

/* Scratch of every block of the kernel that takes most. */
static int open_scratch(Cuda *c, char err[ERR_TEXT])
{
    size_t most = 64;
    for (int i = 0; i < c->p->nkernels; i++) {
        const SnKernelDesc *k = &c->p->kernels[i];
        size_t bytes = ((size_t)k->scratch_bytes + 63) / 64 * 64 * (size_t)k->grid;
        most = bytes > most ? bytes : most;
    }
    char why[ERR_TEXT];
    int rc = allocate(c, most, &c->scratch, why);
    return rc ? snR_fail(err, rc, "scratch memory of the kernels: %.180s", why) : 0;
}

/* -- Life ---------------------------------------------------------------------------------------------------- */

static void cuda_close(Device *d)
{
    Cuda *c = (Cuda *)d;
    if (c->context) {
        cuCtxSetCurrent(c->context);
        if (c->stream)
            cuStreamSynchronize(c->stream);
        for (int i = 0; i < 2; i++) {
            if (c->half[i].done)
                cuEventDestroy(c->half[i].done);
            if (c->half[i].host)
                cuMemFreeHost(c->half[i].host);
        }
        if (c->scratch)
            cuMemFree(c->scratch);
        if (c->module)
            cuModuleUnload(c->module);
        if (c->stream)
            cuStreamDestroy(c->stream);
        cuDevicePrimaryCtxRelease(c->card.device);
    }
    free(c->function);
    free(c);
}

static const DeviceOps ops = {
    .close = cuda_close, .alloc = cuda_alloc, .release = cuda_release, .write = cuda_write, .read = cuda_read, .poison = cuda_poison,
    .prepare = cuda_prepare, .discard = cuda_discard, .run = cuda_run,
};

static int open_stream(Cuda *c, char err[ERR_TEXT])
{
    int rc = CU(cuDevicePrimaryCtxRetain, &c->context, c->card.device);
    rc = rc ? rc : enter(c, err);
    rc = rc ? rc : CU(cuStreamCreate, &c->stream, STREAM_NON_BLOCKING);
    for (int i = 0; i < 2 && !rc; i++) {
        rc = CU(cuMemAllocHost, (void **)&c->half[i].host, HALF);
        rc = rc ? rc : CU(cuEventCreate, &c->half[i].done, 0);
    }
    return rc;
}

/* Is this a program for this card? */
static int check_program(const SnProgram *p, const Card *card, char err[ERR_TEXT])
{
    bool exactly = false;
    int wants = target_sm(p->target, &exactly);
    if (!wants)
        return snR_fail(err, ERR_UNSUPPORTED, "the program was compiled for '%s', not for cuda: build with -t ptx:sm_80", p->target);
    if (snR_cuda_rank(p->target, card->sm) < 0)
        return snR_fail(err, ERR_UNSUPPORTED, "the program was compiled for %s, cuda:%d is sm_%d: build with -t ptx:sm_%d", p->target, card->index, card->sm,
                        card->sm > 80 && exactly && card->sm > wants ? wants : 80);
    if (!p->code || !p->code_bytes)
        return snR_fail(err, ERR_PROGRAM, "the program for '%s' holds no PTX", p->target);
    for (int i = 0; i < p->nkernels; i++) {
        const SnKernelDesc *k = &p->kernels[i];
        if (k->threads < 1 || k->grid > INT32_MAX)
            return snR_fail(err, ERR_PROGRAM, "kernel '%s' is no kernel of thread blocks", k->symbol);
        if (k->threads > card->threads || k->shared_bytes > card->shared)
            return snR_fail(err, ERR_UNSUPPORTED, "kernel '%s' wants %d threads and %lld bytes of shared memory a block, cuda:%d has %d and %d: build with "
                            "-t ptx:sm_86", k->label ? k->label : k->symbol, k->threads, (long long)k->shared_bytes, card->index, card->threads, card->shared);
    }
    return 0;
}

Device *snR_cuda_open(const SnProgram *p, const char *name, char err[ERR_TEXT])
{
    Card card;
    const char *sync = getenv("SN_CUDA_SYNC");
    if (pick_card(name, &card, err) || check_program(p, &card, err))
        return NULL;
    Cuda *c = calloc(1, sizeof *c);
    if (!c) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        return NULL;
    }
    c->base.ops = &ops;
    c->p = p;
    c->card = card;
    c->one_by_one = sync && *sync && *sync != '0';
    if (!open_stream(c, err) && !load_code(c, err) && !find_kernels(c, err) && !open_scratch(c, err))
        return &c->base;
    cuda_close(&c->base);
    return NULL;
}
