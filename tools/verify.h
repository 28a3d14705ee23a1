/* verify.h: a compiled graph against the reference evaluator. */
#ifndef SN_VERIFY_H
#define SN_VERIFY_H
#include "graph/graph.h"
#include "runtime/sn_rt.h"

/* Runs graph `name` of the session once on the values of env (rounded to their dtypes; the rest takes its initial value, drawn
   from the session's seed, which must be env->seed) and compares every output and every update with the evaluation of ref: the same
   graph as loaded, or after autodiff and optimizer where it is a training graph. Appends a line per failure to `report` (a line
   for everything when verbose). Returns the number of failures, 0 = all right; negative: the runtime's error. */
int snV_verify(sn_session *s, const char *name, const Graph *ref, const EvalEnv *env, bool verbose, StrBuf *report);

/* The bar of design.md 8: root mean square error against f64 at most twice that of the as-typed evaluation, plus 2 ulp of the
   largest value; integers, booleans, infinities and NaNs equal. worst: index of the worst element. */
typedef struct Verdict { bool ok; double rms, naive, bar; int64_t worst; } Verdict;
Verdict snV_compare(Dtype d, const double *got, const double *f64, const double *typed, int64_t n);

double snV_ulp(Dtype d, double v);                       /* distance from v to the next larger value of the dtype */

/* Host memory of a dtype <-> doubles. */
void snV_pack(Dtype d, const double *v, int64_t n, void *out);
void snV_unpack(Dtype d, const void *in, int64_t n, double *v);

#endif
