/* measure.h: models on windows of text, by the graph `logits`: likelihoods in other orders, next-token accuracy. */
#ifndef SN_MEASURE_H
#define SN_MEASURE_H
#include "tools/score.h"
#include "tools/stats.h"

/* The likelihood of whole windows in the scorer's order, nats per token, and its error over windows. order_se: what other orders would
   change, at most; mixture: of the windows' orders as one model (ORDER_RANDOM). */
typedef struct OrderResult { Mean nll; double order_se, mixture; int64_t windows; } OrderResult;
int measure_order(Scorer *s, const Windows *w, OrderResult *out);

/* Which token comes next, given those before it in the window: `places` positions a window, one in each stretch of T / places tokens,
   the same for every model. A DLM sees masks from there on. acc: its likeliest token, the mask left out, is the text's. nll: nats.
   Errors are over windows. */
typedef struct NextToken { Mean acc, nll; int64_t windows, places; } NextToken;
int measure_next_token(Scorer *s, const Windows *w, int64_t places, NextToken *out);

/* The loss of `test` with all logits divided by one temperature, the best for `fit`: what is left of it when a model is as sure of itself as it
   may be. AR: exact likelihoods; DLM: the NELBO, with the scorer's draws, the same masks before and after. Nats per token. */
typedef struct Temperature { double temperature; bool at_edge; Mean raw, scaled, gain; int64_t fit_windows, windows; } Temperature;
int measure_temperature(Scorer *s, const Windows *fit, const Windows *test, Temperature *out);

/* What the model thinks of texts, as a judge: exp of the mean NLL per token, texts longer than the window in pieces; and how varied their
   tokens are: the entropy of the frequencies of a text's tokens, nats, mean over texts. Low perplexity with low entropy is repetition. */
typedef struct TextsResult { double nll, se, perplexity, low, high; Mean entropy; int64_t texts, tokens, empty; } TextsResult;
int measure_texts(Scorer *s, const char *path, TextsResult *out);      /* JSON lines with `text` or `completion` */

#endif
