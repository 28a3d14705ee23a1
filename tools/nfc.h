/* nfc.h: Unicode's normal form C, which some tokenizers put text into first. */
#ifndef SN_NFC_H
#define SN_NFC_H
#include "graph/util.h"

typedef struct Nfc Nfc;
Nfc *nfc_new(Arena *a);
/* The text in normal form, malloc'ed, and its size; NULL with *n as it is: it is in that form already. Bytes that are not UTF-8 stay. */
char *nfc_text(const Nfc *f, const char *s, size_t *n);

#endif
