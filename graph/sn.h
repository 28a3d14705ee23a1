/* sn.h: Sinter's graph layer from C. The same thing as a .sn file, by calls; std.sn is shared with the text.

     sn_ctx *c = sn_open(NULL);
     Graph *g = sn_graph(c, "train");
     int64_t B = sn_dim(g, "B", 16);
     sn_val tokens = sn_input(g, "tokens", SN_I32, SHAPE(B, 128));
     sn_val embed  = sn_weight(g, "embed", SN_F32, SHAPE(257, 192), sn_normal(0.02));
     sn_val x = sn_gather(g, embed, tokens);
     for (int i = 0; i < 4; i++) {
         sn_scope(g, "h.%d", i);
         sn_val gain = sn_weight(g, "gain", SN_F32, SHAPE(192), sn_ones());       // h.0.gain
         x = sn_apply(g, "rmsnorm", "eps=1e-6", x, gain);
         sn_end_scope(g);
     }
     sn_output(g, "y", x);
     if (sn_error(c)) fprintf(stderr, "%s\n", sn_error(c));
     StrBuf b = {0};
     sn_print(&b, g);                                  // the flat form: valid .sn text
     sn_close(c);

   Values are handles that belong to one graph; 0 is "no value". Errors are sticky: after the first one every builder
   returns 0 and does nothing, and sn_error tells what went wrong until sn_clear. Nothing here exits or prints.
   Broadcasting is numpy's. Attributes of sn_apply are text, as in a file: "axis=1, eps=1e-6"; NULL = defaults.
   C evaluates arguments in any order: build what belongs in order in statements, not in nested calls.
   The context owns everything; sn_close frees it with all its graphs that were made by sn_graph or sn_load_model.
   models/ar.c is a whole model. */
#ifndef SN_H
#define SN_H
#include "graph/graph.h"

typedef struct sn_val { uint32_t id; } sn_val;

typedef struct sn_ctx_desc { LogFn log; void *log_user; } sn_ctx_desc;   /* zero = defaults */
sn_ctx *sn_open(const sn_ctx_desc *desc);
void sn_close(sn_ctx *c);
const char *sn_error(const sn_ctx *c);             /* the first error's line, NULL when there is none */
int sn_code(const sn_ctx *c);                      /* SN_OK or a negative code */
void sn_clear(sn_ctx *c);

/* -- Graphs -------------------------------------------------------------------------------------------- */

Graph *sn_graph(sn_ctx *c, const char *name);
Module *sn_load_model(sn_ctx *c, const char *path, const Define *defs, int ndefs);   /* NULL on error */
Graph *sn_get(const Module *m, const char *graph_name);
void sn_print(StrBuf *b, const Graph *g);
/* The graph without what nothing reads, as where a graph of a file ends; g and its values are gone.
   NULL after an error. */
Graph *sn_finish(Graph *g);

/* An extent that is printed by its name: f32[B, 192]. It is for shapes; calculate with its sn_size. */
enum { SN_EXTENT_BITS = 48 };
int64_t sn_dim(Graph *g, const char *name, int64_t value);
static inline int64_t sn_size(int64_t extent) {
    return extent > 0 ? extent & (((int64_t)1 << SN_EXTENT_BITS) - 1) : extent;
}

