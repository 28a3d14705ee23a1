/* hf.h: weights under Hugging Face's names: folders of config.json and safetensors, one file or several with an index. */
#ifndef SN_HF_H
#define SN_HF_H
#include "tools/cmd.h"

/* Reads DIR (Llama-, Qwen3- or LLaDA-shaped) into a checkpoint for models/ar.sn or models/dlm.sn; its metadata has the params. */
int hf_import(const char *dir, const char *out);
/* Writes a checkpoint as such a folder. model_type: "llama", "qwen3", "llada"; NULL: qwen3 with QK-norm, else llama.
   shard: bytes of a file at most, 0 = one file. */
int hf_export(const char *ckpt, const StrList *defines, const char *dir, const char *model_type, int64_t shard);

#endif
