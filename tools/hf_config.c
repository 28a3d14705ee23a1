/* hf_config.c: config.json of Llama-, Qwen3-, Qwen3-MoE- and LLaDA-shaped models, and the params of models/transformer.sn.

   In:  config.json, or a checkpoint's params. Out: the shape, as either.

     Llama   RMSNorm, half-split RoPE, grouped keys and values, SwiGLU, no biases      Qwen3   the same with QK-norm, a free head_dim
     Qwen3-MoE   Qwen3 with experts of SwiGLU in every layer: softmax over all, the best top_k, normalised or not; nothing is dropped
     LLaDA   Llama's layers under OLMo's names; attention from both sides, a mask token

   A member that would change what the model computes, and that our models have no param for, is an error: a wrong answer is worse. */
#include "tools/hf.h"

#include <errno.h>
#include <math.h>

#include "tools/text.h"

const char *const HF_KIND_NAMES[HF_KINDS] = { "llama", "qwen3", "qwen3_moe", "llada" };

static bool is_qwen(HfKind kind) { return kind == HF_QWEN3 || kind == HF_QWEN3_MOE; }

int hf_kind(const char *name) {
    int k = 0;
    while (k < HF_KINDS && strcmp(name, HF_KIND_NAMES[k])) k++;
    return k;
}

void hf_free_config(HfConfig *c) { json_decref(c->kept); c->kept = NULL; }

/* -- Members: sticky errors, the first one is said ---------------------------------------------------------------------- */

typedef struct Reader { const char *path; const json_t *o; int rc; } Reader;

static const json_t *member(const Reader *r, const char *key) {
    const json_t *v = json_object_get(r->o, key);
    return json_is_null(v) ? NULL : v;
}

/* A whole number in lo..hi; missing or null: `otherwise`, where that is not below lo. */
static int64_t whole(Reader *r, const char *key, int64_t lo, int64_t hi, int64_t otherwise) {
    const json_t *v = member(r, key);
    if (r->rc || (!v && otherwise >= lo)) return otherwise;
    int64_t n = json_is_integer(v) ? json_integer_value(v) : lo - 1;
    if (n >= lo && n <= hi) return n;
    r->rc = cmd_fail("%s: \"%s\" is %s; a whole number from %lld to %lld is wanted", r->path, key,
                     !v ? "missing" : json_is_integer(v) ? "out of range" : "something else", (long long)lo, (long long)hi);
    return lo;
}

/* A token's id; -1: none. */
static int64_t token(Reader *r, const char *key) { return member(r, key) ? whole(r, key, 0, INT32_MAX, -1) : -1; }

static double positive(Reader *r, const json_t *o, const char *key, double otherwise) {
    const json_t *v = json_object_get(o, key);
    if (r->rc || !v || json_is_null(v)) return otherwise;
    double x = json_is_number(v) ? json_number_value(v) : -1;
    if (x > 0 && isfinite(x)) return x;
    r->rc = cmd_fail("%s: \"%s\" must be a number above 0", r->path, key);
    return 1;
}

static bool flag(Reader *r, const char *key, bool otherwise) {
    const json_t *v = member(r, key);
    if (r->rc || !v) return otherwise;
    if (!json_is_boolean(v)) r->rc = cmd_fail("%s: \"%s\" must be true or false", r->path, key);
    return json_is_true(v);
}

static const char *text(Reader *r, const char *key, const char *otherwise) {
    const json_t *v = member(r, key);
    if (r->rc || !v) return otherwise;
    if (!json_is_string(v)) r->rc = cmd_fail("%s: \"%s\" must be a string", r->path, key);
    return json_is_string(v) ? json_string_value(v) : otherwise;
}

static void refuse_flag(Reader *r, const char *key, const char *what) {
    if (flag(r, key, false) && !r->rc) r->rc = cmd_fail("%s: \"%s\" is true: our models have no %s", r->path, key, what);
}

static void want_text(Reader *r, const char *key, const char *want) {
    const char *is = text(r, key, want);
    if (!r->rc && strcmp(is, want)) r->rc = cmd_fail("%s: \"%s\" is '%.40s': our models have %s alone", r->path, key, is, want);
}

/* -- Reading --------------------------------------------------------------------------------------------------------------- */