/* A path component for what follows ("h.%d", i), until the matching sn_end_scope. */
void sn_scope(Graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sn_end_scope(Graph *g);

/* -- Leaves and ends -------------------------------------------------------------------------------------- */

typedef struct sn_shape { int rank; const int64_t *dim; } sn_shape;
#define SHAPE(...) ((sn_shape){ (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), (int64_t[]){ __VA_ARGS__ } })
#define SCALAR ((sn_shape){ 0, NULL })
typedef struct sn_initial { int kind; double a, b; InputRange range; } sn_initial;    /* InitKind; range: of inputs */
static inline sn_initial sn_zeros(void) { return (sn_initial){ INIT_ZEROS, 0, 0, {0} }; }
static inline sn_initial sn_ones(void) { return (sn_initial){ INIT_ONES, 0, 0, {0} }; }
static inline sn_initial sn_full(double v) { return (sn_initial){ INIT_FULL, v, 0, {0} }; }
static inline sn_initial sn_normal(double std) { return (sn_initial){ INIT_NORMAL, std, 0, {0} }; }
static inline sn_initial sn_uniform(double lo, double hi) { return (sn_initial){ INIT_UNIFORM, lo, hi, {0} }; }

sn_val sn_input(Graph *g, const char *name, Dtype d, sn_shape s);
sn_val sn_input_scalar(Graph *g, const char *name, double value);              /* f32[] with a default */
sn_val sn_input_within(Graph *g, const char *name, double value, InputRange range);  /* and what else it may be set to */
sn_val sn_weight(Graph *g, const char *name, Dtype d, sn_shape s, sn_initial init);   /* scope.name */
sn_val sn_state(Graph *g, const char *name, Dtype d, sn_shape s, sn_initial init);
void sn_output(Graph *g, const char *name, sn_val v);
void sn_update(Graph *g, sn_val weight_or_state, sn_val v);
sn_val sn_name(Graph *g, const char *name, sn_val v);          /* names a value for printing */
int64_t sn_dimof(Graph *g, sn_val x, int axis);                /* an extent, with its name */

/* -- Ops ---------------------------------------------------------------------------------------------------- */

/* Elementwise ops without attributes, one builder per row of ops.def: sn_exp(g, x), sn_add(g, a, b). */
#define SN_ONE(X) X(neg) X(abs) X(exp) X(log) X(sqrt) X(rsqrt) X(tanh) X(sigmoid) X(sin) X(cos) X(erf) X(floor) X(ceil) \
    X(round) X(not) X(stop_gradient)
#define SN_TWO(X) X(add) X(sub) X(mul) X(div) X(rem) X(pow) X(min) X(max) X(lt) X(le) X(gt) X(ge) X(eq) X(ne) X(and) \
    X(or) X(xor) X(shl) X(shr)
#define X(op) sn_val sn_##op(Graph *g, sn_val a);
SN_ONE(X)
#undef X
#define X(op) sn_val sn_##op(Graph *g, sn_val a, sn_val b);
SN_TWO(X)
#undef X

sn_val sn_const(Graph *g, Dtype d, double v);                  /* rank 0, broadcasts */
sn_val sn_select(Graph *g, sn_val cond, sn_val a, sn_val b);
sn_val sn_cast(Graph *g, sn_val x, Dtype to);
sn_val sn_iota(Graph *g, sn_shape s, int axis);
sn_val sn_random(Graph *g, sn_shape s, sn_val key, int64_t stream);   /* key {0}: none; stream -1: from the scope */
sn_val sn_sum(Graph *g, sn_val x, int axis);
sn_val sn_sum_all(Graph *g, sn_val x);
sn_val sn_amax(Graph *g, sn_val x, int axis);
sn_val sn_argmax(Graph *g, sn_val x, int axis);
sn_val sn_reshape(Graph *g, sn_val x, sn_shape s);
sn_val sn_permute(Graph *g, sn_val x, sn_shape perm);
sn_val sn_expand(Graph *g, sn_val x, sn_shape s);
sn_val sn_slice(Graph *g, sn_val x, int axis, int64_t start, int64_t size);
sn_val sn_concat(Graph *g, sn_val a, sn_val b, int axis);
sn_val sn_matmul(Graph *g, sn_val a, sn_val b, bool ta, bool tb);
sn_val sn_gather(Graph *g, sn_val table, sn_val idx);
sn_val sn_part(Graph *g, sn_val x, int i);

/* Any op or block of std.sn: sn_apply(g, "rmsnorm", "eps=1e-6", x, gain). A block's instance may have a
   name of its own: sn_apply(g, "dropout as drop1", NULL, x, p). sn_text puts numbers into attributes:
   sn_apply(g, "split_heads", sn_text(g, "heads=%d", 4), x). */
sn_val sn_apply_n(Graph *g, const char *name, const char *attrs, const sn_val *args, int n);
#define sn_apply(g, name, attrs, ...)                                                                               \
    sn_apply_n((g), (name), (attrs), (sn_val[]){ __VA_ARGS__ }, (int)(sizeof((sn_val[]){ __VA_ARGS__ }) / sizeof(sn_val)))

const char *sn_text(Graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
