/* graph.h: the graph: flat, SSA, static shapes, hash-consed.

   One linear array of nodes; an operand's index is below its user's, so index order is execution
   order and a pass is a `for` loop that builds a new graph through ONE constructor (snG_add), which
   infers type and shape, folds, and hash-conses. CSE, DCE (snG_finish) and order come for free.

     dim B = 8
     graph train {
       input tokens: i32[B, 128]
       weight embed: f32[257, 192] = normal(0.02)
       x: f32[B, 128, 192] = gather(embed, tokens)
       ...
       output loss = x.7
     }
*/
#ifndef SN_GRAPH_H
#define SN_GRAPH_H
#include "util.h"

/* -- Types ------------------------------------------------------------------------------------------ */

typedef enum { SN_F32 = 1, SN_BF16, SN_F16, SN_I32, SN_U32, SN_BOOL, SN_F64, SN_NDTYPES } Dtype;
enum { MAX_RANK = 6, MAX_IN = 64, MAX_ATTRS = 6, MAX_NAMED = 12 };   /* MAX_NAMED: operands that a row names */

typedef struct Type {                /* value type; interned copies compare by id */
    uint8_t dtype, rank;
    Sym name[MAX_RANK];              /* dim name for printing only, 0 = none; not part of identity */
    int64_t dim[MAX_RANK];
} Type;
typedef uint32_t TypeId;

const char *snG_dtype_name(Dtype d);             /* "f32" */
Dtype snG_dtype_of(const char *s, size_t n);     /* 0 when unknown */
int snG_dtype_size(Dtype d);                     /* bytes; bool is 1 */
static inline bool snG_is_float(Dtype d) { return d == SN_F32 || d == SN_BF16 || d == SN_F16 || d == SN_F64; }
static inline bool snG_is_int(Dtype d) { return d == SN_I32 || d == SN_U32; }
int64_t snG_count(const Type *t);                /* elements; 1 for rank 0 */
bool snG_same_shape(const Type *a, const Type *b);

/* -- Ops --------------------------------------------------------------------------------------------- */

/* Each class has one shape function (ops.c), one reference evaluation (eval.c), one lowering. */
typedef enum { C_LEAF, C_EWISE, C_REDUCE, C_MOVE, C_CONTRACT, C_GATHER, C_GEN, C_SCAN, C_COMPOSITE } OpClass;
enum {                               /* OpInfo.flags */
    F_COMM = 1,                      /* commutative in its first two operands */
    F_HEAVY = 2,                     /* never recompute: contractions, sorts */
    F_BOOL = 4,                      /* result is bool whatever the operands */
    F_VARIADIC = 8,                  /* the last operand repeats */
    F_FLOAT = 16, F_INT = 32,        /* operand dtypes allowed; none of these three = any */
    F_LOGIC = 64,                    /* bool or integer operands */
    F_MULTI = 128,                   /* has extra results, read by part(x, i) */
};

typedef enum { A_NONE, A_INT, A_FLOAT, A_LIST, A_DTYPE, A_STR } AttrKind;
typedef struct AttrVal {
    uint8_t kind, n;                 /* n: length of a list (at most MAX_RANK... 8) */
    union { int64_t i[8]; double f; Sym s; };   /* A_INT: i[0]; A_DTYPE: i[0] */
} AttrVal;
typedef struct Attrs { AttrVal v[MAX_ATTRS]; } Attrs;   /* in the order the op declares them */
typedef uint32_t AttrId;             /* interned; 0 = op without attributes */

/* Primitive op ids come from ops.def: OP_add, OP_matmul ... ; composites of std.sn follow. */
enum {
    OP_none = 0,
#define OP(name, operands, attrs, cls, flags, vjp, scalar, doc) OP_##name,
#include "ops.def"
#undef OP
    OP_NPRIM
};

typedef struct OpInfo {
    Sym name;
    const char *cname;
    uint8_t cls, nin, nattr;         /* nin: declared operands (variadic: at least) */
    uint16_t flags;
    Sym in_name[MAX_NAMED], attr_name[MAX_ATTRS];
    uint8_t attr_kind[MAX_ATTRS];
    bool attr_has_default[MAX_ATTRS];
    AttrVal attr_default[MAX_ATTRS];
    const char *vjp[MAX_NAMED];      /* gradient text per operand, NULL = none */
    const struct Scalar *scalar;     /* compiled scalar text of an elementwise op, else NULL */
    const char *scalar_text, *doc;
    struct Body *body;               /* composites: formals and token range (parse.c) */
} OpInfo;

