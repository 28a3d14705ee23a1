/* corpus.h: from folders and files of text to token shards for training, validation and test.

   Without another tokenizer, it is the byte: token = byte value, 256 is the mask, vocabulary 257; or, with eod, 256
   ends every document, 257 is the mask, vocabulary 258. A shard says where its documents begin: a
   document is a file, or a piece of one that does not go on with the next piece. JSON lines with
   prompts and completions make shards of records, with eod, that also say which tokens are answers:
   whole records, as many as the budgets have room for. Everything is a
   function of the files' contents, their order (sorted by path) and the two seeds. */
#ifndef SN_CORPUS_H
#define SN_CORPUS_H
#include <stdbool.h>
#include <stdint.h>

enum { CORPUS_VOCAB = 257, CORPUS_MASK = 256, CORPUS_EOD = 256, CORPUS_PIECE = 1024, CORPUS_STRING = 50 };

typedef struct CorpusDesc {
    const char *const *paths;        /* files, folders; or one shard or token file (shards.h), or a folder of them; or files of records (.jsonl) */
    int npaths;
    const char *const *held;         /* files, folders: validation and test come from these alone, whatever */
    int nheld;                       /* the paths are; what they share is not trained on. 0: from the paths */
    const char *corrupt;             /* "words:0.3": that share of the training text's words trade places, at */
                                     /* random; or of its bytes, or lines. NULL: none */
    const char *out;                 /* folder for train, val and test.safetensors */
    int64_t unique;                  /* training bytes, exactly; 0 = all that are there, in order */
    int64_t val_bytes, test_bytes;   /* exactly; 0 = none. Test: files that no choice was made on */
    uint64_t split_seed;             /* which files are held out: the same for a whole study */
    uint64_t seed;                   /* which pieces of the training files make the unique set */
    bool eod;                        /* a token after every document; budgets count bytes of text */
    const struct Tokenizer *tok;     /* NULL: bytes. The text of each document, or piece of one, is encoded by itself */
    int64_t max_file;                /* larger files in folders are skipped; 0 = 16 MiB */
    void (*log)(void *user, const char *line);   /* progress, line by line; may be NULL */
    void *user;
} CorpusDesc;

typedef struct CorpusSet {
    char path[1024];                 /* of the shard; "" when there is none */
    int64_t files, bytes;            /* source files; tokens. A prepared shard has 0 files */
    uint64_t hash;                   /* XXH3 of the bytes */
    double overlap;                  /* val, test: share of their 50-byte strings found in train */
} CorpusSet;

typedef struct CorpusInfo {
    CorpusSet train, val, test;
    int64_t files, bytes;            /* text taken, after removal of duplicates */
    int64_t binary, large, unreadable, duplicate_files, duplicate_pieces, cut_files;
    char first_unreadable[1024];
    char corrupt[48];                /* how the training text was, "" = not */
    bool records;                    /* prompts and completions: a window is one of them */
    int64_t cut;                     /* the shard's tokens are those of so many bytes of text; 0: it does not say */
    int64_t documents;               /* of the training shard; 0: it does not say */
    int vocab, mask;                 /* a shard that does not say: 0 and -1 */
    int prepared;                    /* shards were taken as they are */
} CorpusInfo;

/* 0, or a negative code with one line in err. Safe to call again: shards are replaced whole. */
int corpus_prepare(const CorpusDesc *d, CorpusInfo *info, char err[256]);

#endif
