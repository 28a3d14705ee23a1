/* opencl.c: OpenCL devices: `opencl[:N][:FORM]`, N counted over all platforms. FORM is what kernels are
   written for: cores with vectors (x4, x8, x16) or a GPU's blocks of threads (gpu); the device says which suits it.

   In: a program whose code is OpenCL C text (codegen/emit_opencl.c says what its kernels take). Out:
   a Device. libOpenCL.so.1, the loader of whatever drivers are installed, is opened at run time, and
   the few declarations that are needed stand here, so that nothing is needed to build.

   Cores: one work-item per group, one group per compute unit (or per thread asked for): a group is a worker
   with its own slice of one scratch buffer, and takes tasks by counters in global memory, set to 0
   before a graph runs. GPU: a group of work-items per program of the grid, as many at once as there is scratch
   for. A kernel object is made per launch, with its buffers set once.

   Built programs are kept in $SN_CACHE (or ~/.cache/sinter) as the driver's binary, under the hash of
   source, options, device and driver, each with a checksum; one that the driver no longer takes is
   built again. Devices that share the host's memory use ours, in huge pages. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* -- What is needed of CL/cl.h ----------------------------------------------------------------- */

typedef struct ClPlatform *cl_platform;
typedef struct ClDevice *cl_device;
typedef struct ClContext *cl_context;
typedef struct ClQueue *cl_queue;
typedef struct ClMem *cl_mem;
typedef struct ClProgram *cl_program;
typedef struct ClKernel *cl_kernel;
typedef struct ClEvent *cl_event;
typedef intptr_t cl_property;

enum {
    CL_DEVICE_TYPE_ALL = -1, CL_DEVICE_TYPE_CPU = 2, CL_DEVICE_TYPE_GPU = 4,
    CL_PLATFORM_NAME = 0x0902, CL_PLATFORM_VERSION = 0x0901,
    CL_DEVICE_TYPE = 0x1000, CL_DEVICE_MAX_COMPUTE_UNITS = 0x1002,
    CL_DEVICE_MAX_WORK_GROUP_SIZE = 0x1004, CL_DEVICE_LOCAL_MEM_SIZE = 0x1023,
    CL_DEVICE_MAX_MEM_ALLOC_SIZE = 0x1010, CL_DEVICE_MAX_PARAMETER_SIZE = 0x1017,
    CL_DEVICE_SINGLE_FP_CONFIG = 0x101b, CL_DEVICE_GLOBAL_MEM_SIZE = 0x101f,
    CL_DEVICE_NAME = 0x102b, CL_DEVICE_VENDOR = 0x102c, CL_DRIVER_VERSION = 0x102d,
    CL_DEVICE_VERSION = 0x102f, CL_DEVICE_HOST_UNIFIED_MEMORY = 0x1035,
    CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT = 0x103a,
    CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT = 1 << 7,
    CL_CONTEXT_PLATFORM = 0x1084, CL_QUEUE_PROFILING_ENABLE = 2,
    CL_MEM_READ_WRITE = 1, CL_MEM_USE_HOST_PTR = 8,
    CL_PROGRAM_BINARY_SIZES = 0x1165, CL_PROGRAM_BINARIES = 0x1166, CL_PROGRAM_BUILD_LOG = 0x1183,
    CL_PROFILING_COMMAND_START = 0x1282, CL_PROFILING_COMMAND_END = 0x1283,
};

