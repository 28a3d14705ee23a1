/* bpe.h: a byte-level BPE tokenizer in memory: what bpe_read.c makes of files and bpe.c encodes with. */
#ifndef SN_BPE_H
#define SN_BPE_H
#include "tools/nfc.h"
#include "tools/split.h"
#include "tools/text.h"

typedef struct Added { char *text; size_t n; int32_t id; bool late; } Added;     /* found in the text as it is; late: after the others */
typedef struct Cut { Split *split; bool matches; } Cut;                          /* matches: what lies between them is dropped */
typedef struct Piece { uint64_t key; uint8_t n, ids; char text[24]; int32_t id[9]; } Piece;    /* encoded before; n = 0: free */
typedef struct Waiting { uint32_t rank; int32_t at, left, right; } Waiting;      /* a pair that could merge, with the ids it was seen with */

enum { PIECES = 1 << 16, MOST_IDS = 1 << 22, MOST_MERGES = 1 << 22 };

typedef struct Bpe {
    Tokenizer t;
    Arena arena;
    VEC(Added) added;
    Nfc *nfc;                        /* the text is put into this form before it is cut; NULL: it stays */
    bool begins[256];                /* a byte that an added token begins with */
    VEC(Cut) cuts;
    int32_t byte[256];               /* ids of single bytes */
    char *text;                      /* of all tokens, */
    uint32_t *from, *size;           /* [vocab]: where each lies */
    HashMap pairs;                   /* mixed (left, right) -> rank + 1 */
    int32_t *merged;                 /* [rank]: what it becomes */
    HashMap whole;                   /* hash of a token's text -> id + 1; filled where pieces that are tokens are not taken apart */
    bool ignore_merges;
    Piece *seen;                     /* [PIECES] */
    /* of the piece at work */
    int32_t *id, *before, *after;    /* a list of symbols */
    Waiting *heap;
    size_t room, nheap, heap_room;
} Bpe;

/* A bijection, so that what goes in can be compared by what comes out. */
static inline uint64_t bpe_pair(int32_t left, int32_t right) {
    uint64_t x = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

int bpe_encode(const Tokenizer *t, const char *text, size_t n, Tokens *out);
char *bpe_decode(const Tokenizer *t, const int32_t *ids, int64_t n, size_t *bytes);
void bpe_free(Bpe *b);

#endif
