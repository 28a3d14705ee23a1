/* ar.h: the autoregressive model through the C DSL: models/ar.sn without the text. */
#ifndef MODELS_AR_H
#define MODELS_AR_H
#include "graph/sn.h"

typedef struct ArShape {
    int vocab;                       /* the last id is mask and BOS */
    int width, layers, heads, kv_heads, hidden;
    int batch, seq;
    bool qk_norm, tied;
    double dropout, input_mask;      /* defaults of launch-time inputs */
} ArShape;

/* The training graph: inputs tokens, sample, dropout, input_mask; output loss. The context owns it.
   NULL on error. */
Graph *model_ar(sn_ctx *c, const ArShape *shape);

#endif