/* name, result, arguments */
#define CL_CALLS(X)                                                                                \
    X(clGetPlatformIDs, int, (unsigned, cl_platform *, unsigned *))                                \
    X(clGetPlatformInfo, int, (cl_platform, unsigned, size_t, void *, size_t *))                   \
    X(clGetDeviceIDs, int, (cl_platform, uint64_t, unsigned, cl_device *, unsigned *))             \
    X(clGetDeviceInfo, int, (cl_device, unsigned, size_t, void *, size_t *))                       \
    X(clCreateContext, cl_context, (const cl_property *, unsigned, const cl_device *,              \
      void (*)(const char *, const void *, size_t, void *), void *, int *))                        \
    X(clReleaseContext, int, (cl_context))                                                         \
    X(clCreateCommandQueue, cl_queue, (cl_context, cl_device, uint64_t, int *))                    \
    X(clReleaseCommandQueue, int, (cl_queue))                                                      \
    X(clCreateBuffer, cl_mem, (cl_context, uint64_t, size_t, void *, int *))                       \
    X(clReleaseMemObject, int, (cl_mem))                                                           \
    X(clCreateProgramWithSource, cl_program, (cl_context, unsigned, const char **, const size_t *, int *)) \
    X(clCreateProgramWithBinary, cl_program, (cl_context, unsigned, const cl_device *,             \
      const size_t *, const unsigned char **, int *, int *))                                       \
    X(clBuildProgram, int, (cl_program, unsigned, const cl_device *, const char *,                 \
      void (*)(cl_program, void *), void *))                                                       \
    X(clGetProgramInfo, int, (cl_program, unsigned, size_t, void *, size_t *))                     \
    X(clGetProgramBuildInfo, int, (cl_program, cl_device, unsigned, size_t, void *, size_t *))     \
    X(clReleaseProgram, int, (cl_program))                                                         \
    X(clCreateKernel, cl_kernel, (cl_program, const char *, int *))                                \
    X(clReleaseKernel, int, (cl_kernel))                                                           \
    X(clSetKernelArg, int, (cl_kernel, unsigned, size_t, const void *))                            \
    X(clEnqueueNDRangeKernel, int, (cl_queue, cl_kernel, unsigned, const size_t *, const size_t *, \
      const size_t *, unsigned, const cl_event *, cl_event *))                                     \
    X(clEnqueueReadBuffer, int, (cl_queue, cl_mem, unsigned, size_t, size_t, void *, unsigned,     \
      const cl_event *, cl_event *))                                                               \
    X(clEnqueueWriteBuffer, int, (cl_queue, cl_mem, unsigned, size_t, size_t, const void *,        \
      unsigned, const cl_event *, cl_event *))                                                     \
    X(clEnqueueFillBuffer, int, (cl_queue, cl_mem, const void *, size_t, size_t, size_t, unsigned, \
      const cl_event *, cl_event *))                                                               \
    X(clGetEventProfilingInfo, int, (cl_event, unsigned, size_t, void *, size_t *))                \
    X(clReleaseEvent, int, (cl_event))                                                             \
    X(clFinish, int, (cl_queue))

#define CALL(name, result, args) static result (*name) args;
CL_CALLS(CALL)
#undef CALL

static char no_loader[ERR_TEXT];     /* why not; empty = every call is there */

static void open_loader(void)
{
    void *lib = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        snR_fail(no_loader, ERR_DEVICE,
                 "no OpenCL here: %s (Debian: apt-get install ocl-icd-libopencl1 and a driver, "
                 "for a CPU pocl-opencl-icd)", dlerror());
        return;
    }
#define CALL(name, result, args)                                                                   \
    if (!(*(void **)&name = dlsym(lib, #name)))                                                    \
        snR_fail(no_loader, ERR_DEVICE, "libOpenCL.so.1 has no " #name ": OpenCL 1.2 is needed");
    CL_CALLS(CALL)
#undef CALL
}

static int load_calls(char err[ERR_TEXT])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_loader);
    return no_loader[0] ? snR_fail(err, ERR_DEVICE, "%s", no_loader) : 0;
}

static const char *code_name(int code)
{
    static const struct { int code; const char *name; } names[] = {
        { -1, "device not found" }, { -2, "device not available" }, { -3, "no compiler" },
        { -4, "memory object allocation failure" }, { -5, "out of resources" },
        { -6, "out of host memory" }, { -11, "build program failure" }, { -14, "an earlier command failed" },
        { -33, "invalid device" }, { -36, "invalid command queue" }, { -38, "invalid memory object" },
        { -42, "invalid binary" }, { -45, "invalid program executable" }, { -46, "invalid kernel name" },
        { -48, "invalid kernel" }, { -51, "invalid argument size" }, { -52, "invalid kernel arguments" },
        { -54, "invalid work-group size" }, { -61, "invalid buffer size" }, { -1001, "no driver is installed" },
    };
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code)
            return names[i].name;
    return "error";
}

static int failed(char err[ERR_TEXT], const char *call, int code)
{
    bool memory = code == -4 || code == -5 || code == -6;
    return snR_fail(err, memory ? ERR_NOMEM : ERR_DEVICE, "OpenCL: %s: %s (%d)", call,
                    code_name(code), code);
}

/* -- Devices ----------------------------------------------------------------------------------- */

enum { MAX_PLATFORMS = 16, MAX_DEVICES = 64 };
typedef struct Found { cl_platform platform; cl_device device; } Found;

