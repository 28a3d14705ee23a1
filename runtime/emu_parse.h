/* emu_parse.h: what emu_parse.c hands to emu_decode.c: functions as statements whose operands are virtual registers and constants.

   Names are resolved, operands checked against the row of their instruction, jumps refer to labels. What depends on the kernel (where
   a shared variable lies, a frame's place when a function is inlined) is still symbolic. */
#ifndef SN_EMU_PARSE_H
#define SN_EMU_PARSE_H
#include "runtime/emu_in.h"

#define GROW(v, n, cap) ((n) < (cap) || snE_grow((void **)&(v), &(cap), sizeof *(v)))
bool snE_grow(void **v, int *cap, size_t size);

enum { REF_NONE = 0xffffffffu, REF_CONST = 0x80000000u, REF_DEF = 0x40000000u, REF_ID = 0x3fffffffu };
typedef enum { S_INS, S_LABEL, S_BRANCH, S_EXIT, S_CALL, S_COPY } StmtKind;  /* S_COPY: made by inlining: bytes between two frames */

typedef struct Stmt {
    uint8_t kind;
    bool negated;                    /* the guard */
    uint16_t nrefs;
    Ins ins;                         /* but for its operands */
    uint32_t guard;                  /* register, REF_NONE */
    uint32_t refs;                   /* the first, in Function.refs */
    int32_t to;                      /* branch and label: a label's number; call: the function */
    int32_t var[2];                  /* added to imm, imm2: address of variable - 1; 0 = nothing */
} Stmt;

typedef struct Constant { uint64_t value; int32_t var; uint8_t bits; bool generic; } Constant;
typedef struct Virtual { uint8_t bits; uint8_t special; const char *name; int len, number; } Virtual;
typedef struct Var { Variable v; int32_t function; bool dynamic, is_param, is_result; int line; } Var;

typedef struct Function {
    const char *name;
    int len, line;
    bool is_entry, has_body;
    uint32_t required[3];
    Stmt *stmt; int nstmt, capstmt;
    uint32_t *ref; int nref, capref;
    Constant *constant; int nconstant, capconstant;
    int *cons; int ncons, capcons;   /* hash of constants */
    Virtual *reg; int nreg, capreg;
    int nlabels;
    int32_t *param; int nparam, capparam;        /* variables */
    int32_t result;                              /* variable + 1 */
} Function;

struct Parsed {
    EmuModule *m;
    char *err;
    bool failed;
    Function *function; int nfunctions, capfunctions;
    Var *var; int nvars, capvars;
};

int snE_fail_line(Parsed *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
uint32_t snE_constant(Function *f, uint64_t value, int bits, int32_t var, bool generic);   /* REF_CONST | index; REF_NONE: no memory */
int snE_decode(Parsed *p);           /* every entry -> m->kernel */
void snE_free_parsed(Parsed *p);

#endif
