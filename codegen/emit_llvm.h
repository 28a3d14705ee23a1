/* emit_llvm.h: what the two files of libsinter_llvm.so share: the walk (emit_llvm.c), and what an NVIDIA card does differently
   (emit_nvptx.c): leaves, the function's head, the ops that only a GPU has, the target machine. */
#ifndef SN_EMIT_LLVM_H
#define SN_EMIT_LLVM_H
#include "codegen/kir.h"
#include <llvm-c/Analysis.h>
#include <llvm-c/Core.h>
#include <llvm-c/DebugInfo.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <pthread.h>

enum { EMITTER_VERSION = 8, MAX_DEPTH = 200 };
typedef LLVMValueRef Val;
typedef LLVMTypeRef Typ;
typedef LLVMBasicBlockRef Block;

typedef struct Region {
    const KIns *at;
    Val i, end, step;
    Block body, other, join;
    bool has_else;
} Region;

typedef struct Emit {
    const Kernel *k;
    const Target *target;
    LLVMContextRef ctx;
    LLVMModuleRef mod;
    LLVMBuilderRef b, entry;         /* entry: before everything, for leaves and vars */
    Val fn, *v;
    Region region[MAX_DEPTH];
    int depth;
    char *err;                       /* 512 bytes; empty = no error */
} Emit;

void snL_wrong(Emit *e, const char *what);               /* the first one counts */
Typ snL_ints(Emit *e, int bits, int lanes);
Typ snL_floats(Emit *e, int lanes);
Val snL_int(Emit *e, int bits, int lanes, int64_t v);
Val snL_call(Emit *e, const char *intrinsic, Typ *over, unsigned nover, Val *args, unsigned n);

/* emit_nvptx.c */
void snN_declare(Emit *e);                               /* e->fn: a kernel's entry */
Val snN_leaf(Emit *e, const KIns *i);
Val snN_op(Emit *e, const KIns *i, Val a, Val b, Val c); /* K_barrier .. K_tf32; NULL where there is no value */
LLVMTargetMachineRef snN_machine(const Target *t, char err[512]);
void snN_identity(const Target *t, const char **triple, char cpu[16], const char **features);

#endif
