/* emu_parse.h: what the parser (emu_lex.c, emu_parse.c, emu_module.c) hands to emu_decode.c: functions as statements whose operands are
   virtual registers and constants.

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
    bool passes_on;                  /* compilers move what is undefined, and pack it beside what is not */
    uint16_t nrefs;
    Ins ins;                         /* but for its operands */
    uint32_t guard;                  /* register, REF_NONE */
    uint32_t refs;                   /* the first, in Function.refs */
    int32_t to;                      /* branch and label: a label's number; call: the function */
    int32_t var[2];                  /* added to imm, imm2: address of variable - 1; 0 = nothing */
} Stmt;

typedef struct Constant { uint64_t value; int32_t var; uint8_t bits; } Constant;
typedef struct Virtual { uint8_t bits; uint8_t special; const char *name; int len, number; } Virtual;
typedef struct Var { Variable v; int32_t function; bool dynamic; int line; } Var;

typedef struct Function {
    const char *name;
    int len, line;
    bool is_entry, has_body;
    uint32_t required[3];
    uint64_t most_threads;
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

/* -- While it is parsed: emu_lex.c, emu_parse.c, emu_module.c ------------------------------------------------------------ */

enum { MAX_DEPTH = 64, MAX_REGS = 1 << 20, MAX_STMTS = 1 << 22, MAX_OPERANDS = 160, MAX_MNEMONIC = 100 };

typedef enum { T_END, T_NAME, T_NUMBER, T_STRING, T_SIGN } TokenKind;
typedef struct Token { TokenKind kind; const char *s; int n, line; uint8_t number; uint64_t value; } Token;
enum { NUM_INT = 1, NUM_F32, NUM_F64 };

typedef enum { O_REG, O_IMM, O_VAR, O_ADDRESS, O_SINK, O_NAME } OperandKind;
typedef struct Operand {
    uint8_t kind, number;
    bool negated, joined;            /* !p; behind a | */
    uint16_t group;                  /* in the same braces, 0 = none */
    uint32_t reg;                    /* O_REG, O_ADDRESS: REF_NONE = no base */
    int32_t var;                     /* + 1 */
    uint64_t value;                  /* immediate, or offset */
    const char *s;
    int n;
} Operand;

typedef enum { SYM_REG, SYM_VAR } SymbolKind;
typedef struct Symbol { const char *s; int n; uint8_t kind; uint32_t id, count; bool numbered; } Symbol;
typedef struct LabelSlot { const char *s; int n, scope, id, line; bool defined; } LabelSlot;
typedef struct Jump { int stmt, scope; const char *s; int n, line; } Jump;

typedef struct Parser {
    Parsed *p;
    const char *at, *end;
    int line;
    Token t;
    Function *f;
    Symbol *symbol; int nsymbols, capsymbols;
    int scope[MAX_DEPTH], scope_symbols[MAX_DEPTH], depth;
    int *parent; int nscopes, capscopes;         /* of every scope of this function */
    LabelSlot *label; int nlabels, caplabels;
    int *label_hash; int ncap_label;
    Jump *jump; int njumps, capjumps;
    struct { char op[MAX_MNEMONIC]; const Row *row; } memo[1024];
    uint32_t special[SR_COUNT];                  /* registers of this function that hold them */
} Parser;

int snE_fail_line(Parsed *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
uint32_t snE_constant(Function *f, uint64_t value, int bits, int32_t var);   /* REF_CONST | index; REF_NONE: no memory */
int snE_decode(Parsed *p);           /* every entry -> m->kernel */

/* emu_lex.c */
#define FAIL(P, ...) ((P)->t.kind = T_END, (void)snE_fail_line((P)->p, (P)->t.line, __VA_ARGS__))   /* and no more tokens */
bool snE_no_memory(Parser *P);
void snE_next(Parser *P);
bool snE_is(const Parser *P, const char *s);
bool snE_is_any(const Parser *P, const char *words);
bool snE_accept(Parser *P, const char *s);
bool snE_expect(Parser *P, const char *s);
void snE_skip_line(Parser *P);
uint64_t snE_number(Parser *P, const char *what, uint64_t most);
const Row *snE_find_row(Parser *P, const char *op);
Symbol *snE_find_symbol(Parser *P, const char *s, int n, uint32_t *id);
void snE_add_symbol(Parser *P, Symbol y);
uint32_t snE_add_reg(Parser *P, Virtual v);
void snE_open_scope(Parser *P);
void snE_close_scope(Parser *P);
int snE_add_label(Parser *P, const char *s, int n);
void snE_resolve_jumps(Parser *P);
uint32_t snE_special_reg(Parser *P, const char *s, int n);
/* emu_parse.c */
bool snE_parse_number(Parser *P, Operand *o);
void snE_parse_name(Parser *P, Operand *o);
Stmt *snE_add_stmt(Parser *P, Stmt s);
void snE_parse_instruction(Parser *P, Stmt *s);

#endif