const OpInfo *snG_op(const sn_ctx *c, unsigned op);
unsigned snG_find_op(const sn_ctx *c, Sym name);         /* 0 when there is none */
unsigned snG_num_ops(const sn_ctx *c);

/* Scalar text of an elementwise row ("1 / (1 + exp(-x))") compiled to a postfix program: one meaning for
   the reference evaluator, the lowerings and the docs. Base functions are listed in scalar.def. */
typedef enum {
    S_ARG, S_CONST,
#define SC(name, nargs, text, doc) S_##name,
#include "scalar.def"
#undef SC
    S_N
} ScalarOp;
typedef struct ScalarIns { uint8_t op, arg; double k; } ScalarIns;
typedef struct Scalar { int n, nargs; ScalarIns ins[32]; } Scalar;   /* stack machine, result on top */

/* -- Nodes and graphs ---------------------------------------------------------------------------------- */

typedef uint32_t NodeId;             /* 0 = none / poison */
typedef struct Node {
    uint16_t op;
    uint8_t nin, flags;              /* flags: N_PLACED */
    uint32_t in;                     /* first operand in g->operands */
    AttrId attr;
    TypeId type;                     /* of result 0 */
    Sym name;                        /* declared or assigned name, 0 = auto; unique within the graph when printed */
    Sym path;                        /* instance path it was built in: "h.3.attn", 0 at top level */
    Loc loc;
    uint32_t group;                  /* fuse: 1 + group id; 0 = none. Printed as @group */
    int64_t offset;                  /* plan: 1 + arena byte offset; 0 = none. Printed as @offset */
} Node;

enum { N_PLACED = 1 };               /* fuse: this concat is its parts where they lie, no kernel */

typedef enum { INIT_NONE, INIT_ZEROS, INIT_ONES, INIT_FULL, INIT_NORMAL, INIT_UNIFORM } InitKind;
/* What a scalar input may be set to: between lo and hi, whole numbers only. bits 0: anything. */
enum { RANGE_GIVEN = 1, RANGE_ABOVE = 2, RANGE_BELOW = 4, RANGE_WHOLE = 8 };    /* ABOVE, BELOW: not lo, not hi itself */
typedef struct InputRange { double lo, hi; uint8_t bits; } InputRange;

typedef struct Leaf {                /* input, weight, state: identified by name */
    NodeId node;
    Sym name;
    uint8_t init;                    /* InitKind; inputs: INIT_FULL = scalar default, INIT_NONE = must be fed */
    double a, b;                     /* normal: std a; uniform: [a, b); full: value a */
    InputRange range;                /* of an input with a default */
} Leaf;
typedef struct Output { Sym name; NodeId node; } Output;
typedef struct Update { NodeId target, value; } Update;  /* target: a weight or state node; commits after the step */
typedef struct DimName { Sym name; int64_t value; bool own; } DimName;   /* own: of this graph only: graph decode(B=1) */

typedef struct Graph {
    sn_ctx *ctx;
    Arena *arena;                    /* its own; freed by snG_free */
    Sym name;
    VEC(Node) nodes;                 /* nodes.v[0] is unused */
    VEC(NodeId) operands;
    VEC(Leaf) leaves;                /* in order of declaration */
    VEC(Output) outputs;
    VEC(Update) updates;
    VEC(DimName) dims;
    HashMap cons;                    /* structural hash -> node, for nodes below `consed` */
    uint32_t consed;
    HashMap updated;                 /* targets of updates, as far as somebody asked */
    Sym *shown; uint32_t nshown;     /* cache of snG_node_name (print.c) */
} Graph;

Graph *snG_new(sn_ctx *c, Sym name);
void snG_free(Graph *g);

