/* fake_cuda.c: a libcuda.so.1 without a card: the part of the driver API that runtime/cuda.c calls, with kernels executed by the emulator.

   In: calls. Out: what a card would do, strictly: work of a stream is put off until someone waits for it, so that memory that is reused or
   freed too early gives wrong results; handles are checked, so that a wrong one is an error; what still lives when the process ends is
   printed. Launches give the bits of the device emu: a fault in a kernel is printed, and every call after it fails.

     SN_FAKE_CUDA=sm=90,cards=2,memory=1000000000,shared=232448,driver=12040,ptx=85    what the driver says it is (these are the defaults, but for one card)
     SN_FAKE_CUDA=idle=1      kernels do nothing, each in a microsecond, and memory is zeros: to walk through long work (tools/gpu.sh pack)
     SN_FAKE_CUDA_FAIL=n      the n-th call fails; -n: and all that follow, as after a fault in a kernel
     SN_FAKE_CUDA_COUNT=file  gets the number of calls

   fake_cuda_fail(n) and fake_cuda_live() are for tests in the same process. */
#define _GNU_SOURCE
#include "runtime/emu_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define API __attribute__((visibility("default"))) int
enum {
    INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, NO_BINARY = 209, INVALID_PTX = 218, UNSUPPORTED_PTX = 222,
    INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, UNKNOWN = 999, WITHOUT_LEAVE = 48 << 10
};

/* -- Failing ---------------------------------------------------------------------------------------------------------------- */

static int64_t fail_at, calls;
static int broken;                               /* the code of all calls from now on */

API fake_cuda_fail(int64_t n) { return fail_at = n, calls = 0, broken = 0; }

/* One call more; `code` if it is to fail. */
static int refused(int code) {
    calls++;
    if (broken) return broken;
    if (fail_at && calls == (fail_at < 0 ? -fail_at : fail_at)) {
        if (fail_at < 0) broken = ILLEGAL_ADDRESS;
        return fail_at < 0 ? broken : code;
    }
    return 0;
}
#define ENTER(code) do { int no_ = refused(code); if (no_) return no_; } while (0)

/* -- What the driver is -------------------------------------------------------------------------------------------------------- */

static int64_t fact(const char *name, int64_t otherwise) {
    const char *s = getenv("SN_FAKE_CUDA"), *at = s;
    size_t n = strlen(name);
    while (at && (at = strstr(at, name))) {
        if ((at == s || at[-1] == ',') && at[n] == '=') return strtoll(at + n + 1, NULL, 10);
        at += n;
    }
    return otherwise;
}
static int cards(void) { return (int)fact("cards", 1); }
static int sm(void) { return (int)fact("sm", 90); }
static int64_t most_shared(void) { return fact("shared", 227 << 10); }
static bool idle(void) { return fact("idle", 0) != 0; }

API cuInit(unsigned flags) { ENTER(UNKNOWN); return flags ? INVALID_VALUE : cards() ? 0 : NO_DEVICE; }
API cuDriverGetVersion(int *v) { ENTER(UNKNOWN); return *v = (int)fact("driver", 12040), 0; }
API cuDeviceGetCount(int *n) { ENTER(UNKNOWN); return *n = cards(), 0; }
API cuDeviceGet(int *d, int i) { ENTER(UNKNOWN); return i < 0 || i >= cards() ? INVALID_DEVICE : (*d = 100 + i, 0); }
API cuDeviceGetName(char *s, int n, int d) { ENTER(UNKNOWN); return snprintf(s, (size_t)n, "Fake card %d", d - 100), 0; }
API cuDeviceTotalMem_v2(size_t *n, int d) { ENTER(UNKNOWN); return d < 100 ? INVALID_DEVICE : (*n = (size_t)fact("memory", 1000000000), 0); }

API cuDeviceGetAttribute(int *v, int what, int d) {
    ENTER(UNKNOWN);
    if (d < 100) return INVALID_DEVICE;
    *v = what == 75 ? sm() / 10 : what == 76 ? sm() % 10 : what == 16 ? 132 : what == 1 ? 1024 : what == 97 ? (int)most_shared() : -1;
    return *v < 0 ? INVALID_VALUE : 0;
}

API cuGetErrorString(int code, const char **s) {
    static const struct { int code; const char *text; } all[] = {
        { INVALID_VALUE, "invalid argument" }, { OUT_OF_MEMORY, "out of memory" }, { NO_DEVICE, "no CUDA-capable device is detected" },
        { INVALID_HANDLE, "invalid resource handle" }, { NOT_FOUND, "named symbol not found" }, { ILLEGAL_ADDRESS, "an illegal memory access was encountered" },
        { UNKNOWN, "unknown error" } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].code == code) return *s = all[i].text, 0;
    return *s = "?", INVALID_VALUE;
}

