/* emit_nvptx.c: what kernel IR is on an NVIDIA card: a kernel's entry, its leaves, and the ops that only a GPU has, as NVVM intrinsics.

   In: the walk of emit_llvm.c. Out: PTX text. An entry's parameters, which runtime/emu_device.c and the CUDA device pass:

     buffers in the order of the kernel's parameters, 64-bit global addresses; nothing is claimed of their alignment or overlap
     u32 seed low, seed high, step, micro-step
     the address of scratch memory: a slice of `scratch` bytes, rounded up to 64, for every block

   The program is ctaid.x, the thread tid.x. Shared memory is dynamic: the launch says how much (SnKernelDesc.shared_bytes). Pointers are
   generic here; LLVM finds their spaces again. No fast-math: div and sqrt are rounded, an fma is where kernel IR has one. */
#include "codegen/emit_llvm.h"

enum { GLOBAL = 1, SHARED = 3, KERNEL = 71 };            /* address spaces; the calling convention ptx_kernel */

static const char TRIPLE[] = "nvptx64-nvidia-cuda";

void snN_identity(const Target *t, const char **triple, char cpu[16], const char **features) {
    *triple = TRIPLE;
    snprintf(cpu, 16, "sm_%d", t->sm);
    *features = t->sm >= 89 ? "+ptx78" : "+ptx71";
}

LLVMTargetMachineRef snN_machine(const Target *t, char err[512]) {
    const char *triple, *features;
    char cpu[16], *msg = NULL;
    LLVMTargetRef target;
    snN_identity(t, &triple, cpu, &features);
    if (LLVMGetTargetFromTriple(triple, &target, &msg)) {
        snprintf(err, 512, "LLVM: %s", msg);
        LLVMDisposeMessage(msg);
        return NULL;
    }
    return LLVMCreateTargetMachine(target, triple, cpu, features, LLVMCodeGenLevelDefault, LLVMRelocDefault, LLVMCodeModelDefault);
}

/* -- The entry ------------------------------------------------------------------------------------------------------ */

static Typ pointer(Emit *e, unsigned space) { return LLVMPointerTypeInContext(e->ctx, space); }

/* nvvm.annotations: !{ fn, what, v } */
static void annotate(Emit *e, const char *what, int v) {
    LLVMMetadataRef part[3] = { LLVMValueAsMetadata(e->fn), LLVMMDStringInContext2(e->ctx, what, strlen(what)),
                                LLVMValueAsMetadata(snL_int(e, 32, 1, v)) };
    LLVMAddNamedMetadataOperand(e->mod, "nvvm.annotations", LLVMMetadataAsValue(e->ctx, LLVMMDNodeInContext2(e->ctx, part, 3)));
}

void snN_declare(Emit *e) {
    unsigned n = e->k->params.n;
    Typ *args = calloc(n + 5, sizeof *args);
    if (!args) { snL_wrong(e, "out of memory"); return; }
    for (unsigned i = 0; i < n; i++) args[i] = pointer(e, GLOBAL);
    for (unsigned i = 0; i < 4; i++) args[n + i] = snL_ints(e, 32, 1);
    args[n + 4] = pointer(e, GLOBAL);
    e->fn = LLVMAddFunction(e->mod, e->k->ctx->syms.v[e->k->name], LLVMFunctionType(LLVMVoidTypeInContext(e->ctx), args, n + 5, 0));
    LLVMSetFunctionCallConv(e->fn, KERNEL);
    annotate(e, "reqntidx", e->k->threads);
    annotate(e, "reqntidy", 1);
    annotate(e, "reqntidz", 1);
    annotate(e, "minctasm", 1);          /* without it ptxas spills a register or two to fit one more block on an SM */
    free(args);
}

/* -- Leaves ------------------------------------------------------------------------------------------------------------ */

static Val generic(Emit *e, Val p) { return LLVMBuildAddrSpaceCast(e->entry, p, pointer(e, 0), ""); }

