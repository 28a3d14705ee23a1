/* expand.c: composite ops -> their bodies.

   In:  a graph with ops of std.sn (softmax, rmsnorm, ...). Out: the same with primitives only, apart from the composites
   listed in PassOptions.keep, which a kernel family implements.

     y: f32[B, 8] = softmax(x)
   becomes
     softmax.amax: f32[B, 1] = amax(x)
     softmax.sub:  f32[B, 8] = sub(x, softmax.expand)
     ...

   A body is elaborated once per operand types and attributes (snG_body) and spliced per use; what the splices have in
   common merges by hash-consing. */
#include "passes/pass.h"

typedef struct Inliner { Graph *g; WantFn want; const void *user; } Inliner;

static NodeId inline_call(Inliner *in, Here at, const Graph *from, NodeId id, const NodeId *args);

/* Copies the nodes of a body over args, inlining further composites on the way; returns its output. */
static NodeId splice(Inliner *in, Here at, const Graph *body, const NodeId *args) {
    sn_ctx *c = body->ctx;
    ArenaMark mark = snU_mark(&c->scratch);
    NodeId *map = NEWN(&c->scratch, NodeId, body->nodes.n);
    for (uint32_t i = 0; i < body->leaves.n; i++) map[body->leaves.v[i].node] = args[i];
    for (NodeId id = 1; id < body->nodes.n; id++) {
        if (map[id]) continue;
        const Node *n = snG_node(body, id);
        const OpInfo *op = snG_op(c, n->op);
        NodeId ops[MAX_IN];
        for (unsigned i = 0; i < n->nin; i++) ops[i] = map[snG_in(body, id, i)];
        if (op->cls == C_COMPOSITE && in->want(body, id, in->user)) {
            map[id] = inline_call(in, at, body, id, ops);
            continue;
        }
        Attrs attrs = {0};
        for (unsigned i = 0; i < op->nattr; i++) attrs.v[i] = *snG_attr(body, id, i);
        map[id] = snG_add(in->g, at, n->op, ops, n->nin, op->nattr ? &attrs : NULL);
    }
    NodeId out = map[body->outputs.v[0].node];
    snU_reset(&c->scratch, mark);
    return out;
}

static NodeId inline_call(Inliner *in, Here at, const Graph *from, NodeId id, const NodeId *args) {
    sn_ctx *c = from->ctx;
    const Node *n = snG_node(from, id);
    const Type *types[MAX_IN];
    for (unsigned i = 0; i < n->nin; i++) types[i] = snG_type(in->g, args[i]);
    const Graph *body = snG_body(c, n->op, types, n->nin, n->attr, at.loc);
    const char *name = snG_op(c, n->op)->cname, *path = snU_str(c, at.path);
    at.path = snU_symf(c, "%s%s%s", path, *path ? "." : "", name);
    return splice(in, at, body, args);
}

Graph *snP_inline(const Graph *old, WantFn want, const void *user) {
    Rebuild r = snG_rebuild(old);
    Inliner in = { r.g, want, user };
    for (NodeId id = 1; id < old->nodes.n; id++) {
        const Node *n = snG_node(old, id);
        const OpInfo *op = snG_op(old->ctx, n->op);
        if (op->cls != C_COMPOSITE || !want(old, id, user)) {
            r.map[id] = snG_copy_node(&r, id);
            continue;
        }
        NodeId args[MAX_IN];
        for (unsigned i = 0; i < n->nin; i++) args[i] = r.map[snG_in(old, id, i)];
        r.map[id] = inline_call(&in, (Here){ n->loc, n->path }, old, id, args);
        if (n->name) snG_rename(r.g, r.map[id], n->name);
    }
    return snG_finish(&r);
}

/* True when the comma list names the op. */
static bool listed(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, n) && (p[n] == ',' || !p[n])) return true;
    return false;
}

static bool not_kept(const Graph *g, NodeId id, const void *user) {
    return !listed(user, snG_op(g->ctx, snG_node(g, id)->op)->cname);
}

Graph *snP_expand(const Graph *g, const PassOptions *opt) {
    return snP_inline(g, not_kept, opt->keep);
}
