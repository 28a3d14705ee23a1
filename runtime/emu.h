/* emu.h: PTX text, executed on the CPU, every access checked: the core behind the device `emu`, free of programs and plans.

   In: the text of a PTX module (what LLVM's NVPTX back end, nvcc and our inline assembly write, sm_80 and later) and launches. Out: what
   the kernels store, and reports: out of bounds, misaligned, uninitialised, races, barriers, deadlock. Semantics: NVIDIA, PTX ISA 8.5.

     emu_lex.c emu_parse.c emu_module.c
                                text -> statements, typed by the rows of the instruction table
     emu_decode.c               statements -> compact instructions: calls inlined, registers in slots
     emu.def emu_lanes.c        the elementwise rows: pattern, operand types, expression
     emu_mem.c emu_warp.c emu_table.c
                                all other rows: memory and its checks; lanes together; the rest
     emu_run.c                  lanes that part, warps, blocks, barriers, reports
     emu_device.c               the Device

   Addresses are numbers of an address space of our own: range k of a launch starts at snE_address(k, skew), ranges are 2^40 apart, so an
   index that is off by little or by much never lands in a neighbour. */
#ifndef SN_EMU_H
#define SN_EMU_H
#include "runtime/rt.h"

typedef struct EmuModule EmuModule;

/* Who wrote a 4-byte word of global memory last: a run of a block, and a mark as in shared memory (emu_in.h). And who read it: a run of a
   block, and another one, if there is. */
typedef struct EmuMark { uint32_t run, mark; } EmuMark;
typedef struct EmuReaders { uint32_t run[2]; } EmuReaders;

/* Memory of a launch. written: a flag per byte (0 = nobody has written it; loads of it are reported), NULL = all of it is. marks: one per
   word, at first 0, kept from launch to launch; NULL: races are not looked for here. */
typedef struct EmuRange {
    void *host;
    uint8_t *written;
    EmuMark *marks;
    EmuReaders *readers;             /* with marks, for launches that compare blocks; else NULL */
    size_t bytes;
    uint32_t skew;                   /* its address modulo 256 */
    const char *name;                /* for reports */
} EmuRange;

typedef struct EmuLaunch {
    const char *kernel;
    uint32_t grid[3], block[3];      /* 0 counts as 1 */
    uint32_t shared;                 /* bytes of dynamic shared memory */
    const void *const *params;       /* the address of every parameter's value */
    int nparams;
    const EmuRange *ranges;
    int nranges;
    uint64_t budget;                 /* instructions of a warp, summed over a block, before it counts as endless; 0 = 2^28 */
    bool compare_blocks;             /* one after the other; what two of them access and one writes is reported, but for atomics */
    int most;                        /* reports to collect before a launch gives up; 0 = 1 */
} EmuLaunch;

typedef enum {
    EMU_BOUNDS, EMU_MISALIGNED, EMU_UNINITIALISED, EMU_RACE, EMU_ASYNC, EMU_BARRIER, EMU_DEADLOCK, EMU_CONVERGENCE, EMU_REGISTER, EMU_ENDLESS, EMU_TRAP
} EmuKind;
typedef struct EmuReport {
    EmuKind kind;
    int line, thread;                /* line of the PTX text; thread in its block */
    int64_t block;
    char text[ERR_TEXT];             /* one line: kernel, line and its text, block, thread, what */
} EmuReport;

/* The module of a text (copied); NULL: err names the line. */
EmuModule *snE_load(const char *text, size_t n, char err[ERR_TEXT]);
void snE_free(EmuModule *m);
uint64_t snE_address(int range, uint32_t skew);
/* One launch of a module at a time. Runs every block, on the pool (NULL: on the caller). 0, or the number of reports written to out (in order of block; at most `most`, one per
   line and kind), or a negative code with err set when the launch itself is wrong. The same reports and bits for any number of threads. */
int snE_launch(EmuModule *m, const EmuLaunch *l, Pool *pool, EmuReport *out, char err[ERR_TEXT]);
/* Instructions of whole warps executed so far, all launches of the module together: for rates. */
uint64_t snE_executed(const EmuModule *m);
/* Does a kernel only store through the address in this parameter, never load? */
bool snE_only_stores(const EmuModule *m, const char *kernel, int param);
/* How many parameters a kernel has; -1: there is no such kernel. */
int snE_parameters(const EmuModule *m, const char *kernel);

#endif
