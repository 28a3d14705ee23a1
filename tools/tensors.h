/* tensors.h: tensors by name, from files and settings, as doubles: what `run`, the text tests and the verifier feed. */
#ifndef SN_TENSORS_H
#define SN_TENSORS_H
#include "tools/cmd.h"

typedef struct NamedTensor { const char *name, *file; EvalVal val; int rank; int64_t dim[6]; bool used; } NamedTensor;
typedef struct Tensors { VEC(NamedTensor) t; Arena arena; } Tensors;

int tensors_read(Tensors *ts, const char *path);                 /* adds a file's tensors; 0 or 1 after an error line */
NamedTensor *tensors_find(Tensors *ts, const char *name);
void tensors_free(Tensors *ts);

/* A copy of g in which every node whose name is one of the tensors' is an input of that name. Fails through the context. */
Graph *tensors_replace(const Graph *g, Tensors *ts);

#endif
