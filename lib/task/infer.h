/* vqlm-infer: a model answers questions. */
#ifndef VQ_TASK_INFER_H
#define VQ_TASK_INFER_H

#include <stdint.h>

#include "kernel/keys.h"

/* Where a model's weights are kept while it runs. */
enum vq_hold {
	VQ_HOLD_AUTO, /* loaded where many tokens may be decoded and memory allows it, else mapped */
	VQ_HOLD_MAP,  /* in the file: starts at once, reads what it needs, shares its pages */
	VQ_HOLD_LOAD, /* copied to memory of large pages, which is read faster */
};

struct vq_infer {
	const char *model; /* a checkpoint's folder, a .vqm, or "-": a .vqm on standard input */
	enum vq_hold hold;
	int lock;             /* weights may not leave memory */
	const char *template; /* chat template by name; NULL: the model's */

	/* Where questions come from: data, else question, else standard input, one a line. */
	const char *data, *images; /* a data file; where its pictures are, or NULL */
	const char *question;      /* a single one, answered in plain text */
	const char *image;         /* its picture, or NULL */
	uint32_t limit;            /* of a data file: the first so many; 0 = all */
	const char *shard;         /* "i/n": those whose id hashes to part i of 1..n; NULL = all */

	int exact;   /* dequantize packed weights and multiply in float */
	int float32; /* a checkpoint's products are float32, not bf16 where the CPU has them */
	enum vq_kv_type kv;  /* of the cache of keys and values */
	int score;           /* compare the choices "A. ", "B. " ... instead of generating */
	uint32_t max_tokens; /* of an answer; 0 = 256 for a single question, else 16 */
	double temperature;  /* 0: the likeliest token */
	uint64_t seed;

	const char *output; /* NULL: standard output */
	const char *resume; /* the .part of an interrupted run, or NULL */
	const char *logits; /* stream of last-prompt-token logits, or NULL */
	int level;          /* of that stream */
};

/* Answers everything.  JSON Lines: an opening record, a line a question in the order of the data, totals; or
 * plain text.  VQ_E_STOP after SIGTERM or SIGINT: what was answered has been written. */
VQ_MUST_CHECK int vq_infer_run(const struct vq_infer *o, struct vq_err *err);

#endif
