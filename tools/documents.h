/* documents.h: the text of several documents as tokens. */
#ifndef SN_DOCUMENTS_H
#define SN_DOCUMENTS_H
#include "tools/text.h"

/* start: where documents begin, n of them from 0 on, in bytes; out: in tokens. eod: a token after each, -1 = none. scored: NULL, or one flag
   a byte; out: a new one, a flag a token, where eod is part of the answer. 0, or -1: out of memory, or after an error line. */
int documents_encode(const Tokenizer *t, int32_t eod, const uint8_t *text, int64_t bytes, int64_t *start, int64_t n, uint8_t **scored, Tokens *out);

#endif
