/* shards.h: tokens in files: shards of our own, and what others train from: llm.c's and nanoGPT's .bin, Megatron's .bin with .idx. */
#ifndef SN_SHARDS_H
#define SN_SHARDS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/sn_rt.h"

/* A file in memory, checked: tokens as the file has them, and where documents begin. */
typedef struct TokenFile {
    void *map;
    size_t map_bytes;
    sn_file *shard;                  /* of a shard of our own, instead of map */
    const char *kind;                /* "sinter", "llm.c", "nanoGPT", "Megatron" */
    const uint8_t *token;
    uint8_t dtype;                   /* SN_FILE_U8, SN_FILE_U16, I32 or U32, as in sn_rt.h */
    int64_t n;
    int64_t *document, ndocuments;   /* ascending from 0; NULL, 0: it does not say */
} TokenFile;

bool is_token_file(const char *path);                            /* of others, by its name: .bin, .idx */
bool is_shard(const char *path);                                 /* or our own: .safetensors */
/* eod: the token that parts documents, -1 = GPT-2's where the tokens have 16 bits. 0, or -1 with a line in err. */
int token_file_open(TokenFile *f, const char *path, int64_t eod, char err[256]);
void token_file_close(TokenFile *f);
int32_t token_file_at(const TokenFile *f, int64_t i);

typedef enum { SHARD_SINTER, SHARD_LLMC, SHARD_NANOGPT, SHARD_MEGATRON, SHARD_FORMATS } ShardFormat;
extern const char *const SHARD_FORMAT_NAMES[SHARD_FORMATS];      /* "sinter", "llm.c", "nanogpt", "megatron" */
typedef struct TokenText {
    const int32_t *v;
    int64_t n;
    const int64_t *document;
    int64_t ndocuments;
    int64_t vocab, eod;              /* eod -1: none */
    const char *tokenizer;
} TokenText;
/* Writes `path`, whole or not at all; of megatron path with .bin, and .idx beside it. */
int token_file_write(const char *path, ShardFormat format, const TokenText *t, char err[256]);
/* A token file as a shard of our own. */
int token_file_convert(const TokenFile *f, const char *out, int64_t eod, char err[256]);

#endif