/* Every device of every platform, in the loader's order; or a negative code. */
static int find_devices(Found *out, char err[ERR_TEXT])
{
    cl_platform platform[MAX_PLATFORMS];
    unsigned n = 0;
    int count = 0, rc = load_calls(err);
    if (rc)
        return rc;
    int code = clGetPlatformIDs(MAX_PLATFORMS, platform, &n);
    if (code && code != -1001)
        return failed(err, "clGetPlatformIDs", code);
    for (unsigned i = 0; !code && i < n && i < MAX_PLATFORMS; i++) {
        cl_device device[MAX_DEVICES];
        unsigned m = 0;
        if (clGetDeviceIDs(platform[i], (uint32_t)CL_DEVICE_TYPE_ALL, MAX_DEVICES, device, &m))
            continue;
        for (unsigned k = 0; k < m && k < MAX_DEVICES && count < MAX_DEVICES; k++)
            out[count++] = (Found){ platform[i], device[k] };
    }
    if (!count)
        return snR_fail(err, ERR_DEVICE, "OpenCL has no device: no driver is installed "
                                         "(Debian, for a CPU: apt-get install pocl-opencl-icd)");
    return count;
}

/* opencl[:N][:FORM]; form[0] = 0: not said. */
static int read_name(const char *name, long *which, char form[8])
{
    const char *at = name + 6;
    bool ok = !strncmp(name, "opencl", 6);
    *which = 0, form[0] = 0;
    if (ok && *at == ':' && at[1] >= '0' && at[1] <= '9')
        *which = strtol(at + 1, (char **)&at, 10);
    if (ok && *at == ':') {
        static const char *const forms[] = { "x4", "x8", "x16", "gpu" };
        for (unsigned i = 0; i < 4; i++)
            if (!strcmp(at + 1, forms[i]))
                snprintf(form, 8, "%s", forms[i]);
        at = form[0] ? "" : at;
    }
    return ok && !*at ? 0 : ERR_USAGE;
}

static int pick_device(const char *name, Found *out, char form[8], char err[ERR_TEXT])
{
    Found all[MAX_DEVICES];
    long which = 0;
    if (read_name(name, &which, form))
        return snR_fail(err, ERR_USAGE, "an OpenCL device is opencl[:N][:gpu|x4|x8|x16], not '%s'", name);
    int n = find_devices(all, err);
    if (n < 0)
        return n;
    if (which < 0 || which >= n)
        return snR_fail(err, ERR_DEVICE, "there is no device opencl:%ld, the last is opencl:%d; "
                                         "`sinter devices` lists them", which, n - 1);
    *out = all[which];
    return 0;
}

static uint64_t number(cl_device d, unsigned what)
{
    uint64_t v = 0;          /* answers are 4 or 8 bytes; the machine is little-endian like the runtime's files */
    size_t n = 0;
    return clGetDeviceInfo(d, what, sizeof v, &v, &n) ? 0 : v;
}

static void text(cl_device d, unsigned what, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    if (clGetDeviceInfo(d, what, cap - 1, out, &n))
        snprintf(out, cap, "?");
    out[cap - 1] = 0;
}

static void platform_text(cl_platform p, unsigned what, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    if (clGetPlatformInfo(p, what, cap - 1, out, &n))
        snprintf(out, cap, "?");
    out[cap - 1] = 0;
}

/* -- A device that is open --------------------------------------------------------------------- */

typedef struct Memory { cl_mem mem; void *ours; } Memory;

typedef struct Cl {
    Device base;
    const SnProgram *p;
    Found at;
    cl_context context;
    cl_queue queue;
    cl_program program;
    int groups;              /* workers of kernels for cores */
    int64_t most_blocks;     /* of one launch of a GPU's kernel; 0 = any number */
    bool shares;             /* the host's memory */
    Memory *scratch;
} Cl;

static size_t scratch_stride(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

/* Groups that a launch of the kernel starts at a time: its grid comes in so many pieces that their scratch is bounded. */
static int64_t groups_at_once(const Cl *c, const SnKernelDesc *k)
{
    enum { BUDGET = 256 << 20 };
    int64_t stride = (int64_t)scratch_stride(k->scratch_bytes), n = k->grid;
    if (!k->threads)
        return c->groups;
    int64_t most = stride ? BUDGET / stride : n;
    most = most > c->groups ? most : c->groups;
    n = n < most ? n : most;
    return c->most_blocks && n > c->most_blocks ? c->most_blocks : n;
}

static int make_buffer(Cl *c, size_t bytes, void *ours, cl_mem *out, char err[ERR_TEXT])
{
    int code = 0;
    uint64_t most = number(c->at.device, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    if (most && bytes > most)
        return snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes asked, the device allows %llu in one buffer",
                        bytes, (unsigned long long)most);
    *out = clCreateBuffer(c->context, CL_MEM_READ_WRITE | (ours ? CL_MEM_USE_HOST_PTR : 0), bytes, ours, &code);
    if (code)
        return snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes asked, the device has %llu: %s (%d)", bytes,
                        (unsigned long long)number(c->at.device, CL_DEVICE_GLOBAL_MEM_SIZE), code_name(code), code);
    return 0;
}

