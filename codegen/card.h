/* card.h: NVIDIA cards as a model sees them, and how long a kernel would take on one. */
#ifndef SN_CARD_H
#define SN_CARD_H
#include <stdint.h>

typedef struct Card {
    const char *name, *what, *target;
    int units;                       /* multiprocessors */
    double ghz;                      /* boost clock that the peaks are of */
    double bf16, mma, f32;           /* TFLOP/s, dense: data sheet; by mma.sync; multiply-adds */
    double gbs;                      /* memory bandwidth, GB/s */
    int shared_kb, registers, warps, blocks;     /* of a multiprocessor */
} Card;

const Card *snK_card(const char *name);      /* NULL: there is none of that name */
const char *snK_card_names(void);

/* What a kernel does its products by, and how many instructions stand around them: from its PTX. */
typedef enum { BY_NOTHING, BY_FMA, BY_MMA } Unit;
typedef struct Loop { Unit unit; int instructions, products; } Loop;
Loop snK_product_loop(const char *ptx, const char *symbol);

/* registers: of a thread, 0 = not known */
typedef struct Work { double products, elementwise, bytes; int64_t grid, shared; int threads, registers; Loop loop; } Work;
typedef enum { BOUND_LAUNCH, BOUND_TENSOR, BOUND_ISSUE, BOUND_VECTOR, BOUND_MEMORY } Bound;
typedef struct Prediction {
    int resident;                    /* blocks of a multiprocessor at a time; 0: it does not fit */
    double occupancy, waves;         /* share of its warps; grid / (units x resident) */
    double seconds, floor;           /* floor: the roofline of the same work */
    Bound bound;
} Prediction;
Prediction snK_predict(const Card *c, const Work *w);
const char *snK_bound_name(Bound b);
#endif