/* RoPE: `rope_theta` beside a `rope_scaling`, or `rope_parameters` with both (transformers 5). */
static void read_rope(Reader *r, HfConfig *c) {
    const json_t *all = member(r, "rope_parameters"), *scaling = member(r, "rope_scaling");
    c->rope_base = positive(r, r->o, "rope_theta", 10000.0);
    for (int i = 0; i < 2 && !r->rc; i++) {
        const json_t *o = i ? scaling : all;
        if (o && !json_is_object(o)) { r->rc = cmd_fail("%s: \"%s\" must be an object", r->path, i ? "rope_scaling" : "rope_parameters"); return; }
        const char *type = json_string_value(json_object_get(o, "rope_type"));
        if (!type) type = json_string_value(json_object_get(o, "type"));
        if (o && (!type || strcmp(type, "default")))
            r->rc = cmd_fail("%s: scaled RoPE (%.40s): our models have plain RoPE alone", r->path, type ? type : "no type");
        if (!r->rc && o) c->rope_base = positive(r, o, "rope_theta", c->rope_base);
    }
}

static void refuse_windows(Reader *r, HfKind kind) {
    bool used = flag(r, "use_sliding_window", !is_qwen(kind));
    if (!r->rc && used && member(r, "sliding_window")) r->rc = cmd_fail("%s: \"sliding_window\": our models see all positions", r->path);
    const json_t *types = member(r, "layer_types"), *v;
    size_t i;
    json_array_foreach((json_t *)types, i, v)
        if (!r->rc && (!json_is_string(v) || strcmp(json_string_value(v), "full_attention")))
            r->rc = cmd_fail("%s: layer %zu of \"layer_types\" is not full_attention: our models have no other", r->path, i);
}

enum { MOST_WIDTH = 1 << 20, MOST_HEADS = 1 << 12, MOST_LAYERS = 1 << 12, MOST_EXPERTS = 1 << 12, MOST_VOCAB = 1 << 26, MOST_POSITIONS = 1 << 28 };

/* Experts in every layer, or none of our models. */
static void read_experts(Reader *r, HfConfig *c) {
    const json_t *dense = member(r, "mlp_only_layers");
    c->experts = whole(r, member(r, "num_experts") ? "num_experts" : "num_local_experts", 1, MOST_EXPERTS, 0);
    c->top_k = whole(r, "num_experts_per_tok", 1, c->experts, 0);
    c->hidden = whole(r, "moe_intermediate_size", 1, MOST_WIDTH, 0);
    c->norm_top_k = flag(r, "norm_topk_prob", false);
    if (!r->rc && (whole(r, "decoder_sparse_step", 1, MOST_LAYERS, 1) != 1 || (dense && (!json_is_array(dense) || json_array_size(dense)))))
        r->rc = cmd_fail("%s: layers without experts among others with them (\"decoder_sparse_step\", \"mlp_only_layers\"): our models have one kind", r->path);
}

static void read_llama(Reader *r, HfConfig *c) {
    c->vocab = whole(r, "vocab_size", 2, MOST_VOCAB, 0);
    c->width = whole(r, "hidden_size", 1, MOST_WIDTH, 0);
    c->layers = whole(r, "num_hidden_layers", 1, MOST_LAYERS, 0);
    c->heads = whole(r, "num_attention_heads", 1, MOST_HEADS, 0);
    c->kv_heads = whole(r, "num_key_value_heads", 1, MOST_HEADS, c->heads);
    if (c->kind == HF_QWEN3_MOE) read_experts(r, c);
    else c->hidden = whole(r, "intermediate_size", 1, MOST_WIDTH, 0);
    if (!r->rc) c->head_dim = whole(r, "head_dim", 2, MOST_WIDTH, c->kind == HF_QWEN3 ? 128 : c->width / c->heads);
    c->positions = whole(r, "max_position_embeddings", 1, MOST_POSITIONS, 2048);
    c->norm_eps = positive(r, r->o, "rms_norm_eps", 1e-6);
    c->tied = flag(r, "tie_word_embeddings", false);
    c->qk_norm = is_qwen(c->kind);
    c->mask = token(r, "mask_token_id");
    refuse_flag(r, "attention_bias", "biases");
    refuse_flag(r, "mlp_bias", "biases");
    want_text(r, "hidden_act", "silu");
    refuse_windows(r, c->kind);
}

