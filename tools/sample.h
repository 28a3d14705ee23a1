/* sample.h: tokens from logits, in f64: what generation draws. All numbers come from (seed, text, step, index), so that a seed is a text. */
#ifndef SN_SAMPLE_H
#define SN_SAMPLE_H
#include <stdbool.h>
#include <stdint.h>

typedef struct Draw { uint64_t seed; uint32_t text, step; } Draw;
double draw_uniform(Draw d, uint64_t index);                     /* in (0, 1), 53 bits */

double log_sum_exp(const float *logits, int64_t n);

/* One token of softmax(logits / temperature), of the top_k most likely (0 = all) and among these the fewest whose probabilities
   reach top_p (1 = all; nucleus sampling, Holtzman et al. 2020). temperature 0: the largest logit, the first of a tie. */
typedef struct SampleRule { double temperature, top_p; int64_t top_k; } SampleRule;
int32_t sample_token(const SampleRule *rule, const float *logits, int64_t n, Draw d);

/* argmax of logits - temperature ln(-ln u) (Gumbel-max; LLaDA's exp(logits) / (-ln u)^temperature), never `never`; and how sure the
   model is of it. */
typedef enum { REMASK_RANDOM, REMASK_CONFIDENCE, REMASK_MARGIN, REMASK_ENTROPY, REMASK_THRESHOLD } Remask;
typedef struct Guess { int32_t token; double sure; } Guess;
Guess sample_guess(const float *logits, int64_t n, int32_t never, double temperature, Remask by, Draw d, uint64_t position);

/* One position of the reverse process of the uniform kernel over n tokens, from alpha to alpha_next > alpha, the shares that survive: the position
   is z, the model says x = softmax(logits / temperature) of the clean token (temperature 0: the likeliest). Into p, which adds up to 1, the next
   token's probabilities, (a [j = z] + (1 - a)/n) (alpha_next x_j + (1 - alpha_next)/n) but for a factor, a = alpha / alpha_next: D3PM's
   sum over clean tokens of q(next, z | clean) x (Austin et al. 2021, section 3 and appendix A), which is UDLM's posterior (Schiff et al. 2024). */
void sample_posterior(const float *logits, int64_t n, int32_t z, double alpha, double alpha_next, double temperature, double *p);
int32_t sample_from(const double *p, int64_t n, double u);       /* p adds up to 1, u is in (0, 1) */

/* Classifier-free guidance: un + (scale + 1) (cond - un), in the place of cond (LLaDA, unsupervised: un does not see the prompt). */
void sample_guide(float *cond, const float *un, int64_t n, double scale);

#endif
