/* sn_rt.h: the Sinter runtime: open a program, feed it, run it, read it, save it. PUBLIC.

     sn_program *program = sn_program_open("dlm.snb", "host");
     sn_session *s = sn_session_new(program, &(sn_session_desc){ .device = "host", .seed = 1 });
     sn_bind(s, "train", "tokens", tokens, sizeof tokens);        // copied now
     sn_set(s, "lr", 1e-3);
     for (int step = 1; step <= 100; step++) { sn_step(s, step, 0); sn_run(s, "train"); }
     float loss; sn_read(s, "train", "loss", &loss, sizeof loss);
     sn_save(s, "out/last.safetensors", meta_json);

   Errors: functions return 0 or a negative code; sn_session_error(s) / sn_rt_error() give one line saying
   what, where, and what to do. Nothing exits, prints, or longjmps. Results do not depend on the number of
   threads. A session is used from one thread at a time. Dtypes: host layout of the graph's dtype, bool is one byte. */
#ifndef SN_RT_H
#define SN_RT_H
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#if defined(__GNUC__)
#define SN_API __attribute__((visibility("default")))
#else
#define SN_API
#endif

typedef struct SnProgram sn_program;
typedef struct sn_session sn_session;

typedef struct sn_session_desc {
    const char *device;              /* "host", "opencl[:N][:gpu]", "cuda[:N]", "emu[:sm_NN]", "null"; NULL = what suits the program */
    uint64_t seed;                   /* weights' initial values and random ops */
    int threads;                     /* 0 = all cores, or all compute units; in a GPU form the most blocks of a launch, 0 = all */
    bool profile;                    /* keep per-kernel times (sn_profile) */
    bool poison;                     /* fill arenas with NaN patterns before each run (tests) */
} sn_session_desc;

/* A program from a bundle (.snb; `sinter build`): the one of its targets that suits the device, NULL = the first that this machine can run.
   NULL on failure: sn_rt_error(). Close it after its sessions. */
SN_API sn_program *sn_program_open(const char *path, const char *device);
SN_API void sn_program_close(sn_program *p);

SN_API const char *sn_rt_error(void);                        /* last error of a call that had no session (thread-local) */
SN_API sn_session *sn_session_new(const sn_program *p, const sn_session_desc *d);
SN_API void sn_session_free(sn_session *s);
SN_API const char *sn_session_error(const sn_session *s);

SN_API int sn_bind(sn_session *s, const char *graph, const char *input, const void *data, size_t bytes); /* copies now */
SN_API int sn_set(sn_session *s, const char *input, double v);   /* scalar inputs of every graph that has one of that name; -4 when none has */
SN_API int sn_step(sn_session *s, uint32_t step, uint32_t micro);/* counters of random ops */
SN_API int sn_seed(sn_session *s, uint64_t seed);            /* of random ops from here on (evaluation has its own); initial values keep theirs */
SN_API int sn_run(sn_session *s, const char *graph);
SN_API int sn_read(sn_session *s, const char *graph, const char *output, void *out, size_t bytes); /* also weights and states, by name */
SN_API int sn_write(sn_session *s, const char *storage, const void *data, size_t bytes);
SN_API int sn_init(sn_session *s);                           /* weights and states back to their initial values */

/* Checkpoints: safetensors with every weight and state, written to a temporary file, fsync'ed, renamed.
   meta: a JSON text kept under "__metadata__"."sinter". */
SN_API int sn_save(sn_session *s, const char *path, const char *meta);
SN_API int sn_load(sn_session *s, const char *path, char **meta /* malloc'ed, may be NULL */, bool allow_missing);

typedef struct sn_kernel_time { const char *name, *family; double seconds, flops, bytes; int64_t launches; } sn_kernel_time;
SN_API int sn_profile(sn_session *s, const char *graph, sn_kernel_time *out, int cap); /* one row per launch, sums over runs; returns the number */
SN_API void sn_profile_reset(sn_session *s);

