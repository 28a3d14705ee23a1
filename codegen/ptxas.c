/* ptxas.c: PTX assembled ahead of time by NVIDIA's ptxas, where it is installed: $SN_PTXAS, or ptxas on the path or in /usr/local/cuda/bin.

   In: a program for ptx:sm_NN. Out: a cubin for that card, and what every kernel takes of a multiprocessor. The driver compiles PTX just
   as well, but when the program is loaded, and says nothing of it. */
#include <errno.h>
#include <unistd.h>
#include "codegen/family.h"
#include "codegen/kir.h"
#include "runtime/program.h"

static const char HOW_TO_GET_ONE[] = "no ptxas here: it is part of the CUDA toolkit (Debian: apt-get install nvidia-cuda-toolkit); SN_PTXAS may name it";

static bool write_text(const char *path, const void *p, size_t n) {
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(p, 1, n, f) == n;
    return f && (fclose(f) == 0) & ok;
}

/* ptxas's exit status, -1: there is none. */
static int assemble(const char *arch, const char *in, const char *out, const char *log) {
    const char *named = getenv("SN_PTXAS");
    const char *const places[] = { named && *named ? named : "ptxas", "/usr/local/cuda/bin/ptxas" };
    char option[32];
    int status = -1;
    snprintf(option, sizeof option, "-arch=%s", arch);
    for (int i = 0; i < (named && *named ? 1 : 2) && status == -1; i++)
        status = snK_run((char *[]){ (char *)places[i], "-v", option, (char *)in, "-o", (char *)out, NULL }, log);
    return status == 127 ? -1 : status;                  /* a shell's word for what is not there */
}

static PtxasKernel *find(const SnProgram *p, PtxasKernel *k, const char *symbol, size_t n) {
    for (int i = 0; i < p->nkernels; i++)
        if (strlen(p->kernels[i].symbol) == n && !memcmp(p->kernels[i].symbol, symbol, n)) return &k[i];
    return NULL;
}

/* "... entry function 'S' for ...", "... S stack frame, S spill stores, S spill loads", "... Used N registers, ... N bytes smem ..." */
static void read_log(const SnProgram *p, const char *log, PtxasKernel *out) {
    PtxasKernel *k = NULL, one;
    for (const char *line = log, *end; line && *line; line = *end ? end + 1 : end) {
        end = line + strcspn(line, "\n");
        const char *name = strstr(line, "entry function '"), *used = strstr(line, "Used "), *smem = strstr(line, " bytes smem");
        if (name && name < end) {
            name += 16;
            k = find(p, out, name, strcspn(name, "'"));
        } else if (k && sscanf(line, " %d bytes stack frame, %d bytes spill stores, %d bytes spill loads", &one.stack, &one.spill_stores, &one.spill_loads) == 3) {
            k->stack = one.stack, k->spill_stores = one.spill_stores, k->spill_loads = one.spill_loads;
        } else if (k && used && used < end && sscanf(used, "Used %d registers", &one.registers) == 1) {
            k->registers = one.registers;
            while (smem && smem > line && smem[-1] >= '0' && smem[-1] <= '9') smem--;
            if (smem && smem < end) k->shared = atoi(smem);
        }
    }
    for (int i = 0; i < p->nkernels; i++)                /* kernels that differ in their grid alone share an entry */
        for (int m = 0; m < i && !out[i].registers; m++)
            if (!strcmp(p->kernels[m].symbol, p->kernels[i].symbol)) out[i] = out[m];
}

static int report_failure(const char *log, int status, char err[512]) {
    const char *first = log ? strstr(log, "error") : NULL;
    first = first ? first : log ? log : "";
    snprintf(err, 512, "ptxas failed (status %d): %.*s", status, (int)strcspn(first, "\n"), first);
    return SN_IO;
}

int snK_ptxas(sn_ctx *c, const SnProgram *p, PtxasKernel *kernels, void **cubin, size_t *bytes, char err[512]) {
    const char *tmp = getenv("TMPDIR"), *arch = strchr(p->target, ':');
    char dir[256], in[300], out[300], log[300];
    size_t n = 0;
    *cubin = NULL, *bytes = 0;
    snprintf(dir, sizeof dir, "%.200s/sinterXXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return snprintf(err, 512, "no temporary folder %s: %s", dir, strerror(errno)), SN_IO;
    snprintf(in, sizeof in, "%s/k.ptx", dir);
    snprintf(out, sizeof out, "%s/k.cubin", dir);
    snprintf(log, sizeof log, "%s/log", dir);
    bool written = write_text(in, p->code, p->code_bytes);
    int status = written ? assemble(arch ? arch + 1 : "sm_80", in, out, log) : 0, rc = 0;
    char *text = snU_read_file(c, log, &n);
    if (!written) snprintf(err, 512, "cannot write %s: %s", in, strerror(errno)), rc = SN_IO;
    else if (status == -1) snprintf(err, 512, "%s", HOW_TO_GET_ONE), rc = SN_UNSUPPORTED;
    else if (status) rc = report_failure(text, status, err);
    else if (!(*cubin = snU_read_file(c, out, bytes))) snprintf(err, 512, "ptxas left no %s", out), rc = SN_IO;
    if (!rc && text) read_log(p, text, kernels);
    free(text);
    unlink(in), unlink(out), unlink(log), rmdir(dir);
    return rc;
}