/* -- Handles: everything that lives, by kind ------------------------------------------------------------------------------------- */

typedef enum { CONTEXT = 1, MEMORY, PINNED, MODULE, STREAM, EVENT, GRAPH, EXEC, NKINDS } Kind;
static const char *const kinds[] = { "", "contexts", "pieces of memory", "pieces of pinned memory", "modules", "streams", "events", "graphs", "executable graphs" };
typedef struct Thing { struct Thing *next; Kind kind; void *p; size_t bytes; int range; } Thing;
static Thing *things;

static Thing *find(Kind kind, const void *p) {
    for (Thing *t = things; t; t = t->next) if (t->kind == kind && t->p == p) return t;
    return NULL;
}

static Thing *add(Kind kind, void *p, size_t bytes) {
    Thing *t = calloc(1, sizeof *t);
    if (!t) abort();
    *t = (Thing){ things, kind, p, bytes, -1 };
    return things = t;
}

static int drop(Kind kind, void *p) {
    for (Thing **at = &things; *at; at = &(*at)->next) {
        Thing *t = *at;
        if (t->kind != kind || t->p != p) continue;
        *at = t->next;
        free(t);
        return 0;
    }
    return INVALID_HANDLE;
}

API fake_cuda_live(void) {
    int n = 0;
    for (Thing *t = things; t; t = t->next) n++;
    return n;
}

static __attribute__((destructor)) void finish(void) {
    const char *path = getenv("SN_FAKE_CUDA_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (f) fprintf(f, "%lld\n", (long long)calls), fclose(f);
    for (Kind k = 1; k < NKINDS; k++) {
        int n = 0;
        for (Thing *t = things; t; t = t->next) n += t->kind == k;
        if (n) fprintf(stderr, "fake cuda: %d %s left\n", n, kinds[k]);
    }
}

/* -- Contexts ------------------------------------------------------------------------------------------------------------------------ */

static int retained;
static bool current;

API cuDevicePrimaryCtxRetain(void **c, int d) {
    ENTER(OUT_OF_MEMORY);
    if (d < 100) return INVALID_DEVICE;
    if (!retained++) add(CONTEXT, &retained, 0);
    return *c = &retained, 0;
}

API cuDevicePrimaryCtxRelease_v2(int d) {
    int rc = refused(UNKNOWN);
    if (d < 100 || !retained) return INVALID_HANDLE;
    if (!--retained) drop(CONTEXT, &retained), current = false;
    return rc;
}

API cuCtxSetCurrent(void *c) { ENTER(UNKNOWN); return current = c == &retained && retained, current ? 0 : INVALID_HANDLE; }

/* -- Memory: ranges of the emulator's address space; a freed one's number is used again ---------------------------------------------------- */

enum { MAX_RANGES = 4096 };
static EmuRange ranges[MAX_RANGES];
static int nranges;
static int64_t in_use;

static int drain_all(void);

API cuMemGetInfo_v2(size_t *room, size_t *all) {
    ENTER(UNKNOWN);
    *all = (size_t)fact("memory", 1000000000);
    return *room = *all - (size_t)in_use, 0;
}

/* Not zeros, nobody may count on them; idle: pages that cost nothing before they are written. */
static void *take(size_t bytes) {
    void *p = NULL;
    if (idle()) return p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), p == MAP_FAILED ? NULL : p;
    return posix_memalign(&p, 256, bytes) ? NULL : memset(p, 0xa5, bytes);
}

static void give_back(void *p, size_t bytes) {
    if (idle()) munmap(p, bytes);
    else free(p);
}

API cuMemAlloc_v2(uint64_t *out, size_t bytes) {
    ENTER(OUT_OF_MEMORY);
    int r = 0;
    if (!current || !bytes) return INVALID_VALUE;
    if (in_use + (int64_t)bytes > fact("memory", 1000000000)) return OUT_OF_MEMORY;
    while (r < nranges && ranges[r].host) r++;
    if (r == MAX_RANGES) return OUT_OF_MEMORY;
    void *host = take(bytes);
    if (!host) return OUT_OF_MEMORY;
    if (r == nranges) nranges++;
    ranges[r] = (EmuRange){ .host = host, .bytes = bytes, .name = "device memory" };
    add(MEMORY, host, bytes)->range = r;
    in_use += (int64_t)bytes;
    return *out = snE_address(r, 0), 0;
}

