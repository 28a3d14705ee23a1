/* example.c: trains a bundle for ten steps and reads its loss. All there is to link is libsinter_rt.

     sinter build models/ar.sn --train -D width=32 -D layers=1 -D heads=2 -D seq=32 -D batch=4 -o ar.snb
     cc example.c $(pkg-config --cflags --libs sinter_rt) -o example
     ./example ar.snb 4 32 */
#include <sinter/sn_rt.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *why)
{
    fprintf(stderr, "example: %s\n", why);
    return 1;
}

/* Something to learn: every token is three more than the one before. */
static void fill(int32_t *tokens, int batch, int seq, int step)
{
    for (int i = 0; i < batch * seq; i++)
        tokens[i] = (step * 7 + i / seq * 31 + i % seq * 3) % 250;
}

static int train(sn_session *s, int batch, int seq)
{
    size_t bytes = (size_t)batch * (size_t)seq * sizeof(int32_t);
    int32_t *tokens = malloc(bytes), *sample = malloc((size_t)batch * sizeof *sample);
    int rc = tokens && sample ? 0 : -1;
    for (int step = 1; step <= 10 && !rc; step++) {
        float loss = 0;
        fill(tokens, batch, seq, step);
        for (int i = 0; i < batch; i++)
            sample[i] = step * batch + i;
        rc = sn_bind(s, "train", "tokens", tokens, bytes);
        if (!rc) rc = sn_bind(s, "train", "sample", sample, (size_t)batch * sizeof *sample);
        if (!rc) rc = sn_set(s, "step", step);
        if (!rc) rc = sn_step(s, (uint32_t)step, 0);
        if (!rc) rc = sn_run(s, "train");
        if (!rc) rc = sn_read(s, "train", "loss", &loss, sizeof loss);
        if (!rc) printf("step %2d  loss %.4f\n", step, loss);
    }
    free(tokens);
    free(sample);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fail("wants BUNDLE BATCH SEQ");
    sn_program *p = sn_program_open(argv[1], NULL);
    if (!p)
        return fail(sn_rt_error());
    sn_session *s = sn_session_new(p, &(sn_session_desc){ .seed = 1 });
    if (!s)
        return fail(sn_rt_error());
    int rc = sn_set(s, "lr", 3e-3) || sn_set(s, "warmup", 0) || train(s, atoi(argv[2]), atoi(argv[3]));
    if (rc)
        fail(sn_session_error(s));
    sn_session_free(s);
    sn_program_close(p);
    return rc != 0;
}