static Val bytes_behind(Emit *e, Val p, Val n) { return LLVMBuildInBoundsGEP2(e->entry, snL_ints(e, 8, 1), p, &n, 1, ""); }

static Val special(Emit *e, const char *name) {
    LLVMBuilderRef b = e->b;
    e->b = e->entry;
    Val x = LLVMBuildZExt(e->entry, snL_call(e, name, NULL, 0, NULL, 0), snL_ints(e, 64, 1), "");
    e->b = b;
    return x;
}

/* One array of unknown size a module: kernels are compiled one by one. */
static Val shared_memory(Emit *e) {
    char name[128];
    snprintf(name, sizeof name, "shared_%.100s", e->k->ctx->syms.v[e->k->name]);
    Val v = LLVMGetNamedGlobal(e->mod, name);
    if (v) return v;
    v = LLVMAddGlobalInAddressSpace(e->mod, LLVMArrayType(snL_ints(e, 8, 1), 0), name, SHARED);
    LLVMSetLinkage(v, LLVMExternalLinkage);
    LLVMSetAlignment(v, 128);
    return v;
}

static Val scratch_slice(Emit *e) {
    int64_t stride = (e->k->scratch + 63) / 64 * 64;
    Val at = LLVMBuildMul(e->entry, special(e, "llvm.nvvm.read.ptx.sreg.ctaid.x"), snL_int(e, 64, 1, stride), "");
    return bytes_behind(e, LLVMGetParam(e->fn, e->k->params.n + 4), at);
}

Val snN_leaf(Emit *e, const KIns *i) {
    unsigned n = e->k->params.n;
    switch (i->op) {
    case K_param: return generic(e, LLVMGetParam(e->fn, (unsigned)i->imm));
    case K_scratch: return generic(e, bytes_behind(e, scratch_slice(e), snL_int(e, 64, 1, i->imm)));
    case K_shared: return generic(e, bytes_behind(e, shared_memory(e), snL_int(e, 64, 1, i->imm)));
    case K_block: return special(e, "llvm.nvvm.read.ptx.sreg.ctaid.x");
    case K_thread: return special(e, "llvm.nvvm.read.ptx.sreg.tid.x");
    case K_sysarg: return i->imm < 4 ? LLVMGetParam(e->fn, n + (unsigned)i->imm) : snL_int(e, 32, 1, 0);
    default: return snL_wrong(e, "a core's op in a kernel for a GPU"), NULL;
    }
}

/* -- The GPU's ops -------------------------------------------------------------------------------------------------------- */

static Val lane(Emit *e, Val v, int n) { return LLVMBuildExtractElement(e->b, v, snL_int(e, 32, 1, n), ""); }

/* The members of a structure as a vector. */
static Val gathered(Emit *e, Val s, int n, Typ el) {
    if (n == 1) return s;
    Val v = LLVMGetPoison(LLVMVectorType(el, (unsigned)n));
    for (int k = 0; k < n; k++) v = LLVMBuildInsertElement(e->b, v, LLVMBuildExtractValue(e->b, s, (unsigned)k, ""), snL_int(e, 32, 1, k), "");
    return v;
}

static Val shfl(Emit *e, const KIns *i, Val a) {
    bool real = i->type.kind == K_F32;
    Val args[4] = { snL_int(e, 32, 1, -1), a, snL_int(e, 32, 1, i->imm), snL_int(e, 32, 1, 31) };
    return snL_call(e, real ? "llvm.nvvm.shfl.sync.bfly.f32" : "llvm.nvvm.shfl.sync.bfly.i32", NULL, 0, args, 4);
}

