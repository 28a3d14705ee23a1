/* bundle.h: .snb files: compiled programs, one a target, in one file that needs no compiler to run. The format is at the top of
   bundle.c. sn_rt.h has what a user of the runtime needs (sn_program_open); this is for tools that write and look. */
#ifndef SN_BUNDLE_H
#define SN_BUNDLE_H
#include "runtime/rt.h"

typedef struct Bundle Bundle;

bool snR_bundle_is(const char *path);            /* it begins as a bundle does, however it goes on */
Bundle *snR_bundle_open(const char *path, char err[ERR_TEXT]);      /* every section checked; NULL: err */
void snR_bundle_close(Bundle *b);                /* programs that were read stay */
int snR_bundle_count(const Bundle *b);           /* programs */
const char *snR_bundle_target(const Bundle *b, int i);
const char *snR_bundle_needs(const Bundle *b, int i);       /* CPU features of host code, "" = none */
int64_t snR_bundle_code(const Bundle *b, int i, int64_t *manifest); /* bytes of code and of the manifest */
const char *snR_bundle_source(const Bundle *b);  /* the model, flat, as it was built; "" = not kept */
const char *snR_bundle_model(const Bundle *b);   /* the file's name */
/* Program i, on the heap (snR_program_free); its code stays in the mapped file, which it keeps. */
SnProgram *snR_bundle_program(Bundle *b, int i, char err[ERR_TEXT]);
/* The program for a device as sn_session_desc names it; NULL: the first that this machine can run. -1: err. */
int snR_bundle_choose(const Bundle *b, const char *device, char err[ERR_TEXT]);

/* Writes to a temporary file, then renames. 0 or a code. */
int snR_bundle_write(const char *path, const SnProgram *const *programs, int n, const char *model, const char *source, char err[ERR_TEXT]);

/* -- The CPU (cpu.c) ------------------------------------------------------------------------------------ */

/* What code for this target asks of a CPU: names as in /proc/cpuinfo; of "host" all that this CPU has and code may use. */
void snR_cpu_needs(const char *target, char out[512]);
bool snR_cpu_lacks(const char *needs, char missing[64]);    /* the first of them that this CPU has not */

#endif