static void read_llada(Reader *r, HfConfig *c) {
    c->vocab = whole(r, "vocab_size", 2, MOST_VOCAB, 0);
    c->vocab = whole(r, "embedding_size", 2, MOST_VOCAB, c->vocab);
    c->width = whole(r, "d_model", 1, MOST_WIDTH, 0);
    c->layers = whole(r, "n_layers", 1, MOST_LAYERS, 0);
    c->heads = whole(r, "n_heads", 1, MOST_HEADS, 0);
    c->kv_heads = whole(r, "n_kv_heads", 1, MOST_HEADS, flag(r, "multi_query_attention", false) ? 1 : c->heads);
    c->hidden = whole(r, "mlp_hidden_size", 1, MOST_WIDTH, c->width * whole(r, "mlp_ratio", 1, 64, 4));
    if (!r->rc) c->head_dim = c->width / c->heads;
    c->positions = whole(r, "max_sequence_length", 1, MOST_POSITIONS, 1024);
    c->norm_eps = positive(r, r->o, "rms_norm_eps", 1e-5);
    c->tied = flag(r, "weight_tying", true);
    c->mask = whole(r, "mask_token_id", 0, MOST_VOCAB, -1);
    static const char *const no[][2] = { { "include_bias", "biases" }, { "include_qkv_bias", "biases" }, { "bias_for_layer_norm", "biases" },
        { "attention_layer_norm", "norm over all heads together" }, { "alibi", "ALiBi" }, { "scale_logits", "scaled logits" },
        { "input_emb_norm", "norm of embeddings" } };
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) refuse_flag(r, no[i][0], no[i][1]);
    want_text(r, "activation_type", "silu");
    want_text(r, "block_type", "llama");
    want_text(r, "layer_norm_type", "rms");
    if (!r->rc && !flag(r, "rope", true)) r->rc = cmd_fail("%s: \"rope\" is false: our models have RoPE", r->path);
}

static int check_shape(const char *path, HfConfig *c) {
    if (c->kv_heads > c->heads || c->heads % c->kv_heads)
        return cmd_fail("%s: %lld heads cannot share %lld key-value heads evenly", path, (long long)c->heads, (long long)c->kv_heads);
    if (c->head_dim < 2 || c->head_dim % 2) return cmd_fail("%s: heads of %lld elements: RoPE wants an even number", path, (long long)c->head_dim);
    if (c->mask >= c->vocab || c->bos >= c->vocab)
        return cmd_fail("%s: the %s token is outside the vocabulary of %lld", path, c->mask >= c->vocab ? "mask" : "BOS", (long long)c->vocab);
    return 0;
}

static void keep_members(const Reader *r, HfConfig *c) {
    static const char *const keys[] = { "eos_token_id", "pad_token_id", "max_position_embeddings", "max_sequence_length" };
    c->kept = json_object();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (member(r, keys[i])) json_object_set(c->kept, keys[i], (json_t *)member(r, keys[i]));
}

static int read_members(Reader *r, const char *type, HfConfig *c) {
    const char *kind = type ? type : text(r, "model_type", NULL);
    if (r->rc) return r->rc;
    if (!kind) return cmd_fail("%s: has no \"model_type\"; say --type llama, qwen3, qwen3_moe or llada", r->path);
    c->kind = (HfKind)hf_kind(kind);
    if (c->kind == HF_KINDS)
        return cmd_fail("%s: models of the type '%.40s' are not known; if its layers are those of llama, qwen3, qwen3_moe or llada, say so by --type", r->path, kind);
    if (c->kind == HF_LLADA) read_llada(r, c);
    else read_llama(r, c);
    c->bos = token(r, "bos_token_id");
    if (!r->rc) read_rope(r, c);
    if (!r->rc) keep_members(r, c);
    return r->rc ? r->rc : check_shape(r->path, c);
}

int hf_read_config(const char *dir, const char *type, HfConfig *c) {
    *c = (HfConfig){0};
    char *path = text_fmt("%s/config.json", dir);
    json_t *o = json_file(path);
    Reader r = { path, o, 0 };
    int rc = o ? read_members(&r, type, c) : EXIT_FAILED;
    json_decref(o);
    free(path);
    return rc;
}

/* -- Params ------------------------------------------------------------------------------------------------------------- */

