/* kir_eval.h: a GPU's kernel (threads > 0) interpreted in plain C, a block at a time: the oracle of lower_gpu, and what finds its faults. */
#ifndef SN_KIR_EVAL_H
#define SN_KIR_EVAL_H
#include "codegen/kir.h"

typedef struct KirBuffer { void *p; int64_t bytes; } KirBuffer;

/* Runs blocks begin..end-1 over one buffer per parameter. la: seed low, high, step, micro. False: `fault` says what is wrong, where:
   an access out of bounds or misaligned, a read of what another thread wrote with no barrier between (or another block at
   all), a barrier or warp op that not all threads reach, an undefined value that decides an address or a branch or reaches a buffer. */
bool kir_eval(const Kernel *k, const KirBuffer *buf, const uint32_t la[4], int64_t begin, int64_t end, char fault[256]);

#endif