static void *cl_alloc(Device *d, size_t bytes, char err[ERR_TEXT])
{
    Cl *c = (Cl *)d;
    Memory *m = calloc(1, sizeof *m);
    if (bytes > SIZE_MAX / 2 || !m) {
        snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes asked", bytes);
        free(m);
        return NULL;
    }
    size_t room = (bytes + 127) / 64 * 64;       /* a vector read at the end stays inside */
    m->ours = c->shares ? snR_alloc(room) : NULL;
    if (c->shares && !m->ours)
        snR_fail(err, ERR_NOMEM, "out of memory: %zu bytes asked", bytes);
    else if (!make_buffer(c, room, m->ours, &m->mem, err))
        return m;
    free(m->ours);
    free(m);
    return NULL;
}

static void cl_release(Device *d, void *mem)
{
    Memory *m = mem;
    (void)d;
    if (!m)
        return;
    clReleaseMemObject(m->mem);
    free(m->ours);
    free(m);
}

static int cl_write(Device *d, void *mem, size_t at, const void *data, size_t bytes, char err[ERR_TEXT])
{
    Cl *c = (Cl *)d;
    int code = bytes ? clEnqueueWriteBuffer(c->queue, ((Memory *)mem)->mem, 1, at, bytes, data, 0, NULL, NULL) : 0;
    return code ? failed(err, "clEnqueueWriteBuffer", code) : 0;
}

static int cl_read(Device *d, void *mem, size_t at, void *out, size_t bytes, char err[ERR_TEXT])
{
    Cl *c = (Cl *)d;
    int code = bytes ? clEnqueueReadBuffer(c->queue, ((Memory *)mem)->mem, 1, at, bytes, out, 0, NULL, NULL) : 0;
    return code ? failed(err, "clEnqueueReadBuffer", code) : 0;
}

static int cl_poison(Device *d, void *mem, size_t bytes, char err[ERR_TEXT])
{
    const uint32_t ones = 0xffffffff;
    cl_mem to = ((Memory *)mem)->mem;
    int code = clEnqueueFillBuffer(((Cl *)d)->queue, to, &ones, sizeof ones, 0, (bytes + 3) / 4 * 4, 0, NULL, NULL);
    return code ? failed(err, "clEnqueueFillBuffer", code) : 0;
}

/* -- Programs, and their binaries on disk ------------------------------------------------------ */

static const char *build_options(const Cl *c)
{
    bool exact = number(c->at.device, CL_DEVICE_SINGLE_FP_CONFIG) & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT;
    return exact ? "-cl-std=CL1.2 -cl-fp32-correctly-rounded-divide-sqrt" : "-cl-std=CL1.2";
}

/* Where the binary of this source for this device lies; "" = nowhere. */
static void cache_path(const Cl *c, char path[640])
{
    static const unsigned facts[] = { CL_DEVICE_NAME, CL_DEVICE_VENDOR, CL_DEVICE_VERSION, CL_DRIVER_VERSION };
    const char *dir = getenv("SN_CACHE"), *home = getenv("HOME"), *options = build_options(c);
    char folder[512] = "", fact[512];
    XXH3_state_t h;
    XXH3_128bits_reset(&h);
    XXH3_128bits_update(&h, c->p->code, c->p->code_bytes);
    XXH3_128bits_update(&h, options, strlen(options) + 1);
    for (unsigned i = 0; i < sizeof facts / sizeof *facts; i++) {
        text(c->at.device, facts[i], fact, sizeof fact);
        XXH3_128bits_update(&h, fact, strlen(fact) + 1);
    }
    platform_text(c->at.platform, CL_PLATFORM_VERSION, fact, sizeof fact);
    XXH3_128bits_update(&h, fact, strlen(fact) + 1);
    XXH128_hash_t key = XXH3_128bits_digest(&h);
    if (dir)
        snprintf(folder, sizeof folder, "%s", dir);
    else if (home && *home)
        snprintf(folder, sizeof folder, "%s/.cache/sinter", home);
    path[0] = 0;
    if (!folder[0])
        return;
    for (char *s = folder + 1; *s; s++)
        if (*s == '/') {
            *s = 0;
            mkdir(folder, 0777);
            *s = '/';
        }
    mkdir(folder, 0777);
    snprintf(path, 640, "%s/%016llx%016llx.clbin", folder, (unsigned long long)key.high64,
             (unsigned long long)key.low64);
}

