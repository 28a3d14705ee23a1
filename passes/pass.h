/* pass.h: graph -> graph. A pass reads a const graph and returns a new one; each result prints as valid input.

   A row of PASSES is a pass: its name is its dump name, its `-p` name and its tests' name. Adding a pass is adding
   a row and a function; pipeline.c shows the orders in which they run. */
#ifndef SN_PASS_H
#define SN_PASS_H
#include "graph/graph.h"

/* What a caller may choose; zero is the default everywhere. */
typedef struct PassOptions {
    const char *fuse;                /* which FUSIONS: "all" (default), "none", "rows,epilogue", "-columns" (all but) */
    const char *loss;                /* output to differentiate; default "loss" */
    bool grad_inputs;                /* grad: also d loss / d float inputs, as outputs grad.<input> (tests) */
    const char *autocast;            /* "bf16", "f16": dtype of contractions' operands; NULL, "tf32" (the target's business): as written */
    const char *recompute;           /* "block", "full"; NULL or "none" = every value that the backward pass reads is kept */
    const char *keep;                /* expand: comma list of composites that a kernel family implements, left alone */
    bool stats;                      /* print hits per rule to stderr */
} PassOptions;

/* opt is never NULL inside a pass. A pass that has nothing to do may return g itself. */
typedef Graph *(*PassFn)(const Graph *g, const PassOptions *opt);
typedef struct Pass { const char *name; PassFn run; const char *doc; } Pass;

#define PASSES(PASS)                                                                                     \
    PASS(canon,     snP_canon,     "one form for equal meanings: the rules canon.* of rules.sn")         \
    PASS(recognise, snP_recognise, "hand-written softmax, norms, swiglu ... become the ops of std.sn")   \
    PASS(grad,      snP_grad,      "reverse mode: outputs grad.<weight> for the output `loss`")          \
    PASS(optim,     snP_optim,     "loss graph -> one AdamW step: forward, backward, update")            \
    PASS(accum,     snP_accum,     "loss graph -> forward, backward, gradients added to accum.<weight>") \
    PASS(apply,     snP_apply,     "loss graph -> AdamW from accum.<weight>, which it zeroes")           \
    PASS(expand,    snP_expand,    "composite ops replaced by their bodies")                             \
    PASS(autocast,  snP_autocast,  "operands of contractions in bf16 or f16, sums and the rest in f32")  \
    PASS(recompute, snP_recompute, "forward values computed again in the backward pass, not kept")       \
    PASS(split,     snP_split,     "long sums over leading axes in two stages of fixed order")           \
    PASS(fuse,      snP_fuse_pass, "groups: what becomes one kernel")                                    \
    PASS(plan,      snP_plan_pass, "groups, and where each value lives in the arena")

#define PASS(name, fn, doc) Graph *fn(const Graph *, const PassOptions *);
PASSES(PASS)
#undef PASS

/* -- Fusions, each of which can be left out to see what it is worth ----------------------------------- */

/* A row is a name of `--fuse LIST` and a bit. Adding one is a row here and a look at FUSE_name where it is done. */
#define FUSIONS(F)                                                                                       \
    F(rows,     "elementwise work and row reductions over one domain run as one kernel")                 \
    F(columns,  "sums down columns join the kernel that makes what they add up")                         \
    F(epilogue, "elementwise work on a matrix product joins its kernel")                                 \
    F(parts,    "parts of a concat and permuted copies are stored by the kernel that computes them")     \
    F(index,    "masks and other index arithmetic are computed where they are read")                     \
    F(again,    "a value one light step from a stored one is computed again by its readers")             \
    F(prologue, "a product computes a light operand while it packs it, in place of a kernel that stores it")\
    F(xent,     "cross entropy of a projection: logits in chunks, never whole")                          \
    F(compact,  "of a masked cross entropy only the rows that count are projected")                      \
    F(attention, "attention and its gradients go block by block: nothing of queries x keys is stored")

