/* hf.h: weights under Hugging Face's names: folders of config.json and safetensors, one file or several with an index. */
#ifndef SN_HF_H
#define SN_HF_H
#include <jansson.h>

#include "tools/cmd.h"

typedef enum { HF_LLAMA, HF_QWEN3, HF_QWEN3_MOE, HF_LLADA, HF_KINDS } HfKind;
extern const char *const HF_KIND_NAMES[HF_KINDS];                /* "llama", "qwen3", "qwen3_moe", "llada": the model_type of config.json */
int hf_kind(const char *name);                                   /* HF_KINDS: none of that name */

/* A model's shape, as models/transformer.sn builds it. */
typedef struct HfConfig {
    HfKind kind;
    int64_t vocab, width, layers, heads, kv_heads, head_dim, hidden, positions;
    int64_t experts, top_k;          /* 0: dense; hidden is then an expert's */
    bool norm_top_k;                 /* the weights of a token's experts add up to 1: gate_over=chosen */
    int64_t mask, bos;               /* ids; -1: none */
    double norm_eps, rope_base;
    bool qk_norm, tied;
    json_t *kept;                    /* members of config.json that our params have no word for, for the way back: eos_token_id .. */
} HfConfig;

/* DIR/config.json; type: instead of its model_type, NULL = that. What our models cannot represent is refused. 0, or 1 after a line. */
int hf_read_config(const char *dir, const char *type, HfConfig *c);
int hf_write_config(const char *dir, const HfConfig *c, const char *dtype);
char *hf_meta(const HfConfig *c);                                /* a checkpoint's metadata with these params; malloc'ed */
/* The shape that a checkpoint's params and `defines` say; type NULL: qwen3 with QK-norm, else llama. */
int hf_config_of(const char *path, const sn_file *f, const StrList *defines, const char *type, HfConfig *c);
void hf_free_config(HfConfig *c);

/* Reads DIR into a checkpoint for models/ar.sn or models/dlm.sn, in f32; its metadata has the params. */
int hf_import(const char *dir, const char *type, const char *out);

typedef struct HfExport {
    const char *ckpt, *dir, *type;
    const StrList *defines;
    uint8_t dtype;                   /* SN_F32, SN_BF16, SN_F16 */
    bool ema;                        /* the averaged weights, where the checkpoint has them */
    int64_t shard;                   /* bytes of a file at most, but for a tensor that is larger; 0 = one file */
} HfExport;
int hf_export(const HfExport *e);

#endif
