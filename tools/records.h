/* records.h: fine-tuning data: JSON lines, each an object with the strings "prompt" and "completion". */
#ifndef SN_RECORDS_H
#define SN_RECORDS_H
#include <stdbool.h>
#include <stdint.h>

typedef struct Record { char *text; int64_t prompt, size; } Record;      /* bytes: the prompt, then the completion */
typedef struct Records { Record *v; int64_t n, cap, files, bytes, duplicates; } Records;

bool records_named(const char *path);            /* ends in .jsonl */
/* Adds a file's records, equal ones once. 0, or a negative code with `file:line: what` in err. */
int records_read(Records *r, const char *path, char err[256]);
void records_free(Records *r);

#endif
