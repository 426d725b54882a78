/* What the files of vqlm-infer share: the loaded model, the questions, a batch of them. */
#ifndef VQ_TASK_INFER_PARTS_H
#define VQ_TASK_INFER_PARTS_H

#include "base/str.h"
#include "format/dataset.h"
#include "format/tokenizer.h"
#include "model/packed.h"
#include "model/prompt.h"
#include "task/infer.h"

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
	uint32_t n_prompt;       /* tokens, once known; 0 before */
};

struct vq_asks {
	struct vq_ask *v;
	uint32_t n;
	char data_sha256[65]; /* empty when there is no data file */
};

/* From o->data (limit and shard applied, every picture's file looked for), or from the lines of standard
 * input. */
VQ_MUST_CHECK int vq_asks_open(struct vq_asks *a, const struct vq_infer *o, struct vq_err *err);
void vq_asks_close(struct vq_asks *a);

/* Takes the answers of an interrupted run.  VQ_E_DATA when its opening record differs from this one's. */
VQ_MUST_CHECK int vq_asks_resume(struct vq_asks *a, const char *path, const json_t *opening,
				 struct vq_err *err);

/* --- answering (infer_batch.c) --- */

struct vq_answering {
	struct vq_ask *ask;
	struct vq_prompt prompt;
	int32_t *tokens; /* [n_tokens] of the answer; the end token is not among them */
	uint32_t n_tokens;
	struct vq_str text;
	struct vq_token_stream stream;
	int finished;
	float *logits; /* [vocab] that follow the prompt, with --logits */
	/* with --score */
	uint32_t n_choices;
	double log_probs[VQ_MAX_CHOICES]; /* of A, B, ... */
	uint32_t best;
};

struct vq_run_times {
	double vision, prefill, decode;
	uint64_t pictures, prompt_tokens, decoded_tokens;
};

/* What a batch needs besides its questions; one for each that runs at the same time.  kv is kept from batch to
 * batch. */
struct vq_batcher {
	const struct vq_infer *o;
	const struct vq_loaded *l;
	uint32_t max_tokens, max_rows;
	struct vq_kv kv;
	struct vq_run_times times;
	/* Called after each token with the text so far; may be NULL. */
	int (*on_text)(void *ctx, const struct vq_answering *a, struct vq_err *err);
	void *ctx;
};

uint32_t vq_infer_max_tokens(const struct vq_infer *o); /* of an answer */
void vq_batcher_init(struct vq_batcher *b, const struct vq_infer *o, const struct vq_loaded *l);
void vq_batcher_free(struct vq_batcher *b);
VQ_MUST_CHECK int vq_batch_run(struct vq_batcher *b, struct vq_answering *v, uint32_t n,
			       struct vq_err *err);
void vq_answering_free(struct vq_answering *a);

/* --- records (infer_records.c); NULL without memory --- */

/* What determines the answers, and which were asked for. */
json_t *vq_infer_opening(const struct vq_infer *o, const struct vq_loaded *l,
			 const struct vq_asks *a, uint32_t max_tokens);
json_t *vq_infer_answer(const struct vq_answering *a, double ms);
/* workers: batches that ran at a time; t is the sum over them. */
json_t *vq_infer_totals(const struct vq_loaded *l, const struct vq_asks *a,
			const struct vq_run_times *t, uint32_t workers, double load_seconds,
			double seconds);

#endif
