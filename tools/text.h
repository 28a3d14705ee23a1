/* text.h: text to tokens and back, JSON lines, progress: what generation and evaluation share. */
#ifndef SN_TEXT_H
#define SN_TEXT_H
#include <jansson.h>

#include "graph/util.h"
#include "tools/cmd.h"

/* -- Tokenizers: a table of functions over what they keep ------------------------------------------------------ */

typedef struct Tokens { int32_t *v; int64_t n; } Tokens;          /* v: malloc'ed */
typedef struct Tokenizer Tokenizer;
struct Tokenizer {
    const void *self;
    int64_t vocab;                   /* ids are below it */
    int (*encode)(const Tokenizer *, const char *text, size_t n, Tokens *out);       /* 0, or 1 after an error line */
    char *(*decode)(const Tokenizer *, const int32_t *ids, int64_t n, size_t *bytes);/* malloc'ed, 0-terminated; ids that are no text are left out */
    int32_t eod;                     /* what ends a document; -1: it has no such token */
    const char *path;                /* its file; NULL: bytes */
    uint64_t hash;                   /* XXH3 of the files */
};
extern const Tokenizer BYTE_TOKENIZER;                           /* id = byte */

/* A tokenizer.json, or GPT-2's vocab.json or merges.txt, or a folder with them (bpe_read.c); path NULL: bytes. NULL after an error line. One
   thread at a time. */
const Tokenizer *tokenizer_open(const char *path);
void tokenizer_close(const Tokenizer *t);

/* -- JSON lines -------------------------------------------------------------------------------------------------- */

/* Calls f for every object of a file, blank lines left out; stops at the first that is not 0. A line that is no object is an
   error with its number. */
int json_lines(const char *path, int (*f)(void *user, const char *path, int line, const json_t *o), void *user);
/* The object that a whole file is; NULL after an error line with the place. */
json_t *json_file(const char *path);
/* A string member, or NULL after an error line that names file and line. Zero bytes in it are an error where n is NULL. */
const char *json_text(const char *path, int line, const json_t *o, const char *key, size_t *n);
/* Any bytes as a JSON string: what is not UTF-8 becomes U+FFFD. */
json_t *json_bytes(const char *s, size_t n);

/* -- Progress: one line that is written over, on a terminal only ----------------------------------------------- */

typedef struct Progress { double start, last; bool tty; } Progress;
void progress_start(Progress *p);
void progress_show(Progress *p, int64_t done, int64_t all, const char *unit, const char *text, size_t n);   /* text: its end is shown; may be NULL */
void progress_end(Progress *p);

#endif