/* The bytes behind a device address; NULL: not so many. */
static uint8_t *device(uint64_t at, size_t bytes) {
    for (int r = 0; r < nranges; r++) {
        uint64_t base = snE_address(r, 0);
        if (ranges[r].host && at >= base && at - base <= ranges[r].bytes && bytes <= ranges[r].bytes - (at - base)) return (uint8_t *)ranges[r].host + (at - base);
    }
    return NULL;
}

API cuMemFree_v2(uint64_t at) {
    int rc = refused(UNKNOWN), late = drain_all();
    for (int r = 0; r < nranges; r++) {
        if (!ranges[r].host || snE_address(r, 0) != at) continue;
        drop(MEMORY, ranges[r].host);
        in_use -= (int64_t)ranges[r].bytes;
        give_back(ranges[r].host, ranges[r].bytes);
        ranges[r] = (EmuRange){ 0 };
        return rc ? rc : late;
    }
    return INVALID_VALUE;
}

API cuMemAllocHost_v2(void **out, size_t bytes) {
    ENTER(OUT_OF_MEMORY);
    if (!current || !(*out = malloc(bytes + 1))) return OUT_OF_MEMORY;
    add(PINNED, *out, bytes);
    return 0;
}

API cuMemFreeHost(void *p) {
    int rc = refused(UNKNOWN), bad = drop(PINNED, p);
    if (!bad) free(p);
    return bad ? bad : rc;
}

static bool is_pinned(const void *p, size_t bytes) {
    for (Thing *t = things; t; t = t->next)
        if (t->kind == PINNED && (const char *)p >= (char *)t->p && (const char *)p + bytes <= (char *)t->p + t->bytes) return true;
    return false;
}

/* -- Modules ------------------------------------------------------------------------------------------------------------------------------ */

typedef struct Module Module;
typedef struct Function { struct Function *next; Module *module; const EmuKernel *kernel; int64_t shared; } Function;
struct Module { EmuModule *emu; Function *functions; };
static Pool *pool;

/* What run.sh has for ptxas makes such cubins: this, and the PTX. */
static const char CUBIN[] = "\177ELFfake";

static int version_of(const char *text) {
    int major = 0, minor = 0;
    const char *v = strstr(text, ".version");
    return v && sscanf(v, ".version %d.%d", &major, &minor) == 2 ? 10 * major + minor : 0;
}

API cuModuleLoadDataEx(Module **out, const void *image, unsigned n, const int *option, void **value) {
    ENTER(OUT_OF_MEMORY);
    const char *text = image, *target;
    char err[ERR_TEXT], *log = NULL;
    size_t log_bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        if (option[i] == 5) log = value[i];
        if (option[i] == 6) log_bytes = (size_t)(uintptr_t)value[i];
    }
    if (!current) return INVALID_VALUE;
    bool cubin = !strncmp(text, CUBIN, sizeof CUBIN - 1);
    if (cubin) text += sizeof CUBIN - 1;
    if (!cubin && version_of(text) > fact("ptx", 85)) return UNSUPPORTED_PTX;
    if ((target = strstr(text, ".target sm_")) && atoi(target + 11) > sm()) return NO_BINARY;
    if (cubin && target && atoi(target + 11) / 10 != sm() / 10) return NO_BINARY;
    if (cubin && getenv("SN_FAKE_CUDA_COUNT")) fprintf(stderr, "fake cuda: a cubin was loaded\n");
    EmuModule *m = snE_load(text, strlen(text), err);
    if (!m) return log && log_bytes ? snprintf(log, log_bytes, "ptxas application ptx input, error : %s", err) : 0, INVALID_PTX;
    Module *mod = calloc(1, sizeof *mod);
    if (!mod) abort();
    mod->emu = m;
    add(MODULE, mod, 0);
    return *out = mod, 0;
}

API cuModuleUnload(Module *m) {
    int rc = refused(UNKNOWN), bad = drop(MODULE, m);
    if (bad) return bad;
    for (Function *f = m->functions, *next; f; f = next) next = f->next, free(f);
    snE_free(m->emu);
    free(m);
    return rc;
}