/* How many digits say a number exactly. */
static int digits_of(double x) {
    char s[40];
    int digits = 1;
    for (; digits < 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, x);
        if (strtod(s, NULL) == x) break;
    }
    return digits;
}

/* A real number as the graph language reads it: never a whole one, that would be an integer. */
static char *real_text(double x) {
    char s[40];
    snprintf(s, sizeof s, "%.*g", digits_of(x), x);
    return text_fmt("%s%s", s, strpbrk(s, ".e") ? "" : ".0");
}

static void put(json_t *o, const char *key, char *value) {
    json_object_set_new(o, key, json_string(value));
    free(value);
}

static void put_whole(json_t *o, const char *key, int64_t n) { put(o, key, text_fmt("%lld", (long long)n)); }

enum { SEQ = 1024 };                                              /* a checkpoint's param seq at most: a graph is compiled for it; -D seq goes further */

char *hf_meta(const HfConfig *c) {
    json_t *p = json_object();
    put_whole(p, "vocab", c->vocab);
    if (c->mask >= 0) put_whole(p, "mask_id", c->mask);
    if (c->bos >= 0) put_whole(p, "bos_id", c->bos);
    put_whole(p, "width", c->width);
    put_whole(p, "layers", c->layers);
    put_whole(p, "heads", c->heads);
    put_whole(p, "kv_heads", c->kv_heads);
    put_whole(p, "hidden", c->hidden);
    put_whole(p, "head_dim", c->head_dim);
    if (c->experts) {
        put_whole(p, "experts", c->experts);
        put_whole(p, "top_k", c->top_k);
        put(p, "gate_over", text_fmt("%s", c->norm_top_k ? "chosen" : "all"));
    }
    put_whole(p, "seq", c->positions < SEQ ? c->positions : SEQ);
    put_whole(p, "qk_norm", c->qk_norm);
    put_whole(p, "tied", c->tied);
    put(p, "rope_base", real_text(c->rope_base));
    put(p, "norm_eps", real_text(c->norm_eps));
    json_t *o = json_pack("{s:s s:o s:s s:O}", "sinter", SINTER_VERSION, "params", p, "model_type", HF_KIND_NAMES[c->kind], "config", c->kept);
    char *s = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(o);
    return s;
}

/* A param by -D, else by the checkpoint; NULL when neither has it. */
static const char *param(const StrList *defines, const json_t *params, const char *name) {
    size_t n = strlen(name);
    for (int i = defines->n - 1; i >= 0; i--)
        if (!strncmp(defines->v[i], name, n) && defines->v[i][n] == '=') return defines->v[i] + n + 1;
    return json_string_value(json_object_get(params, name));
}

typedef struct Params { const char *path; const StrList *defines; const json_t *o; int rc; } Params;

static double number(Params *p, const char *name, double lo, double hi, double otherwise) {
    const char *s = param(p->defines, p->o, name);
    char *end = NULL;
    double x = s ? strtod(s, &end) : otherwise;
    if (p->rc) return lo;
    if (!s && otherwise >= lo) return otherwise;
    if (s && *s && !*end && x >= lo && x <= hi) return x;
    p->rc = cmd_fail("%s: the param %s is %s; give -D %s", p->path, name, s ? "out of range" : "missing: the file is no checkpoint", name);
    return lo;
}

static int64_t count(Params *p, const char *name, int64_t hi, int64_t otherwise) { return (int64_t)number(p, name, 1, (double)hi, (double)otherwise); }

static int64_t id(Params *p, const char *name) { return param(p->defines, p->o, name) ? (int64_t)number(p, name, 0, INT32_MAX, -1) : -1; }

static void shape_of_params(Params *p, HfConfig *c) {
    c->vocab = count(p, "vocab", MOST_VOCAB, 0);
    c->width = count(p, "width", MOST_WIDTH, 0);
    c->layers = count(p, "layers", MOST_LAYERS, 0);
    c->heads = count(p, "heads", MOST_HEADS, 0);
    c->kv_heads = count(p, "kv_heads", MOST_HEADS, c->heads);
    c->head_dim = count(p, "head_dim", MOST_WIDTH, c->width / c->heads);
    c->hidden = count(p, "hidden", MOST_WIDTH, 0);
    c->positions = count(p, "seq", MOST_POSITIONS, 0);
    c->qk_norm = number(p, "qk_norm", 0, 1, -1) > 0;
    c->tied = number(p, "tied", 0, 1, -1) > 0;
    c->rope_base = number(p, "rope_base", 1e-9, 1e30, 0);
    c->norm_eps = number(p, "norm_eps", 1e-30, 1, 0);
    c->mask = id(p, "mask_id");
    c->bos = id(p, "bos_id");
}

