/* split.h: cutting text by a regular expression, as tokenizers do before they merge bytes. */
#ifndef SN_SPLIT_H
#define SN_SPLIT_H
#include <stdbool.h>
#include <stddef.h>

typedef struct Split Split;

/* A pattern in the dialect of tokenizer.json; literal: the text itself. NULL with a line in err, where this build has no PCRE2, too. */
Split *split_new(const char *pattern, bool literal, char err[256]);
/* The first match at `from` or after it that is not empty: 1 and where it lies, 0: none, -1 with a line in err. Any bytes; none that are not UTF-8
   match. */
int split_next(Split *p, const char *s, size_t n, size_t from, size_t *begin, size_t *end, char err[256]);
void split_free(Split *p);

#endif