API cuModuleGetFunction(Function **out, Module *m, const char *name) {
    ENTER(UNKNOWN);
    if (!find(MODULE, m)) return INVALID_HANDLE;
    for (int i = 0; i < m->emu->nkernels; i++) {
        if (strcmp(m->emu->kernel[i].name, name) != 0) continue;
        Function *f = calloc(1, sizeof *f);
        if (!f) abort();
        *f = (Function){ m->functions, m, &m->emu->kernel[i], WITHOUT_LEAVE };
        return *out = m->functions = f, 0;
    }
    return NOT_FOUND;
}

API cuFuncSetAttribute(Function *f, int what, int value) {
    ENTER(UNKNOWN);
    if (what != 8 || value > most_shared()) return INVALID_VALUE;
    return f->shared = value, 0;
}

/* -- Launches: a kernel with the values of its parameters ------------------------------------------------------------------------------------ */

typedef struct KernelNode { Function *func; unsigned grid[3], block[3], shared; void **params, **extra; } KernelNode;
typedef struct Launch { Function *f; unsigned grid[3], block[3], shared; uint8_t *values; } Launch;      /* values: 8 bytes each */

static int capture(Launch *l, const KernelNode *k) {
    if (!k->func || k->extra || !k->grid[0] || k->shared > k->func->shared || k->block[0] * k->block[1] * k->block[2] > 1024) return INVALID_VALUE;
    const EmuKernel *e = k->func->kernel;
    *l = (Launch){ .f = k->func, .shared = k->shared, .values = calloc((size_t)e->nparams + 1, 8) };
    if (!l->values) abort();
    memcpy(l->grid, k->grid, sizeof l->grid), memcpy(l->block, k->block, sizeof l->block);
    for (int i = 0; i < e->nparams; i++) memcpy(l->values + 8 * i, k->params[i], e->params[i].bytes);
    return 0;
}

static int64_t idled;

static int execute(const Launch *l) {
    if (idle()) return idled++, 0;
    const EmuKernel *e = l->f->kernel;
    const void **param = calloc((size_t)e->nparams + 1, sizeof *param);
    char err[ERR_TEXT];
    EmuReport report;
    if (!param) abort();
    if (!pool) pool = snR_pool_new(0);
    for (int i = 0; i < e->nparams; i++) param[i] = l->values + 8 * i;
    EmuLaunch go = { .kernel = e->name, .shared = l->shared, .params = param, .nparams = e->nparams, .ranges = ranges, .nranges = nranges, .most = 1 };
    memcpy(go.grid, l->grid, sizeof go.grid), memcpy(go.block, l->block, sizeof go.block);
    int rc = snE_launch(l->f->module->emu, &go, pool, &report, err);
    free(param);
    if (rc) fprintf(stderr, "fake cuda: %s\n", rc > 0 ? report.text : err);
    return rc ? broken = ILLEGAL_ADDRESS : 0;
}

/* -- Streams: work that waits ------------------------------------------------------------------------------------------------------------------ */

typedef struct Stream Stream;
typedef struct Event { Stream *stream; uint64_t number; double at; bool done; } Event;   /* number: of the last record of it */
typedef enum { COPY_IN, COPY_OUT, SET, LAUNCH, RECORD } Doing;
typedef struct Work { Doing what; uint64_t to, from; size_t bytes; void *copy; Launch launch; Event *event; uint64_t number; } Work;
struct Stream { Work *v; int n, cap; uint64_t records; };

static Work *put(Stream *s, Work w) {
    if (s->n == s->cap) {
        s->cap = 2 * s->cap + 16;
        if (!(s->v = realloc(s->v, (size_t)s->cap * sizeof *s->v))) abort();
    }
    s->v[s->n] = w;
    return &s->v[s->n++];
}

static int perform(Work *w) {
    uint8_t *p = w->what <= SET ? device(w->what == COPY_OUT ? w->from : w->to, w->bytes) : NULL;
    if (w->what <= SET && !p) return broken = ILLEGAL_ADDRESS;
    switch (w->what) {
    case COPY_IN: memcpy(p, w->copy ? w->copy : (void *)(uintptr_t)w->from, w->bytes); break;
    case COPY_OUT: memcpy((void *)(uintptr_t)w->to, p, w->bytes); break;
    case SET: memset(p, (int)w->from, w->bytes); break;
    case LAUNCH: return execute(&w->launch);
    case RECORD:
        if (w->event) w->event->at = snR_now() + 1e-6 * (double)idled, w->event->done = w->event->number == w->number;
        break;
    }
    return 0;
}

