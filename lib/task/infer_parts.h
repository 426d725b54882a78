/* What the files of vqlm-infer share: the loaded model, the questions, a batch of them. */
#ifndef VQ_TASK_INFER_PARTS_H
#define VQ_TASK_INFER_PARTS_H

#include "base/str.h"
#include "format/dataset.h"
#include "format/tokenizer.h"
#include "model/packed.h"
#include "model/prompt.h"
#include "task/infer.h"
#include "task/infer_prefix.h"

/* --- the model (infer_load.c) --- */

struct vq_loaded {
	struct vq_model model;
	struct vq_tokenizer *tok;
	json_t *identity;      /* {"name", "sha256", "method", ...} */
	uint64_t weight_bytes; /* of all tensors, as stored */
	uint32_t vocab;        /* rows of the head that are tokens */
	struct vq_ckpt *ckpt;  /* what the model's weights lie in: one of these */
	struct vq_vqm vqm;
	int have_vqm;
	char held[80]; /* where the weights are, in words */
};

/* The model of o.  n_questions are to come (UINT32_MAX: nobody knows how many), which decides with o->hold how the
 * weights are held.  The model may not move afterwards. */
VQ_MUST_CHECK int vq_loaded_open(struct vq_loaded *l, const struct vq_infer *o,
				 uint32_t n_questions, struct vq_err *err);
void vq_loaded_close(struct vq_loaded *l);

/* Reads all of a checkpoint's weights: VQ_E_DATA naming the first NaN or infinity.  Done only when an answer
 * shows that something is wrong. */
VQ_MUST_CHECK int vq_loaded_check(const struct vq_loaded *l, struct vq_err *err);

/* --- the questions (infer_asks.c) --- */

struct vq_ask {
	char *id, *text, *image; /* image NULL: none */
	char *line;              /* the answer that a resumed run already has, or NULL */
	uint32_t index;          /* of vq_asks_pick: which one of all it is */
};

struct vq_asks {
	struct vq_ask *v;
	uint32_t n;
	uint32_t n_asked;     /* in all shards together */
	char data_sha256[65]; /* empty when there is no data file */
};

/* From o->data (limit and shard applied, every picture's file looked for), or from the lines of standard
 * input. */
VQ_MUST_CHECK int vq_asks_open(struct vq_asks *a, const struct vq_infer *o, struct vq_err *err);
void vq_asks_close(struct vq_asks *a);

/* Of n things with ids (NULL: their numbers, from 0), those that limit and shard select. */
VQ_MUST_CHECK int vq_asks_pick(struct vq_asks *a, const struct vq_infer *o, char *const *ids,
			       uint32_t n, struct vq_err *err);

/* Takes the answers of an interrupted run.  VQ_E_DATA when its opening record differs from this one's. */
VQ_MUST_CHECK int vq_asks_resume(struct vq_asks *a, const char *path, const json_t *opening,
				 struct vq_err *err);

struct vq_run_times {
	double vision, prefill, decode; /* sums over those that ran at the same time */
	uint64_t pictures, prompt_tokens, decoded_tokens;
};

/* --- pictures (infer_pictures.c) --- */

/* The bytes of a file, and what they are known by. */
struct vq_picture_file {
	char *data; /* NULL once nobody needs it */
	size_t n;
	uint64_t key[2];
};

struct vq_picture {
	struct vq_picture_file file;
	const char *path; /* borrowed from the question that came with it first */
	uint32_t n;       /* pictures that the tower sees: 1, or tiles */
	float *rows;      /* [n, n_image_tokens, d] for the decoder; NULL until it is worked out */
	int rc;           /* what that said; err with it */
	struct vq_err err;
	uint64_t used; /* the round that asked for it last */
};

struct vq_pictures {
	struct vq_picture **v;
	size_t n, room, each; /* each: floats of the rows of one picture that the tower sees */
	uint64_t now;
};

void vq_pictures_init(struct vq_pictures *c, const struct vq_config *cfg);
void vq_pictures_free(struct vq_pictures *c);

/* A round begins: of the pictures that earlier ones asked for, those asked for last stay. */
void vq_pictures_next(struct vq_pictures *c);

/* A path inside data that cannot be opened is bad data. */
VQ_MUST_CHECK int vq_picture_read(struct vq_picture_file *f, const char *path, struct vq_err *err);
void vq_picture_file_free(struct vq_picture_file *f);

/* The picture of a file, n of them for the tower; it stays for this round.  A new one takes the bytes over and keeps path.
 * NULL: VQ_E_SYS. */
struct vq_picture *vq_pictures_get(struct vq_pictures *c, struct vq_picture_file *f,
				   const char *path, uint32_t n, struct vq_err *err);

/* Works out what this round asks for, `workers` towers at a time: each picture has its rows then, or rc < 0. */
VQ_MUST_CHECK int vq_pictures_encode(struct vq_pictures *c, const struct vq_model *m,
				     uint32_t workers, struct vq_run_times *times,
				     struct vq_err *err);

