/* parse.h: shared by the files of the front end: lex.c (text -> tokens), module.c (files, declarations), parse.c (statements,
   blocks, bodies of ops), elab.c (expressions), call.c (calls), print.c and sn.c. Nothing outside graph/ includes it.

   There is no AST. A file is lexed once; bodies of blocks, ops, loops and graphs are token ranges that are parsed
   again at every use, with names bound to compile-time values or to nodes of the graph under construction. */
#ifndef SN_PARSE_H
#define SN_PARSE_H
#include "graph/graph.h"

/* -- Tokens ------------------------------------------------------------------------------------------ */

/* Words of the language; sn_open interns them first, so that a word's Sym is its W_ number. */
#define WORDS(X)                                                                                                 \
    X(import) X(param) X(dim) X(block) X(op) X(graph) X(rule) X(input) X(weight) X(state) X(update) X(output)    \
    X(return) X(assert) X(for) X(in) X(as) X(if) X(vjp) X(and) X(or) X(not) X(true) X(false) X(inf) X(nan)       \
    X(group) X(offset) X(normal) X(zeros) X(ones) X(uniform) X(full) X(_) X(int) X(float) X(list) X(dtype)       \
    X(string) X(f32) X(bf16) X(f16) X(i32) X(u32) X(bool) X(f64) X(y) X(axis) X(shape) X(key) X(stream)          \
    X(dimof) X(count) X(rank) X(dtypeof) X(len) X(sqrt) X(log) X(exp) X(pow) X(min) X(max) X(abs) X(floor) X(ceil)        \
    X(inverse) X(split) X(iota) X(random) X(concat) X(expand) X(spread) X(sum_to) X(cast) X(transpose)           \
    X(matmul) X(part) X(select) X(put) X(is_node) X(std)
enum {
    W_none,
#define X(w) W_##w,
    WORDS(X)
#undef X
    W_COUNT
};

typedef enum {
    T_END, T_NL, T_SEMI, T_NAME, T_INT, T_FLOAT, T_STRING, T_DOLLAR, T_NOTE,   /* T_NOTE: @group, @offset */
    T_LPAREN, T_RPAREN, T_LBRACK, T_RBRACK, T_LBRACE, T_RBRACE, T_COMMA, T_COLON, T_QUESTION, T_DOTDOT,
    T_ASSIGN, T_ARROW, T_PLUS, T_MINUS, T_STAR, T_SLASH, T_PERCENT, T_AT, T_EQ, T_NE, T_LT, T_LE, T_GT, T_GE,
} TokKind;

typedef struct Tok {
    uint8_t kind;
    uint32_t line, pos, end;                 /* bytes [pos, end) of the text */
    union { Sym s; int64_t i; double f; };
} Tok;

struct Source {                              /* one lexed text; T_END closes toks */
    Sym file;
    const char *text;
    size_t size;
    Tok *toks;
    uint32_t ntoks;
    struct Source *next;
};
typedef struct Source Source;

Source *snG_lex(sn_ctx *c, Sym file, const char *text, size_t n);   /* text is copied */
const char *snG_tok_name(int kind);
void snG_init_words(sn_ctx *c);

/* -- Compile-time values and names --------------------------------------------------------------------- */

typedef enum { V_NONE, V_INT, V_FLOAT, V_BOOL, V_STRING, V_DTYPE, V_LIST, V_NODE } ValKind;
typedef struct Val {
    uint8_t kind;
    uint32_t n;                              /* list length */
    Sym dim;                                 /* V_INT that is a named dim */
    union { int64_t i; double f; Sym s; NodeId node; struct Val *list; };
} Val;

typedef struct Formal { Sym name; uint8_t attr_kind; uint32_t def; } Formal;   /* def: token of the default, 0 = none */
enum { MAX_FORMALS = 16 };

typedef enum { BODY_BLOCK, BODY_OP, BODY_GRAPH } BodyKind;
typedef struct Body {                        /* block, op or graph: formals and where its tokens are */
    uint8_t kind;
    bool weights;                            /* the text declares weights or states itself */
    Sym name;
    Loc loc;
    const Source *src;
    uint32_t first, last;                    /* tokens after "{" up to its "}" */
    uint32_t whole;                          /* first token of the declaration, for printing */
    uint32_t whole_end;
    struct Names *scope;                     /* what else its text may name */
    uint8_t nformals;
    Formal formals[MAX_FORMALS];
    unsigned op;                             /* BODY_OP: its id */
} Body;

/* Names of a module (or of std.sn): params and dims, blocks and ops. */
typedef struct NameVal { Sym name; Val val; } NameVal;
typedef struct Names {
    struct Names *outer;                     /* std.sn, or NULL */
    VEC(NameVal) vals;
    VEC(DimName) dims;
    VEC(Body *) bodies;
    HashMap body_of, val_of;                 /* Sym + 1 -> index + 1 */
} Names;

/* -- State of the front end, one per context ------------------------------------------------------------- */

typedef struct Binding { Sym name; uint32_t below, below_gen; Val val; } Binding;
typedef struct TopBinding { uint32_t gen, index; } TopBinding;      /* newest binding of a Sym, valid for its gen */
typedef struct BodyCache { unsigned op; uint8_t nin; AttrId attr; TypeId in[MAX_NAMED]; Graph *g; } BodyCache;