/* Everything up to record `number`; 0 = everything. */
static int drain(Stream *s, uint64_t number) {
    int rc = 0, k = 0;
    for (bool last = false; k < s->n && !last; k++) {
        Work *w = &s->v[k];
        if (!rc) rc = perform(w);
        last = number && w->what == RECORD && w->number == number;
        free(w->copy), free(w->launch.values);
    }
    if (k) memmove(s->v, s->v + k, (size_t)(s->n - k) * sizeof *s->v);
    s->n -= k;
    return rc;
}

static int drain_all(void) {
    int rc = 0;
    for (Thing *t = things; t; t = t->next) if (t->kind == STREAM && !rc) rc = drain(t->p, 0);
    return rc;
}

API cuStreamCreate(Stream **out, unsigned flags) {
    ENTER(OUT_OF_MEMORY);
    if (!current || flags > 1 || !(*out = calloc(1, sizeof **out))) return INVALID_VALUE;
    add(STREAM, *out, 0);
    return 0;
}

API cuStreamDestroy_v2(Stream *s) {
    int rc = refused(UNKNOWN);
    if (!find(STREAM, s)) return INVALID_HANDLE;
    drain(s, 0), drop(STREAM, s);
    free(s->v), free(s);
    return rc;
}

API cuStreamSynchronize(Stream *s) { ENTER(ILLEGAL_ADDRESS); return find(STREAM, s) ? drain(s, 0) : INVALID_HANDLE; }

API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, Stream *s) {
    ENTER(UNKNOWN);
    if (!find(STREAM, s) || !device(to, n)) return INVALID_VALUE;
    Work *w = put(s, (Work){ COPY_IN, to, (uintptr_t)from, n });
    if (!is_pinned(from, n)) w->copy = memcpy(malloc(n + 1), from, n);       /* the driver takes it at once */
    return 0;
}

API cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, Stream *s) {
    ENTER(UNKNOWN);
    if (!find(STREAM, s) || !device(from, n)) return INVALID_VALUE;
    put(s, (Work){ COPY_OUT, (uintptr_t)to, from, n });
    return is_pinned(to, n) ? 0 : drain(s, 0);
}

API cuMemsetD8Async(uint64_t to, unsigned char v, size_t n, Stream *s) {
    ENTER(UNKNOWN);
    if (!find(STREAM, s) || !device(to, n)) return INVALID_VALUE;
    put(s, (Work){ SET, to, v, n });
    return 0;
}

API cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, Stream *s, void **params, void **extra) {
    ENTER(UNKNOWN);
    Work w = { LAUNCH };
    int rc = !find(STREAM, s) ? INVALID_HANDLE : capture(&w.launch, &(KernelNode){ f, { gx, gy, gz }, { bx, by, bz }, shared, params, extra });
    if (!rc) put(s, w);
    return rc;
}

/* -- Events -------------------------------------------------------------------------------------------------------------------------------------- */

API cuEventCreate(Event **out, unsigned flags) {
    ENTER(OUT_OF_MEMORY);
    if (!current || flags || !(*out = calloc(1, sizeof **out))) return INVALID_VALUE;
    (*out)->done = true;
    add(EVENT, *out, 0);
    return 0;
}

API cuEventDestroy_v2(Event *e) {
    int rc = refused(UNKNOWN), bad = drop(EVENT, e);
    for (Thing *t = things; t; t = t->next)
        for (int k = 0; t->kind == STREAM && k < ((Stream *)t->p)->n; k++)
            if (((Stream *)t->p)->v[k].event == e) ((Stream *)t->p)->v[k].event = NULL;
    if (!bad) free(e);
    return bad ? bad : rc;
}

static void record(Event *e, Stream *s) {
    e->stream = s, e->number = ++s->records, e->done = false;
    put(s, (Work){ RECORD, .event = e, .number = e->number });
}

API cuEventRecord(Event *e, Stream *s) { ENTER(UNKNOWN); return find(EVENT, e) && find(STREAM, s) ? record(e, s), 0 : INVALID_HANDLE; }

API cuEventSynchronize(Event *e) {
    ENTER(ILLEGAL_ADDRESS);
    return !find(EVENT, e) ? INVALID_HANDLE : e->done ? 0 : drain(e->stream, e->number);
}

API cuEventElapsedTime(float *ms, Event *a, Event *b) {
    ENTER(UNKNOWN);
    if (!find(EVENT, a) || !find(EVENT, b)) return INVALID_HANDLE;
    if (!a->done || !b->done) return NOT_READY;
    return *ms = (float)((b->at - a->at) * 1e3), 0;
}

/* -- Graphs: nodes in the order in which they were added, which is one that their edges allow ------------------------------------------------------- */