static inline const Node *snG_node(const Graph *g, NodeId id) { return &g->nodes.v[id]; }
static inline NodeId snG_in(const Graph *g, NodeId id, unsigned i) { return g->operands.v[g->nodes.v[id].in + i]; }
const Type *snG_type(const Graph *g, NodeId id);
const AttrVal *snG_attr(const Graph *g, NodeId id, unsigned i);           /* by position in the op's row */
const AttrVal *snG_attr_named(const Graph *g, NodeId id, const char *name);
static inline int64_t snG_attr_int(const Graph *g, NodeId id, unsigned i) { return snG_attr(g, id, i)->i[0]; }
static inline bool snG_is_leaf(const Graph *g, NodeId id) { return snG_op(g->ctx, snG_node(g, id)->op)->cls == C_LEAF; }
bool snG_is_const(const Graph *g, NodeId id, double *v);                  /* a `const` node, or an expand/reshape of one */
const Leaf *snG_leaf(const Graph *g, NodeId id);                          /* of an input/weight/state node */

/* Tables of a context: sn_open calls snG_init_ops once; composites are appended by the parser. */
void snG_init_ops(sn_ctx *c);                                             /* ops.c: fills ctx->ops from ops.def */
unsigned snG_add_op(sn_ctx *c, const OpInfo *op);                         /* ops.c: appends a row, returns its id */
TypeId snG_intern_type(sn_ctx *c, const Type *t);                         /* graph.c */
AttrId snG_intern_attrs(sn_ctx *c, const Attrs *a);                       /* graph.c */
const Attrs *snG_attrs(const sn_ctx *c, AttrId id);                       /* graph.c */

/* Where the next nodes come from; the parser and autodiff set these, snG_add copies them. */
typedef struct Here { Loc loc; Sym path; } Here;

/* THE constructor. Infers the type (fails with the op's own message on a misfit), folds constants and
   identities, canonicalises commutative operand order (constants right), returns an existing equal node or a new one. attrs may be NULL
   when the op has none; missing attributes (kind A_NONE) take the row's defaults. */
NodeId snG_add(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, const Attrs *attrs);
NodeId snG_add_leaf(Graph *g, Here at, unsigned op, Sym name, const Type *t, const Leaf *init);
NodeId snG_const(Graph *g, Here at, Dtype d, double v);                   /* rank 0; u32/i32 exact */
NodeId snG_part(Graph *g, Here at, NodeId x, int i);                      /* result i of a multi-result node; 0 = x itself */
void snG_set_output(Graph *g, Sym name, NodeId v, Loc at);
void snG_set_update(Graph *g, NodeId target, NodeId v, Loc at);
void snG_rename(Graph *g, NodeId id, Sym name);                           /* gives a name if it has none */

/* Author-layer helpers used by the parser, by gradient texts and by the C DSL: numpy broadcasting made
   explicit (reshape + expand), scalars lifted; integer and float mixes are an error. */
NodeId snG_broadcast_to(Graph *g, Here at, NodeId x, const Type *shape_of);
NodeId snG_ewise(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin);  /* broadcasts, then snG_add */
/* Flattens [.., K] @ [K, N], broadcasts batches; to: dtype of the result, 0 = the operands'. */
NodeId snG_matmul(Graph *g, Here at, NodeId a, NodeId b, bool ta, bool tb, Dtype to);

/* Rebuild: the skeleton of every pass. map[] takes old ids to new ones; copies names, paths, locations. */
typedef struct Rebuild {
    const Graph *old; Graph *g; NodeId *map;
    NodeId plain;                    /* up to this node the new graph is the old one */
} Rebuild;
Rebuild snG_rebuild(const Graph *old);
NodeId snG_copy_node(Rebuild *r, NodeId id);      /* same op over mapped operands, through snG_add */
Graph *snG_finish(Rebuild *r);                    /* maps outputs and updates, then drops what nothing reads (leaves: inputs and states stay) */
Graph *snG_dce(Graph *g);                         /* a compact copy with only live nodes */
uint32_t *snG_use_counts(const Graph *g, Arena *a); /* per node, outputs and updates counted */
void snG_verify(const Graph *g);                  /* aborts on a broken invariant */

/* Composite ops: the elaborated body for these operand types and attributes, cached in the context:
   a graph whose inputs are the formals in order and whose single output is "y". */
const Graph *snG_body(sn_ctx *c, unsigned op, const Type *const *in, unsigned nin, AttrId attr, Loc at);
/* Splices a body in; returns its output. named: what has a name in the body gets it here, in the path of `at`. */
NodeId snG_inline(Graph *g, Here at, const Graph *body, const NodeId *args, bool named);

/* -- Text ------------------------------------------------------------------------------------------------ */

