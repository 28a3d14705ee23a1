/* tensors.c: tensors of files as doubles, and the rewrite that turns named nodes into inputs.

   In: safetensors files. Out: values by name, and a graph in which the nodes of those names are fed instead of computed, so
   that a mask or a t drawn in the graph can be given by a test. */
#include "tools/tensors.h"

#include "tools/verify.h"

static double file_number(const sn_tensor *t, int64_t i) {
    const char *p = t->data;
#define AT(T) ({ T v_; memcpy(&v_, p + (size_t)i * sizeof(T), sizeof v_); (double)v_; })
    switch (t->dtype) {
    case SN_FILE_F64: return AT(double);
    case SN_FILE_U8: return AT(uint8_t);
    case SN_FILE_I8: return AT(int8_t);
    case SN_FILE_U16: return AT(uint16_t);
    case SN_FILE_I16: return AT(int16_t);
    case SN_FILE_U64: return AT(uint64_t);
    case SN_FILE_I64: return AT(int64_t);
    default: return 0;
    }
#undef AT
}

static bool to_doubles(Arena *a, const sn_tensor *t, int64_t n, double *out) {
    if (t->dtype == SN_FILE_F8_E4M3 || t->dtype == SN_FILE_F8_E5M2) return false;
    if (t->dtype >= 1 && t->dtype <= SN_BOOL) {
        snV_unpack(t->dtype, snU_copy(a, t->data, t->bytes), n, out);
        return true;
    }
    for (int64_t i = 0; i < n; i++) out[i] = file_number(t, i);
    return true;
}

int tensors_read(Tensors *ts, const char *path) {
    char err[256];
    sn_file *f = sn_file_open(path, err);
    if (!f) return cmd_fail("%s", err);
    for (int i = 0; i < sn_file_count(f); i++) {
        const sn_tensor *t = sn_file_at(f, i);
        NamedTensor n = { snU_strdup(&ts->arena, t->name, strlen(t->name)), path, { NULL, 1 }, t->rank, { 0 }, false };
        for (int k = 0; k < t->rank; k++) n.dim[k] = t->dim[k], n.val.n *= t->dim[k];
        n.val.v = NEWN(&ts->arena, double, n.val.n + 1);
        if (to_doubles(&ts->arena, t, n.val.n, n.val.v)) PUSH(&ts->arena, ts->t, n);
    }
    sn_file_close(f);
    return 0;
}

NamedTensor *tensors_find(Tensors *ts, const char *name) {
    for (uint32_t i = ts->t.n; i-- > 0; )
        if (!strcmp(ts->t.v[i].name, name)) return &ts->t.v[i];
    return NULL;
}

void tensors_free(Tensors *ts) { snU_free_arena(&ts->arena); }

static bool same_shape(const Type *t, const NamedTensor *n) {
    if (t->rank != n->rank) return t->rank == 0 && n->val.n == 1;
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] != n->dim[i]) return false;
    return true;
}

static void check_shape(const Graph *g, NodeId id, const NamedTensor *n) {
    StrBuf want = {0}, got = {0};
    if (same_shape(snG_type(g, id), n)) return;
    snG_print_type(&want, g->ctx, snG_type(g, id));
    for (int i = 0; i < n->rank; i++) snU_putf(&got, "%s%lld", i ? ", " : "", (long long)n->dim[i]);
    snU_fail(g->ctx, SN_SHAPE, 0, "%s: error: tensor '%s' has the shape [%s], the graph has %s", n->file, n->name,
             got.n ? got.s : "", want.s);
}

Graph *tensors_replace(const Graph *g, Tensors *ts) {
    Rebuild r = snG_rebuild(g);
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        bool leaf = n->op == OP_input || n->op == OP_weight || n->op == OP_state;
        NamedTensor *t = tensors_find(ts, leaf ? snU_str(g->ctx, snG_leaf(g, id)->name) : snG_node_name(g, id));
        if (t) check_shape(g, id, t), t->used = true;
        if (!t || leaf) { r.map[id] = snG_copy_node(&r, id); continue; }
        Type type = *snG_type(g, id);
        r.map[id] = snG_add_leaf(r.g, (Here){ n->loc, n->path }, OP_input, snU_symz(g->ctx, t->name), &type, &(Leaf){ .init = INIT_NONE });
    }
    return snG_finish(&r);
}