static bool param_is(const Params *p, const char *name, const char *value) {
    const char *is = param(p->defines, p->o, name);
    return is && !strcmp(is + (*is == '"'), value);
}

/* By token choice, each token's experts its own: what Qwen3-MoE computes where nothing is dropped. */
static void experts_of_params(Params *p, HfConfig *c) {
    c->experts = (int64_t)number(p, "experts", 0, MOST_EXPERTS, 0);
    if (p->rc || !c->experts) return;
    c->top_k = (int64_t)number(p, "top_k", 1, (double)c->experts, 2);
    c->norm_top_k = c->top_k > 1 ? !param_is(p, "gate_over", "all") : param_is(p, "gate_over", "chosen");
    if (!p->rc && param_is(p, "route", "experts"))
        p->rc = cmd_fail("%s: a mixture by expert choice (route=experts): no type of Hugging Face's routes so; what can be exported is route=tokens", p->path);
    if (!p->rc && number(p, "shared_hidden", 0, MOST_WIDTH, 0) > 0)
        p->rc = cmd_fail("%s: a mixture with a shared MLP (shared_hidden): qwen3_moe has none", p->path);
}

static HfKind kind_of(const HfConfig *c) { return c->experts ? HF_QWEN3_MOE : c->qk_norm ? HF_QWEN3 : HF_LLAMA; }

int hf_config_of(const char *path, const sn_file *f, const StrList *defines, const char *type, HfConfig *c) {
    const char *meta = sn_file_meta(f, "sinter");
    json_t *o = meta ? json_loads(meta, 0, NULL) : NULL, *kept = json_object_get(o, "config");
    Params p = { path, defines, json_object_get(o, "params"), 0 };
    const char *was = json_string_value(json_object_get(o, "model_type"));
    *c = (HfConfig){ .kept = json_is_object(kept) ? json_incref(kept) : json_object() };
    shape_of_params(&p, c);
    if (!p.rc) experts_of_params(&p, c);
    c->kind = type ? (HfKind)hf_kind(type) : was && hf_kind(was) < HF_KINDS ? (HfKind)hf_kind(was) : kind_of(c);
    json_decref(o);
    if (!p.rc) p.rc = check_shape(path, c);
    if (!p.rc && (c->experts > 0) != (c->kind == HF_QWEN3_MOE))
        p.rc = cmd_fail("%s: the model is %s, %s is %s; export it as another --type", path, c->experts ? "a mixture of experts" : "dense", HF_KIND_NAMES[c->kind],
                        c->experts ? "dense" : "a mixture");
    if (!p.rc && c->qk_norm != is_qwen(c->kind))
        p.rc = cmd_fail("%s: the model %s QK-norm, %s has %s; export it as another --type", path, c->qk_norm ? "has" : "has no", HF_KIND_NAMES[c->kind],
                        c->qk_norm ? "none" : "one");
    if (!p.rc && c->kind == HF_LLADA && c->mask < 0) p.rc = cmd_fail("%s: llada wants a mask token, and the checkpoint names none; give -D mask_id", path);
    if (!p.rc && c->kind == HF_LLADA && c->head_dim * c->heads != c->width)
        p.rc = cmd_fail("%s: %lld heads of %lld are not the width %lld, as llada has it; export it as llama", path, (long long)c->heads,
                        (long long)c->head_dim, (long long)c->width);
    return p.rc;
}

/* -- Writing --------------------------------------------------------------------------------------------------------------- */