/* The file without its checksum, malloc'ed; NULL when it is missing or damaged. */
static unsigned char *read_cached(const char *path, size_t *bytes)
{
    FILE *f = *path ? fopen(path, "rbe") : NULL;
    struct stat st;
    uint64_t sum;
    unsigned char *data = NULL;
    if (!f)
        return NULL;
    if (!fstat(fileno(f), &st) && st.st_size > 8 && (data = malloc((size_t)st.st_size))) {
        *bytes = (size_t)st.st_size - 8;
        bool whole = fread(data, 1, (size_t)st.st_size, f) == (size_t)st.st_size;
        memcpy(&sum, data + *bytes, 8);
        if (!whole || sum != XXH3_64bits(data, *bytes)) {
            free(data);
            data = NULL;
        }
    }
    fclose(f);
    return data;
}

static void write_cached(const char *path, const unsigned char *data, size_t bytes)
{
    char temp[700];
    uint64_t sum = XXH3_64bits(data, bytes);
    snprintf(temp, sizeof temp, "%s.%d", path, (int)getpid());
    FILE *f = fopen(temp, "wbe");
    if (!f)
        return;
    bool ok = fwrite(data, 1, bytes, f) == bytes && fwrite(&sum, 1, 8, f) == 8;
    ok &= fclose(f) == 0;
    if (!ok || rename(temp, path))
        unlink(temp);
}

static bool build_cached(Cl *c, const char *path)
{
    size_t bytes = 0;
    int code = 0, status = 0;
    unsigned char *data = read_cached(path, &bytes);
    if (!data)
        return false;
    const unsigned char *binary = data;
    c->program = clCreateProgramWithBinary(c->context, 1, &c->at.device, &bytes, &binary, &status, &code);
    free(data);
    if (!code && !status && !clBuildProgram(c->program, 1, &c->at.device, build_options(c), NULL, NULL))
        return true;
    if (!code && c->program)
        clReleaseProgram(c->program);
    c->program = NULL;
    return false;
}

static void keep_binary(Cl *c, const char *path)
{
    size_t bytes = 0;
    if (!*path || clGetProgramInfo(c->program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) || !bytes)
        return;
    unsigned char *data = malloc(bytes);
    if (data && !clGetProgramInfo(c->program, CL_PROGRAM_BINARIES, sizeof data, &data, NULL))
        write_cached(path, data, bytes);
    free(data);
}

/* The whole log goes to a file, its first lines into the message. */
static int build_failed(Cl *c, int code, char err[ERR_TEXT])
{
    size_t n = 0;
    char *log = NULL, path[64] = "nowhere";
    int bad = clGetProgramBuildInfo(c->program, c->at.device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n);
    if (!bad && n && (log = calloc(1, n + 1)))
        clGetProgramBuildInfo(c->program, c->at.device, CL_PROGRAM_BUILD_LOG, n, log, NULL);
    if (log)
        snR_keep_log("opencl", log, c->p->code, c->p->code_bytes, path);
    const char *first = log ? strstr(log, "error") : NULL;
    snR_fail(err, ERR_DEVICE, "OpenCL: clBuildProgram: %s (%d): %.100s; log and source: %s", code_name(code), code,
             first ? first : log ? log : "no log", path);
    free(log);
    return ERR_DEVICE;
}

static int build_program(Cl *c, char err[ERR_TEXT])
{
    const SnProgram *p = c->p;
    const char *source = p->code;
    char path[640];
    int code = 0;
    if (!p->nkernels)
        return 0;
    if (!p->code || !p->code_bytes)
        return snR_fail(err, ERR_PROGRAM, "the program for '%s' holds no OpenCL code", p->target);
    cache_path(c, path);
    if (build_cached(c, path))
        return 0;
    c->program = clCreateProgramWithSource(c->context, 1, &source, &p->code_bytes, &code);
    if (code)
        return failed(err, "clCreateProgramWithSource", code);
    code = clBuildProgram(c->program, 1, &c->at.device, build_options(c), NULL, NULL);
    if (code)
        return build_failed(c, code, err);
    keep_binary(c, path);
    return 0;
}