typedef struct Define { const char *name, *value; } Define;               /* -D name=value */
typedef struct Module {              /* one .sn file, elaborated: its graphs */
    sn_ctx *ctx;
    VEC(Graph *) graphs;
    VEC(Define) params;              /* every param and dim with its final value, for the resolved configuration */
} Module;

/* Elaborate a file / a text. Unknown -D names are an error. Fails through the context. */
Module *snG_load(sn_ctx *c, const char *path, const Define *defs, int ndefs);
Module *snG_parse(sn_ctx *c, const char *file_name, const char *text, size_t n, const Define *defs, int ndefs);
Graph *snG_get(const Module *m, const char *graph_name);                   /* NULL: none of that name; "" = the only one / first */
void snG_free_module(Module *m);

/* Elaborate one expression in which `names[i]` mean `vals[i]`: gradient texts and rule right-hand sides. Attributes of the
   node being differentiated are visible as compile-time numbers/lists through `attrs_of` (0 = none). */
NodeId snG_expr(Graph *g, Here at, const char *text, const Sym *names, const NodeId *vals, int n, NodeId attrs_of);

void snG_print(StrBuf *b, const Graph *g);                                 /* the flat form; parses back to the same graph */
void snG_print_path(StrBuf *b, const Graph *g, const char *prefix);        /* only nodes whose name or path starts so */
void snG_print_dot(StrBuf *b, const Graph *g);
void snG_print_ops(StrBuf *b, const sn_ctx *c);                            /* the op reference */
void snG_print_type(StrBuf *b, const sn_ctx *c, const Type *t);
const char *snG_node_name(const Graph *g, NodeId id);                      /* the printed name; "h.3.attn.matmul.1" when unnamed */
bool snG_equal(const Graph *a, const Graph *b);                            /* same printed text */

/* Rewrite rules as the parser stores them: `rule NAME: lhs => rhs [if cond]`, texts as written (newlines become
   spaces); passes/rewrite.c compiles each once. Names "canon.*" and "autocast.*" belong to those passes, all others to recognise. */
typedef struct Rule { Sym name; const char *lhs, *rhs, *cond; Loc loc; void *compiled; } Rule;   /* cond: NULL = none */
typedef struct RuleSet {             /* ctx->rules; NULL = no rules yet */
    VEC(Rule) rules;
    bool builtin_loaded;
    void *bodies;                    /* recognise.c's */
    VEC(Graph *) graphs;             /* freed with the context */
} RuleSet;

/* -- The reference evaluator (eval.c): plain loops, the oracle of every test ---------------------------------- */

typedef enum { EVAL_F64, EVAL_F32, EVAL_TYPED } EvalMode;  /* floats kept in f64 / rounded to f32 / rounded to each node's dtype */
typedef struct EvalVal { double *v; int64_t n; } EvalVal;  /* row-major; integers and bools exact */
typedef struct EvalEnv {
    const char *const *names; const EvalVal *vals; int n;  /* leaf values (any named node may be replaced) */
    uint64_t seed; uint32_t step, micro;
    bool tf32;                       /* outside EVAL_F64: f32 operands of products lose all but 10 bits of mantissa, as tensor cores have them */
} EvalEnv;
/* The value of every node that outputs and updates need into vals[id] (of all nodes where a graph has neither), allocated in a, which
   is not the context's arena. A topk node holds its values; its indices are the node part(x, 1). Leaves that are not bound take their
   initialiser (normal and uniform from Philox stream = hash of the name) or fail. random: see the head of eval.c. */
void snG_eval(const Graph *g, EvalMode mode, const EvalEnv *env, Arena *a, EvalVal *vals);
/* Initial value of a leaf: the one definition that evaluator and runtime share (runtime/init.c has the same formulas, tested equal). */
void snG_init_leaf(const Graph *g, const Leaf *l, uint64_t seed, double *out);
enum { SN_RANGE_TEXT = 96 };
bool snG_in_range(const InputRange *r, Dtype d, double v);       /* what v is once it is rounded to d; infinities and NaN are in none */
void snG_range_text(const InputRange *r, char out[SN_RANGE_TEXT]);       /* "at least 0 and below 1" */
double snG_round(Dtype d, double v);                       /* round-to-nearest-even into f32/bf16/f16; integers wrap */
/* Philox 4x32-10 (Salmon et al., SC11). */
void snG_philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4]);

#endif