enum {
#define F(name, doc) FUSION_##name,
    FUSIONS(F) NFUSIONS
#undef F
};
enum {
#define F(name, doc) FUSE_##name = 1 << FUSION_##name,
    FUSIONS(F) FUSE_ALL = (1 << NFUSIONS) - 1
#undef F
};
typedef struct Fusion { const char *name, *doc; } Fusion;
extern const Fusion snP_fusions[NFUSIONS];

/* The bits of the fusions that a list leaves out; NULL is "all". An unknown name fails through ctx; without one it is pointed
   to by *bad, else *bad is NULL. */
unsigned snP_without(sn_ctx *c, const char *list);
const char *snP_kept(unsigned without);                     /* PassOptions.keep: composites that run as kernels of their own */
unsigned snP_parse_fusions(const char *list, const char **bad);
void snP_list_fusions(StrBuf *b);                           /* "all, none, rows, ..." */

/* -- pipeline.c ------------------------------------------------------------------------------------------- */

/* The orders. `autocast` and `recompute` leave a graph alone unless PassOptions asks for them. The optimizer comes last: its
   nodes, most of a training graph, are written in canonical form. ACCUM and APPLY replace `optim` when gradients are
   accumulated over micro-steps. */
#define SNP_ORDER_INFER "canon,recognise,expand,canon,autocast,split"
#define SNP_ORDER_GRAD  "canon,recognise,grad,canon,expand,canon,autocast,recompute"
#define SNP_ORDER_TRAIN SNP_ORDER_GRAD ",optim,split"
#define SNP_ORDER_ACCUM SNP_ORDER_GRAD ",accum,split"
#define SNP_ORDER_APPLY SNP_ORDER_GRAD ",apply,split"

/* Runs a comma list of passes; the caller frees the result (g itself is left alone). Fails through ctx on an unknown name.
   SN_DUMP=a,b|all prints after those passes, SN_DUMP_DIR writes NN-pass.sn, SN_CHECK=1 verifies, =2 also prints, parses, compares. */
Graph *snP_run(sn_ctx *c, const Graph *g, const PassOptions *opt, const char *list);
const Pass *snP_find(const char *name, size_t n);
void snP_list(StrBuf *b);                                   /* name and doc, a line each */

/* -- check.c ---------------------------------------------------------------------------------------------- */

/* Seeded values for every input without a default (and, on request, for every weight and every f32 input): floats N(0, 1),
   booleans coin flips, integers inside the range their uses allow (table rows of a gather, extent of a compared iota). */
enum { SEED_WEIGHTS = 1, SEED_DEFAULTED = 2, SEED_STATES = 4 };
void snP_seed_inputs(const Graph *g, uint64_t seed, unsigned flags, Arena *a, EvalEnv *env);

/* Runs the list, evaluating outputs and updates (f64, same inputs) after every pass. 0: nothing moved by more than 1e-7
   relative; else the number of passes that moved something; one line per pass in `report`. */
int snP_check(sn_ctx *c, const Graph *g, const PassOptions *opt, const char *list, uint64_t seed, StrBuf *report);

/* What the optimizer's input of that name (lr, wd ...) may be set to; NULL: it has none of that name. */
const InputRange *snP_optim_range(const char *input);

/* -- shared by the passes ---------------------------------------------------------------------------------- */

/* Asks want() per composite node and inlines those it accepts, bodies included, until none is left (expand.c). */
typedef bool (*WantFn)(const Graph *g, NodeId id, const void *user);
Graph *snP_inline(const Graph *g, WantFn want, const void *user);

/* Differentiates inside g: gradients of the scalar `loss` (seeded with `seed`, 0 = 1.0) into d[leaf index], one per g->leaves
   entry, 0 where the loss does not depend on it; only leaves with want[leaf index] are asked for (grad.c). */
void snP_backward(Graph *g, NodeId loss, NodeId seed, const bool *want, NodeId *d);

/* One sweep of a set of rules: "canon", "recognise", "autocast" (rewrite.c). */
Graph *snP_rewrite(const Graph *g, const PassOptions *opt, const char *set);

void snP_rule_stats(const sn_ctx *c, StrBuf *b);            /* "hits  name" per rule (rewrite.c) */

#endif