/* -- Launches ---------------------------------------------------------------------------------- */

typedef struct Timed { cl_event event; int launch; } Timed;
typedef struct Launches {
    const SnGraphPlan *plan;
    cl_kernel *kernel;       /* one per launch, its buffers set */
    Timed *event;            /* of what is under way */
    int nevents, room;
    cl_mem counters;         /* one per launch and group */
    int32_t *zeros;          /* what they start from */
} Launches;

static void cl_discard(Device *d, void *prepared)
{
    Launches *l = prepared;
    (void)d;
    if (!l)
        return;
    for (int i = 0; l->kernel && i < l->plan->nlaunches; i++)
        if (l->kernel[i])
            clReleaseKernel(l->kernel[i]);
    if (l->counters)
        clReleaseMemObject(l->counters);
    free(l->kernel);
    free(l->event);
    free(l->zeros);
    free(l);
}

/* Arguments in the order of emit_opencl.c; `sys` waits for the run. */
static int set_arguments(Cl *c, Launches *l, int i, const Span *buf, char err[ERR_TEXT])
{
    const SnLaunch *launch = &l->plan->launches[i];
    const SnKernelDesc *k = &c->p->kernels[launch->kernel];
    cl_kernel kernel = l->kernel[i];
    size_t most = (size_t)number(c->at.device, CL_DEVICE_MAX_PARAMETER_SIZE);
    size_t want = 16 * (size_t)launch->nargs + 48;
    unsigned a = 0;
    int code = 0, at = i * c->groups;
    int64_t grid = k->grid;
    if (most && want > most)
        return snR_fail(err, ERR_UNSUPPORTED, "kernel '%s' takes %zu bytes of arguments, the device allows %zu",
                        k->label ? k->label : k->symbol, want, most);
    for (int n = 0; n < launch->nargs; n++) {
        const Span *s = &buf[launch->args[n]];
        uint64_t offset = s->at;
        code |= clSetKernelArg(kernel, a++, sizeof(cl_mem), &((Memory *)s->mem)->mem);
        code |= clSetKernelArg(kernel, a++, sizeof offset, &offset);
    }
    a++;
    code |= clSetKernelArg(kernel, a++, sizeof(cl_mem), &c->scratch->mem);
    if (!k->threads) {
        code |= clSetKernelArg(kernel, a++, sizeof(cl_mem), &l->counters);
        code |= clSetKernelArg(kernel, a++, sizeof at, &at);
        code |= clSetKernelArg(kernel, a++, sizeof grid, &grid);
    }
    return code ? failed(err, "clSetKernelArg", code) : 0;
}

