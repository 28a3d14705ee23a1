/* cmd_import.c: `sinter import` and `sinter export`: checkpoints from and for Hugging Face's loaders.

   In:  a folder with config.json and safetensors, or a checkpoint. Out: the other. */
#include "tools/hf.h"

static int check_type(const Command *self, const char *type) {
    return type && hf_kind(type) == HF_KINDS ? cmd_usage(self, "--type is llama, qwen3, qwen3_moe or llada, not '%s'", type) : -1;
}

int cmd_import(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    const char *out = NULL, *type = NULL;
    const Opt opts[] = {
        { "out", 'o', OPT_TEXT, &out, "FILE", "the checkpoint" },
        { "type", 0, OPT_TEXT, &type, "TYPE", "llama, qwen3, qwen3_moe or llada, instead of the model_type of config.json" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = check_type(self, type);
    if (rc >= 0) return rc;
    if (pos.n != 1 || !out) return cmd_usage(self, "wants a folder and -o FILE");
    return hf_import(pos.v[0], type, out);
}

int cmd_export(const Command *self, int argc, char **argv) {
    StrList pos = {0}, defines = {0};
    HfExport e = { .defines = &defines };
    const char *dtype = "f32";
    const Opt opts[] = {
        { "out", 'o', OPT_TEXT, &e.dir, "DIR", "the folder; files of these names in it are replaced" },
        { "type", 0, OPT_TEXT, &e.type, "TYPE", "llama, qwen3, qwen3_moe or llada (default: what it was imported as; qwen3_moe of a mixture, qwen3 with QK-norm, else llama)" },
        { "dtype", 0, OPT_TEXT, &dtype, "DTYPE", "f32 (default), bf16 or f16" },
        { "shard", 0, OPT_INT, &e.shard, "BYTES", "of a file at most; there are several then, with an index (default: one file)" },
        { "ema", 0, OPT_FLAG, &e.ema, "", "its averaged weights (training with -D ema=0.999)" },
        { "define", 'D', OPT_LIST, &defines, "K=V", "a param, where the checkpoint does not say it" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = check_type(self, e.type);
    if (rc >= 0) return rc;
    if (pos.n != 1 || !e.dir) return cmd_usage(self, "wants one checkpoint and -o DIR");
    e.ckpt = pos.v[0];
    e.dtype = !strcmp(dtype, "f32") ? SN_F32 : !strcmp(dtype, "bf16") ? SN_BF16 : !strcmp(dtype, "f16") ? SN_F16 : 0;
    if (!e.dtype) return cmd_usage(self, "--dtype is f32, bf16 or f16, not '%s'", dtype);
    return hf_export(&e);
}
