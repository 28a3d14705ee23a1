/* generate.h: text from a model: an AR model token by token over a cache of keys and values, a masked-diffusion model (DLM) by
   denoising blocks. */
#ifndef SN_GENERATE_H
#define SN_GENERATE_H
#include "tools/lab.h"
#include "tools/sample.h"
#include "tools/text.h"

typedef struct GenOptions {
    int64_t length;                  /* tokens to add, at most */
    SampleRule rule;
    uint64_t seed;
    int64_t eos;                     /* the token that ends a text; -1: none */
    /* DLM */
    int64_t steps, block;            /* of denoising; tokens of a block, blocks from left to right */
    Remask remask;
    double threshold, guidance;      /* of REMASK_THRESHOLD; 0 = none */
} GenOptions;

/* A model at work on texts of at most `room` tokens, prompt and addition together. */
typedef struct Generator {
    Lab lab;
    const Tokenizer *tok;
    GenOptions o;
    bool ar, uniform;                /* uniform: a DLM with kernel=uniform */
    int64_t room, fed;               /* fed: rows of prefill */
    int64_t vocab, mask, bos;
    int64_t classes;                 /* uniform: its noise is of the tokens 0 .. classes - 1 */
    int64_t own_block;               /* of a block-diffusion model: the param block_size; else 0 */
    int32_t *tokens;                 /* [room] */
    Tokens suffix;                   /* DLM: what comes after the text, set by the caller before generator_text; n = 0: nothing */
    float *logits, *without;         /* AR: [vocab]; DLM: [room, vocab], with and without the prompt */
    double decode_s;                 /* AR: in graph decode, and how many */
    int64_t decoded;
} Generator;

/* desc: file, defines, device, threads; ckpt may be NULL: the initial weights, by lab.seed. longest: tokens of the longest prompt, its
   suffix included. */
int generator_open(Generator *g, const LabOptions *desc, const char *ckpt, const Tokenizer *tok, const GenOptions *o, int64_t longest);
void generator_close(Generator *g);

/* What comes after the prompt into out (out->v malloc'ed), up to `eos`. number: of the text, what its random numbers depend on. */
int generator_text(Generator *g, const Tokens *prompt, uint32_t number, Progress *p, Tokens *out);

/* The params that a checkpoint was trained with, for those that the list does not name. A checkpoint that says nothing adds nothing. */
int checkpoint_params(const char *ckpt, const char *file, StrList *defines);      /* fails if it is one of another model than `file` */
int checkpoint_of(const char *ckpt, const char *file, const Lab *lab);    /* the same of a program; 0, or 1 after a line */
/* The same of the shape alone: what weights must have to be loaded, whatever the model is trained for. */
int checkpoint_shape(const char *ckpt, StrList *defines);
/* The tokenizer that was given, else the one that the checkpoint was trained with, else bytes; ckpt may be NULL. One that is not what the checkpoint
   was trained with is an error: NULL after a line. */
const Tokenizer *checkpoint_tokenizer(const char *path, const char *ckpt);

#endif
