/* gen.h: cones. From a node and the coordinates at which it is wanted, the tile operations that compute it: loads of what is in
   memory, everything else inlined. The families decide what the program's dims are; a cone knows nothing of families.

   A program spans two dims of its domain by tiles, `row` and `col`; along every other dim it stands at one point. A coordinate is
   an affine form over the dims (passes/index.h), so a tensor's address is base + r * rs + c * cs. Dims that every tensor
   walks as one are run together first: a dry run of the families collects the forms, gen_coalesce joins dims. */
#ifndef SN_GEN_H
#define SN_GEN_H
#include "codegen/family.h"
#include "passes/index.h"

typedef struct Memo { NodeId id; bool inner; Lin at[MAX_RANK]; TVal v; } Memo;   /* inner: a tile along the run of rows */

typedef struct Gen {
    const Graph *g;
    const Group *grp;
    uint32_t group;                  /* node.group of its nodes */
    const Target *target;
    Arena *a;
    GroupTile *out;
    Tile *t;                         /* = out->tile; NULL in a dry run */
    Dom dom;
    bool joined[MAX_DOM];            /* dim i is the outer part of dim i + 1 */
    bool whole_col;                  /* the last dim is a row of reductions: never joined */
    int outer;                       /* the dim along which rows make runs that are reduced as well, -1 = none */
    int row, col;                    /* dims the tiles span, -1 = none */
    int32_t R, C;                    /* tile extents along them */
    TVal base[MAX_DOM];              /* idx: where the program stands; of row and col, where the tile starts; 0 = at 0 */
    bool inner;                      /* at present the tile is 1 x the whole run of rows: see along_rows */
    TVal vr, vc;                     /* how many rows, columns are inside; 0 = all */
    VEC(Memo) memo;
    VEC(Lin) seen;                   /* dry run: every form used */
    VEC(NodeId) args;                /* dry run: nothing; else the node of each tile param */
} Gen;

Gen gen_open(const Graph *g, const Group *grp, const Target *target, Arena *a);
void gen_coalesce(Gen *c);                               /* from `seen`; call after the dry run */
int64_t gen_extent(const Gen *c, int dim);               /* of a dim with the outer dims joined to it; 1 for dims that are joined away and for -1 */
int64_t gen_step(int dim, const Lin *l);   /* coefficient of that dim */

TVal gen(Gen *c, NodeId id, const Lin *at);              /* the tile; 0 in a dry run */
TVal gen_full(Gen *c, TVal v, int32_t r, int32_t cc);    /* broadcast to [r, cc] */
void gen_store(Gen *c, NodeId out, Lin address, TVal v); /* address: element number; v broadcast to what the address varies over */
TVal gen_address(Gen *c, const Lin *l);                  /* idx of the form at the tile's corner */
bool gen_in_memory(const Gen *c, NodeId id);             /* a leaf or another group's value: loaded, not computed */
int gen_param(Gen *c, NodeId id, bool written);
bool gen_in_group(const Gen *c, NodeId id);
/* Element number at which an output lives, from the point at which the group computes it: itself, or through the stored views. */
bool gen_place(const Gen *c, NodeId out, NodeId *value, Lin *at, Lin *address);
NodeId gen_viewed(const Gen *c, NodeId out);             /* what a stored view of the group views; itself when it is none */
bool gen_onto(const Gen *c, NodeId out, const Lin *at, Lin *address);   /* from the point of what it views */

/* What a node may be over a block: interval arithmetic over its cone (interval.c), for the rows c->row (c->R of them, c->vr inside)
   and columns c->col where the program stands. [1,1] tiles of the node's dtype; of a mask, hi false: empty, lo true: full. */
typedef struct Range { TVal lo, hi; } Range;             /* 0 in a dry run; floats: NaN where nothing is known */
Range gen_range(Gen *c, NodeId id, const Lin *at);

/* Splits dims over a grid: fills t->grid and base[]; row and col advance by tiles of R and C. Sets vr and vc. */
void gen_grid(Gen *c);
TVal gen_inside(Gen *c, int dim, int32_t size);          /* how many of the tile's `size` positions along dim are inside; 0 = all */
void gen_tile(Gen *c, const char *family);               /* opens the real tile after the dry run */
double gen_bytes(const Graph *g, const Group *grp);      /* what is touched of the inputs read once, outputs written once */

void gen_rows(const Graph *g, const Group *grp, const Target *t, Arena *a, GroupTiles *out);
void gen_gemm(const Graph *g, const Group *grp, const Target *t, Arena *a, GroupTiles *out);
void gen_attention(const Graph *g, const Group *grp, const Target *t, Arena *a, GroupTiles *out);
void gen_concat(const Graph *g, const Group *grp, const Target *t, Arena *a, GroupTiles *out);
void gen_scatter(const Graph *g, const Group *grp, const Target *t, Arena *a, GroupTiles *out);

#endif