/* --- answering (infer_batch.c) --- */

#define VQ_MAX_ROWS 2048u /* that go through a large model's layers together */

/* Models up to this many bytes of weights answer several batches at a time. */
#define VQ_SMALL_MODEL ((uint64_t)64 << 20)

/* Limits of a plan: rows as many as the model's size asks for, cells of cached_layers in what a batch's cache may take. */
struct vq_group_limits vq_batch_limits(const struct vq_model *m, uint32_t cached_layers,
				       uint32_t answer, int small);

struct vq_answering {
	struct vq_ask *ask;
	struct vq_prompt prompt;
	struct vq_picture_file file; /* until the picture is known */
	struct vq_picture *picture;  /* NULL: none; borrowed for the round */
	uint32_t shared; /* tokens that it begins with like the one before it in the batch */
	int32_t *tokens; /* [n_tokens] of the answer; the end token is not among them */
	uint32_t n_tokens;
	struct vq_str text;
	struct vq_token_stream stream;
	int finished;
	float *logits; /* [vocab] that follow the prompt, with --logits */
	double ms;     /* its part of the time that its batch took */
	/* with --score */
	uint32_t n_choices;
	double log_probs[VQ_MAX_CHOICES]; /* of A, B, ... */
	uint32_t best;
	/* of building it */
	int rc;
	struct vq_err err;
};

/* What a batch needs besides its questions; one for each that runs at the same time.  kv is kept from batch to
 * batch. */
struct vq_batcher {
	const struct vq_infer *o;
	const struct vq_loaded *l;
	uint32_t max_tokens;
	int small;     /* see vq_rounds */
	uint32_t part; /* rows of prompts that go through the layers at a time; 0: all */
	struct vq_kv kv;
	struct vq_run_times times;
	/* Called after each token with the text so far; may be NULL. */
	int (*on_text)(void *ctx, const struct vq_answering *a, struct vq_err *err);
	void *ctx;
};

uint32_t vq_infer_max_tokens(const struct vq_infer *o); /* of an answer */
void vq_batcher_init(struct vq_batcher *b, const struct vq_infer *o, const struct vq_loaded *l,
		     int small);
void vq_batcher_free(struct vq_batcher *b);

/* Limits of a plan of its batches. */
struct vq_group_limits vq_batcher_limits(const struct vq_batcher *b);

/* Answers v[0..n), in the order of a plan; pictures are worked out, shared is set. */
VQ_MUST_CHECK int vq_batch_run(struct vq_batcher *b, struct vq_answering *const *v, uint32_t n,
			       struct vq_err *err);
void vq_answering_free(struct vq_answering *a);

/* --- rounds (infer_round.c) --- */

/* Questions that are looked at together: prompts built, pictures worked out, planned, answered. */
struct vq_rounds {
	const struct vq_infer *o;
	const struct vq_loaded *l;
	struct vq_batcher
		*b; /* [workers] batches at a time; results do not depend on their number */
	uint32_t workers;
	int small; /* a model whose layers are too little work to share out: a batch runs on one thread */
	struct vq_pictures pictures;
	struct vq_answering *v; /* [n] of this round, in the order of the questions */
	uint32_t n, room;
};

VQ_MUST_CHECK int vq_rounds_open(struct vq_rounds *r, const struct vq_infer *o,
				 const struct vq_loaded *l, struct vq_err *err);
void vq_rounds_close(struct vq_rounds *r);

/* Answers the next questions, q[0] to at most q[n - 1], as many as a round takes: r->n.  That depends on the questions
 * and the model alone, and so does what goes through the decoder together: where one of them is open, also
 * questions that an earlier run answered (line) are, so that the sums of the others are cut as they were.
 * After a failure the first r->n have been answered. */
VQ_MUST_CHECK int vq_round(struct vq_rounds *r, struct vq_ask *q, uint32_t n, struct vq_err *err);

/* --- records (infer_records.c); NULL without memory --- */

/* How a model's float products go: bf16 for a checkpoint, where the CPU has them and o does not ask for float32. */
enum vq_gemm_way vq_infer_products(const struct vq_infer *o, const struct vq_loaded *l);

/* The opening record of a run: model, ids, data's hash, shard; params, which are given, with those that every run
 * has. */
json_t *vq_infer_head(const char *what, const struct vq_infer *o, const struct vq_loaded *l,
		      const struct vq_asks *a, json_t *params);

/* What determines the answers, and which were asked for. */
json_t *vq_infer_opening(const struct vq_infer *o, const struct vq_loaded *l,
			 const struct vq_asks *a, uint32_t max_tokens);
json_t *vq_infer_answer(const struct vq_answering *a);
/* workers: batches that ran at a time; t is the sum over them. */
json_t *vq_infer_totals(const struct vq_loaded *l, const struct vq_asks *a,
			const struct vq_run_times *t, uint32_t workers, double load_seconds,
			double seconds);

#endif
