/* scalar.h: one elementwise function in numbers: the evaluator's and the folder's meaning of a scalar text. */
#ifndef SN_SCALAR_H
#define SN_SCALAR_H
#include "graph/graph.h"

/* Operands of dtype `in`, result of dtype `out`. EVAL_F64: floats unrounded; EVAL_F32: every float step rounded to f32; EVAL_TYPED: to `in`. */
double snG_scalar_eval(const Scalar *s, Dtype in, Dtype out, const double *args, EvalMode mode);
#endif
