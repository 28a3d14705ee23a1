/* scalar.h: one elementwise function in numbers: the evaluator's and the folder's meaning of a scalar text. */
#ifndef SN_SCALAR_H
#define SN_SCALAR_H
#include "graph/graph.h"

/* Operands of dtype `in` (a select's condition apart), result of dtype `out`. EVAL_F64: floats unrounded; EVAL_F32: every step
   rounded to f32; EVAL_TYPED: to its dtype, bf16 and f16 computed in f32 and rounded at the end. */
double snG_scalar_eval(const Scalar *s, Dtype in, Dtype out, const double *args, EvalMode mode);

/* The same for n elements; operand k of element i is arg[k][i * step[k]]. */
void snG_scalar_map(const Scalar *s, Dtype in, Dtype out, const double *const *arg, const int64_t *step, int64_t n, EvalMode mode, double *y);
#endif