enum { MAX_TEXT_ARGS = 16 };
typedef struct TextCache {                   /* an expression text over inputs of these types, for a node of op, attr and type */
    const Source *text;
    unsigned op;
    AttrId attr;
    TypeId type, in[MAX_TEXT_ARGS];
    int n;
    bool draws;                              /* has random numbers, whose stream depends on the path */
    Graph *g;
} TextCache;

typedef struct Front {
    Names *std;
    VEC(Binding) binds;
    TopBinding *top; uint32_t ntop;
    uint32_t gen;
    VEC(Val) stack;                          /* call arguments under evaluation */
    VEC(Sym) stack_names;
    HashMap texts;                           /* expression text -> 1 + index of exprs */
    VEC(Source *) exprs;
    HashMap body_map;
    VEC(BodyCache) bodies;
    HashMap text_map;
    VEC(TextCache) text_bodies;
    int depth;                               /* of the expression that asked for a body */
} Front;

/* -- One elaboration --------------------------------------------------------------------------------------- */

typedef struct PathInfo { Sym path; uint32_t uses, draws; } PathInfo;
typedef struct Instances {                   /* what the paths of one graph have been used for */
    Arena *arena;
    HashMap at;                              /* Sym + 1 -> index + 1 */
    VEC(PathInfo) v;
} Instances;

typedef struct Elab {
    sn_ctx *c;
    Front *f;
    Graph *g;                                /* NULL while only compile-time values are allowed */
    Names *names;                            /* module scope of the text being parsed */
    const Source *src;
    const Tok *t;                            /* next token */
    Sym path;
    Loc from;                                /* call that instantiated the block */
    Loc fixed;                               /* expression texts: the caller's location, 0 otherwise */
    Sym autonum;                             /* an auto-numbered instance we are inside of */
    uint32_t gen, base, frame;               /* bindings: of this elaboration, of the current frame */
    bool in_op, in_block, returned;
    Val result;
    int depth, calls;
    uint64_t steps;
    Instances *instances, own;               /* own, unless several elaborations build one graph: the C DSL */
    HashMap leaf_of, out_of;                 /* by Sym + 1 */
    DimName own_dims[16]; int nown;          /* dims of this graph only */
    Val leaf_val;                            /* what snG_lookup returned for a leaf or an own dim */
} Elab;

void snG_elab_begin(Elab *e, sn_ctx *c, Graph *g, Names *names);
void snG_elab_end(Elab *e);

/* elab.c */
void snG_take(Elab *e, int kind);
bool snG_accept(Elab *e, int kind);
Sym snG_take_name(Elab *e, const char *what);
_Noreturn void snG_syntax(Elab *e, const char *wanted);
Here snG_here(Elab *e);
Val snG_expression(Elab *e);
NodeId snG_to_node(Elab *e, Val v, Dtype follow);     /* literals take dtype `follow`; 0 = f32 / i32 / bool */
NodeId snG_need_node(Elab *e);                        /* an expression as a node */
int64_t snG_need_int(Elab *e, const char *what);
double snG_need_number(Elab *e, const char *what);
bool snG_truth(Elab *e, Val v);
void snG_skip_expression(Elab *e);
void snG_assign(Elab *e, Sym name, Val v);
const Val *snG_lookup(Elab *e, Sym name);             /* local, then module, then leaves; NULL */
Type snG_parse_type(Elab *e);
void snG_name_dims(Elab *e, NodeId id, const Type *named);
Dtype snG_literal_dtype(const OpInfo *op, Dtype follow, bool is_float);   /* shared with print.c */
NodeId snG_literal(Elab *e, const OpInfo *op, Val v, Dtype follow);
void snG_operands(Elab *e, unsigned op, const Val *v, unsigned n, NodeId *in);  /* literals become constants */
void snG_enter_frame(Elab *e, uint32_t *saved);
void snG_leave_frame(Elab *e, uint32_t saved);
const char *snG_kind_name(const Val *v);
Dtype snG_word_dtype(Sym s);

/* call.c */
Val snG_call_expr(Elab *e);                           /* NAME "(" args ")" [as NAME] */
Val snG_call_named(Elab *e, Sym name, uint32_t base, uint32_t n, Sym as);   /* arguments on the stack from base */
uint32_t snG_arguments(Elab *e);                      /* args ")" onto f->stack and f->stack_names; returns how many */

Body *snG_find_body(const Names *n, Sym name);        /* module.c */
void snG_load_std(sn_ctx *c);                         /* module.c: std.sn, once per context */
Graph *snG_drop_dead(Graph *g);                       /* module.c: g, or its live part, and then g is freed */

/* parse.c */
void snG_assert(Elab *e);                             /* at the word assert */
void snG_statements(Elab *e);                         /* up to "}" or return */
Val snG_call_block(Elab *e, const Body *b, uint32_t args, uint32_t n, Sym as);
PathInfo *snG_path_info(Instances *in, Sym path);
int64_t snG_next_stream(sn_ctx *c, Instances *in, Sym path);   /* call.c: of an unnumbered random(...) */
/* Calls a block or op of std.sn as a text would: "norm", or "norm as n1" for another instance name. */
NodeId snG_call(Graph *g, Here at, const char *name, const NodeId *args, int nargs, const char *attr_text,
                Instances *instances);

#endif