static json_t *llama_json(const HfConfig *c) {
    static const char *const classes[HF_KINDS] = { "LlamaForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM" };
    bool qwen = is_qwen(c->kind);
    json_t *o = json_pack("{s:[s] s:s s:I s:I s:I s:I s:I s:I s:I s:I s:s s:f s:f s:n s:b s:b}", "architectures",
                          classes[c->kind], "model_type", HF_KIND_NAMES[c->kind], "vocab_size", (json_int_t)c->vocab,
                          "hidden_size", (json_int_t)c->width, "num_hidden_layers", (json_int_t)c->layers, "num_attention_heads", (json_int_t)c->heads,
                          "num_key_value_heads", (json_int_t)c->kv_heads, "head_dim", (json_int_t)c->head_dim, "intermediate_size",
                          (json_int_t)c->hidden, "max_position_embeddings", (json_int_t)c->positions, "hidden_act", "silu", "rms_norm_eps",
                          c->norm_eps, "rope_theta", c->rope_base, "rope_scaling", "tie_word_embeddings", (int)c->tied, "attention_bias", 0);
    if (qwen) json_object_set_new(o, "use_sliding_window", json_false());
    else json_object_set_new(o, "mlp_bias", json_false());
    if (!c->experts) return o;
    json_t *moe = json_pack("{s:I s:I s:I s:b s:i s:[]}", "num_experts", (json_int_t)c->experts, "num_experts_per_tok", (json_int_t)c->top_k,
                            "moe_intermediate_size", (json_int_t)c->hidden, "norm_topk_prob", (int)c->norm_top_k, "decoder_sparse_step", 1, "mlp_only_layers");
    json_object_update(o, moe);
    json_decref(moe);
    return o;
}

static json_t *llada_json(const HfConfig *c) {
    json_t *o = json_pack("{s:[s] s:s s:{s:s s:s} s:I s:I s:I s:I s:I s:I s:I s:I s:f s:f s:b}", "architectures", "LLaDAModelLM", "model_type",
                          "llada", "auto_map", "AutoConfig", "configuration_llada.LLaDAConfig", "AutoModelForCausalLM", "modeling_llada.LLaDAModelLM",
                          "vocab_size", (json_int_t)c->vocab, "embedding_size", (json_int_t)c->vocab, "d_model", (json_int_t)c->width, "n_layers",
                          (json_int_t)c->layers, "n_heads", (json_int_t)c->heads, "n_kv_heads", (json_int_t)c->kv_heads, "mlp_hidden_size",
                          (json_int_t)c->hidden, "max_sequence_length", (json_int_t)c->positions, "rms_norm_eps", c->norm_eps, "rope_theta",
                          c->rope_base, "weight_tying", (int)c->tied);
    static const char *const no[] = { "alibi", "attention_layer_norm", "bias_for_layer_norm", "flash_attention", "include_bias", "include_qkv_bias",
        "input_emb_norm", "scale_logits", "use_cache" };
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) json_object_set_new(o, no[i], json_false());
    static const char *const yes[] = { "rope", "rope_full_precision", "layer_norm_with_affine" };
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) json_object_set_new(o, yes[i], json_true());
    static const char *const zero[] = { "attention_dropout", "residual_dropout", "embedding_dropout" };
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++) json_object_set_new(o, zero[i], json_real(0));
    json_t *same = json_pack("{s:s s:s s:s s:s s:I s:n}", "activation_type", "silu", "block_type", "llama", "layer_norm_type", "rms", "init_device",
                             "cpu", "block_group_size", (json_int_t)1, "multi_query_attention");
    json_object_update(o, same);
    json_decref(same);
    return o;
}

int hf_write_config(const char *dir, const HfConfig *c, const char *dtype) {
    json_t *o = c->kind == HF_LLADA ? llada_json(c) : llama_json(c);
    if (c->mask >= 0) json_object_set_new(o, "mask_token_id", json_integer(c->mask));
    json_object_set_new(o, "bos_token_id", c->bos < 0 ? json_null() : json_integer(c->bos));
    json_object_set_new(o, "torch_dtype", json_string(dtype));
    json_object_update(o, c->kept);
    json_object_del(o, c->kind == HF_LLADA ? "max_position_embeddings" : "max_sequence_length");      /* of another type that it came as */
    int digits = digits_of(c->norm_eps) > 15 || digits_of(c->rope_base) > 15 ? 17 : 15;
    char *s = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(digits) | JSON_PRESERVE_ORDER), *path = text_fmt("%s/config.json", dir);
    int rc = s ? write_text(path, s, strlen(s)) : cmd_fail("out of memory");
    json_decref(o);
    free(s);
    free(path);
    return rc;
}