static Val mma(Emit *e, const KIns *i, Val a, Val b, Val c) {
    static const char *const names[] = { "llvm.nvvm.mma.m16n8k16.row.col.bf16", "llvm.nvvm.mma.m16n8k16.row.col.f32.f32",
                                         "llvm.nvvm.mma.m16n8k8.row.col.tf32" };
    Val args[10];
    Typ pair = LLVMVectorType(LLVMHalfTypeInContext(e->ctx), 2);
    for (int n = 0; n < 6; n++) {
        args[n] = n < 4 ? lane(e, a, n) : lane(e, b, n - 4);
        if (i->imm == 1) args[n] = LLVMBuildBitCast(e->b, args[n], pair, "");
    }
    for (int n = 0; n < 4; n++) args[6 + n] = lane(e, c, n);
    return gathered(e, snL_call(e, names[i->imm], NULL, 0, args, 10), 4, snL_floats(e, 1));
}

static Val element_at(Emit *e, Val p, Val index, int bytes) {
    Typ el = snL_ints(e, 8 * bytes, 1);
    return LLVMBuildGEP2(e->b, el, p, &index, 1, "");
}

static Val ldmatrix(Emit *e, const KIns *i, Val p, Val index) {
    char name[80];
    snprintf(name, sizeof name, "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x%d%s.b16", i->type.lanes, i->imm ? ".trans" : "");
    Val at = LLVMBuildAddrSpaceCast(e->b, element_at(e, p, index, 2), pointer(e, SHARED), "");
    Typ over = LLVMTypeOf(at);
    return gathered(e, snL_call(e, name, &over, 1, &at, 1), i->type.lanes, snL_ints(e, 32, 1));
}

static void cp_async(Emit *e, const KIns *i, Val to, Val from, Val count) {
    char name[80];
    snprintf(name, sizeof name, "llvm.nvvm.cp.async.%s.shared.global.%d%s", i->imm == 16 ? "cg" : "ca", (int)i->imm, count ? ".s" : "");
    Val args[3] = { LLVMBuildAddrSpaceCast(e->b, to, pointer(e, SHARED), ""), LLVMBuildAddrSpaceCast(e->b, from, pointer(e, GLOBAL), ""), count };
    snL_call(e, name, NULL, 0, args, count ? 3 : 2);
}

static Val each(Emit *e, const char *name, int lanes, Val x) {
    if (lanes == 1) return snL_call(e, name, NULL, 0, &x, 1);
    Val v = NULL;
    for (int n = 0; n < lanes; n++) {
        Val y = lane(e, x, n), f = snL_call(e, name, NULL, 0, &y, 1);
        if (!v) v = LLVMGetPoison(LLVMVectorType(LLVMTypeOf(f), (unsigned)lanes));
        v = LLVMBuildInsertElement(e->b, v, f, snL_int(e, 32, 1, n), "");
    }
    return v;
}

Val snN_op(Emit *e, const KIns *i, Val a, Val b, Val c) {
    if (!e->target->gpu) return snL_wrong(e, "a GPU's op in a kernel for the host"), NULL;
    switch (i->op) {
    case K_barrier: snL_call(e, "llvm.nvvm.barrier0", NULL, 0, NULL, 0); return NULL;
    case K_shfl: return shfl(e, i, a);
    case K_mma: return mma(e, i, a, b, c);
    case K_ldmatrix: return ldmatrix(e, i, a, b);
    case K_cp_async: cp_async(e, i, a, b, i->a[2] ? c : NULL); return NULL;
    case K_cp_commit: snL_call(e, "llvm.nvvm.cp.async.commit.group", NULL, 0, NULL, 0); return NULL;
    case K_cp_wait: {
        Val n = snL_int(e, 32, 1, i->imm);
        snL_call(e, "llvm.nvvm.cp.async.wait.group", NULL, 0, &n, 1);
        return NULL;
    }
    case K_tf32: return each(e, "llvm.nvvm.f2tf32.rna", i->type.lanes, LLVMBuildBitCast(e->b, a, snL_floats(e, i->type.lanes), ""));
    default: return each(e, "llvm.nvvm.ex2.approx.f", i->type.lanes, a);
    }
}