static void *cl_prepare(Device *d, const SnGraphPlan *plan, const Span *buf, char err[ERR_TEXT])
{
    Cl *c = (Cl *)d;
    Launches *l = calloc(1, sizeof *l);
    int n = plan->nlaunches, rc = l ? 0 : snR_fail(err, ERR_NOMEM, "out of memory");
    if (rc)
        return NULL;
    size_t counters = (size_t)n * (size_t)c->groups + 1;
    l->plan = plan;
    l->kernel = calloc((size_t)n + 1, sizeof *l->kernel);
    l->zeros = calloc(counters, sizeof *l->zeros);
    if (!l->kernel || !l->zeros)
        rc = snR_fail(err, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = make_buffer(c, counters * sizeof *l->zeros, NULL, &l->counters, err);
    for (int i = 0; i < n && !rc; i++) {
        int code = 0;
        const char *symbol = c->p->kernels[plan->launches[i].kernel].symbol;
        l->kernel[i] = clCreateKernel(c->program, symbol, &code);
        rc = code ? failed(err, "clCreateKernel", code) : set_arguments(c, l, i, buf, err);
    }
    if (!rc)
        return l;
    cl_discard(d, l);
    return NULL;
}

static int keep_event(Launches *l, cl_event event, int launch)
{
    if (l->nevents == l->room) {
        int room = 2 * l->room + l->plan->nlaunches;
        Timed *more = realloc(l->event, (size_t)room * sizeof *more);
        if (!more) {
            clReleaseEvent(event);
            return -6;                           /* CL_OUT_OF_HOST_MEMORY */
        }
        l->event = more, l->room = room;
    }
    l->event[l->nevents++] = (Timed){ event, launch };
    return 0;
}

static int add_times(Launches *l, double *seconds, char err[ERR_TEXT])
{
    int rc = 0;
    for (int i = 0; i < l->nevents; i++) {
        uint64_t start = 0, end = 0;
        int code = clGetEventProfilingInfo(l->event[i].event, CL_PROFILING_COMMAND_START, 8, &start, NULL);
        if (!code)
            code = clGetEventProfilingInfo(l->event[i].event, CL_PROFILING_COMMAND_END, 8, &end, NULL);
        if (code && !rc)
            rc = failed(err, "clGetEventProfilingInfo", code);
        seconds[l->event[i].launch] += 1e-9 * (double)(end - start);
        clReleaseEvent(l->event[i].event);
    }
    l->nevents = 0;
    return rc;
}

/* One launch of the list, in as many pieces as groups_at_once makes of its grid. */
static int enqueue(Cl *c, Launches *l, int i, const uint32_t sys[4], double *seconds)
{
    const SnLaunch *launch = &l->plan->launches[i];
    const SnKernelDesc *k = &c->p->kernels[launch->kernel];
    unsigned at = 2 * (unsigned)launch->nargs;
    size_t local = k->threads ? (size_t)k->threads : 1;
    int64_t most = groups_at_once(c, k), end = k->threads ? k->grid : most;
    int code = clSetKernelArg(l->kernel[i], at, 4 * sizeof *sys, sys);
    for (int64_t first = 0; first < end && !code; first += most) {
        size_t global = (size_t)(end - first < most ? end - first : most) * local;
        cl_event event = NULL;
        if (k->threads)
            code = clSetKernelArg(l->kernel[i], at + 2, sizeof first, &first);
        if (!code)
            code = clEnqueueNDRangeKernel(c->queue, l->kernel[i], 1, NULL, &global, &local, 0, NULL, seconds ? &event : NULL);
        if (!code && seconds)
            code = keep_event(l, event, i);
    }
    return code;
}

static int cl_run(Device *d, void *prepared, const SnLaunchArgs *la, double *seconds, char err[ERR_TEXT])
{
    Cl *c = (Cl *)d;
    Launches *l = prepared;
    const uint32_t sys[4] = { la->seed[0], la->seed[1], la->step, la->micro };
    int n = l->plan->nlaunches, rc = 0;
    size_t counters = ((size_t)n * (size_t)c->groups + 1) * sizeof *l->zeros;
    int code = clEnqueueWriteBuffer(c->queue, l->counters, 0, 0, counters, l->zeros, 0, NULL, NULL);
    if (code)
        return failed(err, "clEnqueueWriteBuffer", code);
    for (int i = 0; i < n && !rc; i++) {
        const SnKernelDesc *k = &c->p->kernels[l->plan->launches[i].kernel];
        code = k->grid ? enqueue(c, l, i, sys, seconds) : 0;
        if (code)
            rc = snR_fail(err, ERR_DEVICE, "OpenCL: launch %d, '%s': %s (%d)", i, k->label, code_name(code), code);
    }
    code = clFinish(c->queue);
    if (code && !rc)
        rc = failed(err, "clFinish", code);
    if (seconds) {
        int bad = add_times(l, seconds, err);
        rc = rc ? rc : bad;
    }
    return rc;
}

/* -- Life -------------------------------------------------------------------------------------- */

static void cl_close(Device *d)
{
    Cl *c = (Cl *)d;
    cl_release(d, c->scratch);
    if (c->program)
        clReleaseProgram(c->program);
    if (c->queue)
        clReleaseCommandQueue(c->queue);
    if (c->context)
        clReleaseContext(c->context);
    free(c);
}

static const DeviceOps ops = {
    .close = cl_close, .alloc = cl_alloc, .release = cl_release, .write = cl_write, .read = cl_read,
    .poison = cl_poison, .prepare = cl_prepare, .run = cl_run, .discard = cl_discard,
};

static int open_queue(Cl *c, char err[ERR_TEXT])
{
    const cl_property where[] = { CL_CONTEXT_PLATFORM, (cl_property)c->at.platform, 0 };
    int code = 0;
    c->context = clCreateContext(where, 1, &c->at.device, NULL, NULL, &code);
    if (code)
        return failed(err, "clCreateContext", code);
    c->queue = clCreateCommandQueue(c->context, c->at.device, CL_QUEUE_PROFILING_ENABLE, &code);
    return code ? failed(err, "clCreateCommandQueue", code) : 0;
}

static int open_scratch(Cl *c, char err[ERR_TEXT])
{
    char why[ERR_TEXT];
    int64_t bytes = 0;
    for (int i = 0; i < c->p->nkernels; i++) {
        const SnKernelDesc *k = &c->p->kernels[i];
        int64_t want = (int64_t)scratch_stride(k->scratch_bytes) * groups_at_once(c, k);
        bytes = want > bytes ? want : bytes;
    }
    c->scratch = cl_alloc(&c->base, (size_t)bytes, why);
    if (c->scratch)
        return 0;
    return snR_fail(err, ERR_NOMEM, "scratch for the groups that run at once: %.150s", why);
}

/* Can the device start the blocks of a GPU's kernels? */
static int check_blocks(const Cl *c, char err[ERR_TEXT])
{
    int64_t threads = (int64_t)number(c->at.device, CL_DEVICE_MAX_WORK_GROUP_SIZE);
    int64_t bytes = (int64_t)number(c->at.device, CL_DEVICE_LOCAL_MEM_SIZE);
    for (int i = 0; i < c->p->nkernels; i++) {
        const SnKernelDesc *k = &c->p->kernels[i];
        if (k->threads > threads || (k->threads && k->shared_bytes > bytes))
            return snR_fail(err, ERR_UNSUPPORTED, "kernel '%s' wants %d work-items and %lld bytes of local memory a group, the device has "
                            "%lld and %lld; without :gpu it may run", k->label ? k->label : k->symbol, k->threads,
                            (long long)k->shared_bytes, (long long)threads, (long long)bytes);
    }
    return 0;
}

Device *snR_opencl_open(const SnProgram *p, const char *name, int threads, char err[ERR_TEXT])
{
    Found at;
    char form[8];
    if (pick_device(name, &at, form, err))
        return NULL;
    if (form[0] && p->target && strcmp(p->target + strcspn(p->target, ":") + (strchr(p->target, ':') != NULL), form)) {
        snR_fail(err, ERR_UNSUPPORTED, "the program was compiled for '%s', not for the device '%s'", p->target, name);
        return NULL;
    }
    Cl *c = calloc(1, sizeof *c);
    if (!c) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        return NULL;
    }
    c->base.ops = &ops;
    c->p = p;
    c->at = at;
    c->shares = number(at.device, CL_DEVICE_HOST_UNIFIED_MEMORY) & 0xff;
    c->groups = threads > 0 ? threads : (int)number(at.device, CL_DEVICE_MAX_COMPUTE_UNITS);
    c->most_blocks = threads > 0 ? threads : 0;
    if (c->groups < 1)
        c->groups = 1;
    if (!check_blocks(c, err) && !open_queue(c, err) && !open_scratch(c, err) && !build_program(c, err))
        return &c->base;
    cl_close(&c->base);
    return NULL;
}