typedef struct Node { Launch launch; Event *event; } Node;
typedef struct Graph { Node **v; int n; } Graph;
typedef struct Exec { Node *v; Node **from; int n; } Exec;       /* from: the graph's node that each was */

static Node *add_node(Graph *g, Node *const *before, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int k = 0;
        while (k < g->n && g->v[k] != before[i]) k++;
        if (k == g->n) return NULL;
    }
    Node *node = calloc(1, sizeof *node);
    if (!node || !(g->v = realloc(g->v, (size_t)(g->n + 1) * sizeof *g->v))) abort();
    return g->v[g->n++] = node;
}

API cuGraphCreate(Graph **out, unsigned flags) {
    ENTER(OUT_OF_MEMORY);
    if (flags || !(*out = calloc(1, sizeof **out))) return INVALID_VALUE;
    add(GRAPH, *out, 0);
    return 0;
}

API cuGraphDestroy(Graph *g) {
    int rc = refused(UNKNOWN), bad = drop(GRAPH, g);
    if (bad) return bad;
    for (int i = 0; i < g->n; i++) free(g->v[i]->launch.values), free(g->v[i]);
    free(g->v), free(g);
    return rc;
}

API cuGraphAddKernelNode(Node **out, Graph *g, Node *const *before, size_t n, const KernelNode *k) {
    ENTER(OUT_OF_MEMORY);
    Launch l;
    int rc = find(GRAPH, g) ? capture(&l, k) : INVALID_HANDLE;
    if (rc) return rc;
    if (!(*out = add_node(g, before, n))) return free(l.values), INVALID_VALUE;
    return (*out)->launch = l, 0;
}

API cuGraphAddEventRecordNode(Node **out, Graph *g, Node *const *before, size_t n, Event *e) {
    ENTER(OUT_OF_MEMORY);
    if (!find(GRAPH, g) || !find(EVENT, e)) return INVALID_HANDLE;
    if (!(*out = add_node(g, before, n))) return INVALID_VALUE;
    return (*out)->event = e, 0;
}

static Launch copy_launch(const Launch *l) {
    Launch c = *l;
    size_t bytes = 8 * ((size_t)l->f->kernel->nparams + 1);
    c.values = memcpy(malloc(bytes), l->values, bytes);
    return c;
}

API cuGraphInstantiateWithFlags(Exec **out, Graph *g, unsigned long long flags) {
    ENTER(OUT_OF_MEMORY);
    if (!find(GRAPH, g) || flags) return INVALID_VALUE;
    Exec *e = calloc(1, sizeof *e);
    if (!e || !(e->v = calloc((size_t)g->n + 1, sizeof *e->v)) || !(e->from = calloc((size_t)g->n + 1, sizeof *e->from))) abort();
    e->n = g->n;
    for (int i = 0; i < g->n; i++) {
        e->from[i] = g->v[i];
        e->v[i].event = g->v[i]->event;
        if (!e->v[i].event) e->v[i].launch = copy_launch(&g->v[i]->launch);
    }
    add(EXEC, e, 0);
    return *out = e, 0;
}

API cuGraphExecKernelNodeSetParams(Exec *e, Node *node, const KernelNode *k) {
    ENTER(UNKNOWN);
    if (!find(EXEC, e)) return INVALID_HANDLE;
    for (int i = 0; i < e->n; i++) {
        Launch l;
        if (e->from[i] != node) continue;
        int rc = capture(&l, k);
        if (!rc) free(e->v[i].launch.values), e->v[i].launch = l;
        return rc;
    }
    return INVALID_VALUE;
}

API cuGraphExecDestroy(Exec *e) {
    int rc = refused(UNKNOWN), bad = drop(EXEC, e);
    if (bad) return bad;
    for (int i = 0; i < e->n; i++) free(e->v[i].launch.values);
    free(e->v), free(e->from), free(e);
    return rc;
}

API cuGraphLaunch(Exec *e, Stream *s) {
    ENTER(UNKNOWN);
    if (!find(EXEC, e) || !find(STREAM, s)) return INVALID_HANDLE;
    for (int i = 0; i < e->n; i++) {
        if (e->v[i].event) record(e->v[i].event, s);
        else put(s, (Work){ LAUNCH, .launch = copy_launch(&e->v[i].launch) });
    }
    return 0;
}

static __attribute__((constructor)) void begin(void) {
    const char *n = getenv("SN_FAKE_CUDA_FAIL");
    fail_at = n ? strtoll(n, NULL, 10) : 0;
}
