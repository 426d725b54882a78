/* vqlm-infer: a model answers questions. */
#ifndef VQ_TASK_INFER_H
#define VQ_TASK_INFER_H

#include <stdint.h>

#include "format/text.h"
#include "kernel/keys.h"

/* Where a model's weights are kept while it runs. */
enum vq_hold {
	VQ_HOLD_AUTO, /* loaded where many tokens may be decoded and memory allows it, else mapped */
	VQ_HOLD_MAP,  /* in the file: starts at once, reads what it needs, shares its pages */
	VQ_HOLD_LOAD, /* copied to memory of large pages, which is read faster */
};

/* How a text becomes windows whose tokens are scored; the default is gptq's, or custom with a window or a BOS of its
 * own. */
enum vq_ppl_protocol {
	VQ_PPL_AUTO,
	VQ_PPL_GPTQ, /* 2,048 tokens, BOS before the first, all but each window's first scored */
	VQ_PPL_SHORTENED_LLAMA, /* the same with 128; or BOS before each window, whose tokens are all scored */
	VQ_PPL_LLAMA_CPP, /* BOS in place of each window's first token, its second half scored */
	VQ_PPL_CUSTOM,    /* any window, BOS first, each or none, all scored */
};

#define VQ_PPL_PROTOCOLS "auto|gptq|shortened-llama|llama.cpp|custom"

enum vq_bos {
	VQ_BOS_AUTO,
	VQ_BOS_FIRST, /* before the first token of all */
	VQ_BOS_EACH,  /* before each window or context */
	VQ_BOS_NONE,
	VQ_BOS_REPLACE, /* in place of each window's first token: llama.cpp's, not to be asked for */
};

#define VQ_BOS_CHOICES "auto|first|each|none"

struct vq_infer {
	const char *model; /* a checkpoint's folder, a .vqm, or "-": a .vqm on standard input */
	enum vq_hold hold;
	int lock;             /* weights may not leave memory */
	const char *template; /* chat template by name; NULL: the model's */
	const char *vision;   /* the tower of a checkpoint that lacks it, or NULL */
	int aspect;           /* of pictures: position in VQ_ASPECTS */

	/* Where questions come from: data, else question, else standard input, one a line. */
	const char *data, *images; /* a data file; where its pictures are, or NULL */
	const char *question;      /* a single one, answered in plain text */
	const char *image;         /* its picture, or NULL */
	uint32_t limit;            /* of a file: the first so many; 0 = all */
	const char *shard;         /* "i/n": those whose id hashes to part i of 1..n; NULL = all */

	/* Instead of questions: a text whose tokens are scored ("-": standard input). */
	const char *ppl;
	enum vq_text_rows rows;
	enum vq_ppl_protocol protocol;
	uint32_t window; /* tokens; 0 = the protocol's */
	enum vq_bos bos; /* also of choices: first or none, the default */

	const char *choices; /* or questions whose choices are scored (format/choices.h; "-") */

	/* Of layers with experts, see model/route.h; a model without them: VQ_E_USAGE */
	int moe_capacity, moe_noise;
	uint64_t moe_seed; /* of the noise */

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

/* Answers everything that is asked.  JSON Lines: an opening record, a line a question in the order of the data, totals; or
 * plain text.  VQ_E_STOP after SIGTERM or SIGINT: what was answered has been written. */
VQ_MUST_CHECK int vq_infer_run(const struct vq_infer *o, struct vq_err *err);

/* The same for o->ppl: an opening record, a line a window with the sum of -ln p of its scored tokens, totals. */
VQ_MUST_CHECK int vq_infer_ppl(const struct vq_infer *o, struct vq_err *err);

/* The same for o->choices: of each question a line with the ln p of its choices. */
VQ_MUST_CHECK int vq_infer_choices(const struct vq_infer *o, struct vq_err *err);

#endif