/* -- What is here ------------------------------------------------------------------------------ */

int snR_opencl_target(const char *name, char target[64], char err[ERR_TEXT])
{
    Found at;
    char form[8];
    int rc = pick_device(name, &at, form, err);
    if (rc)
        return rc;
    uint64_t lanes = number(at.device, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT);
    if (!form[0] && number(at.device, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_GPU)
        snprintf(form, sizeof form, "gpu");
    else if (!form[0])
        snprintf(form, sizeof form, "x%d", lanes >= 16 ? 16 : lanes == 8 ? 8 : 4);
    snprintf(target, 64, "opencl:%s", form);
    return 0;
}

int snR_opencl_devices(sn_device_info *out, int cap)
{
    Found all[MAX_DEVICES];
    char err[ERR_TEXT], platform[64], device[80], driver[40];
    int n = find_devices(all, err);
    for (int i = 0; i < n && i < cap; i++) {
        memset(&out[i], 0, sizeof out[i]);
        text(all[i].device, CL_DEVICE_NAME, device, sizeof device);
        text(all[i].device, CL_DRIVER_VERSION, driver, sizeof driver);
        platform_text(all[i].platform, CL_PLATFORM_NAME, platform, sizeof platform);
        snprintf(out[i].name, sizeof out[i].name, "opencl:%d", i);
        snprintf(out[i].what, sizeof out[i].what, "%s, %s %s", device, platform, driver);
        out[i].cores = (int)number(all[i].device, CL_DEVICE_MAX_COMPUTE_UNITS);
    }
    return n < 0 ? 0 : n < cap ? n : cap;
}