/* -- Devices --------------------------------------------------------------------------------------- */
typedef struct sn_device_info { char name[64], what[192]; int cores; double peak_gflops_f32, bandwidth_gbs; } sn_device_info;
SN_API int sn_devices(sn_device_info *out, int cap, bool measure); /* what is here; measure: FMA peak and memory bandwidth, a second each */
SN_API double sn_measure_bf16_peak(int threads);             /* the same of products of bf16 pairs; the FMA peak where the CPU has none */
SN_API int sn_device_target(const char *device, char target[64]);  /* what to compile for: "host", "opencl:x8", "ptx:sm_90"; fails where the device is not here */
SN_API double sn_measure_fma_peak(int threads);              /* GFLOP/s f32, register-only FMA loop on `threads` cores at once */
SN_API double sn_measure_bandwidth(int threads);             /* GB/s, triad over memory; 0 threads = all cores, as above */
/* The same of a device, 0 where it fails: of cuda[:N] the card's, of every other one this CPU's. */
enum { SN_PEAK_F32 = 1, SN_PEAK_BF16, SN_BANDWIDTH };
SN_API double sn_measure_device(const char *device, int what, int threads);
SN_API void sn_profile_enable(sn_session *s, bool on);       /* as in sn_session_desc, from the next run on: on a card, times cost time */

/* -- Tensor files (safetensors) -------------------------------------------------------------------- */
/* Dtypes: 1..6 as in programs (f32 bf16 f16 i32 u32 bool); files know these as well. */
enum { SN_FILE_F64 = 7, SN_FILE_U8, SN_FILE_I8, SN_FILE_U16, SN_FILE_I16, SN_FILE_U64, SN_FILE_I64, SN_FILE_F8_E4M3, SN_FILE_F8_E5M2 };
typedef struct sn_tensor { const char *name; uint8_t dtype, rank; int64_t dim[6]; const void *data; size_t bytes; } sn_tensor; /* data of an open file may be unaligned */
typedef struct sn_file sn_file;                              /* mmap'ed; hostile input is checked whole before use */
SN_API sn_file *sn_file_open(const char *path, char err[256]);
SN_API int sn_file_count(const sn_file *f);
SN_API const sn_tensor *sn_file_at(const sn_file *f, int i);
SN_API const sn_tensor *sn_file_find(const sn_file *f, const char *name);
SN_API const char *sn_file_meta(const sn_file *f, const char *key);      /* of __metadata__, NULL when absent */
SN_API void sn_file_close(sn_file *f);
SN_API int sn_file_write(const char *path, const sn_tensor *t, int n, const char *const *meta /* key, value, ..., NULL */, char err[256]);

/* -- Token data: a shard is a safetensors file with a tensor "tokens" (U8, U16, I32 or U32); it may have "documents" (I64: where each
   begins, from 0) and "scored" (U8, one per token: not 0 where its loss counts). Where its metadata says "records", a window is a
   document, cut at T tokens or filled up with the token that the metadata names "eod"; else windows are cut from a ring of all tokens. */
typedef struct sn_data sn_data;
typedef struct sn_data_desc {
    const char *path;
    int64_t window;                  /* T: tokens of a window */
    int64_t unique;                  /* unique-token budget: only the first so many tokens are used; 0 = all */
    uint64_t seed;                   /* of the order, nothing else enters it */
    bool shuffle;                    /* windows reshuffled each epoch, cut at a fresh offset; false: in order from 0, for evaluation */
    bool fixed;                      /* windows at the same places in every epoch */
    int64_t views;                   /* K: so, and sample ids come again every K epochs; 0: they never do */
    bool fill_scored;                /* of records: what fills them up belongs to them and is scored (LLaDA's fine-tuning) */
} sn_data_desc;
SN_API sn_data *sn_data_open(const sn_data_desc *d, char err[256]);
SN_API void sn_data_close(sn_data *d);
SN_API int64_t sn_data_tokens(const sn_data *d);
SN_API int32_t sn_data_max(const sn_data *d);                /* the largest token value; compare with the vocabulary before training */
SN_API int64_t sn_data_windows(const sn_data *d);            /* per epoch */
/* Window number i (0, 1, 2, ... over all epochs) into out[window] as i32; its global sample id (epoch * windows + place, the epoch modulo
   views) and epoch. A pure function of (desc, i): resuming is starting at another i. */
SN_API int sn_data_window(sn_data *d, int64_t i, int32_t *out, int64_t *sample_id, int64_t *epoch);
/* Of the same window, for each token: where in the window its document begins, whether its loss counts (0 or 1). Either may be NULL. */
SN_API int sn_data_marks(sn_data *d, int64_t i, int32_t *begins, int32_t *scored);
SN_API bool sn_data_has(const sn_data *d, const char *tensor);   /* "documents", "scored" */

SN_API void sn_philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4]);   /* Random123's Philox 4x32-10 */

#endif
