/* interval.c: what a boolean node may be over a block. */
#include "codegen/gen.h"

Range gen_range(Gen *c, NodeId id, const Lin *at)
{
    (void)id, (void)at;
    if (!c->t) return (Range){ 0, 0 };
    return (Range){ snT_full(c->t, (TType){ SN_BOOL, 1, 1 }, 0), snT_full(c->t, (TType){ SN_BOOL, 1, 1 }, 1) };
}
