/* What the files of vqlm-export share. */
#ifndef VQ_TASK_EXPORT_PARTS_H
#define VQ_TASK_EXPORT_PARTS_H

#include "base/folder.h"
#include "format/ggml_block.h"
#include "format/vqm.h"
#include "model/linear.h"
#include "model/packed.h"
#include "model/packed_entry.h"
#include "quant/nf4.h"
#include "task/export.h"
#include "task/search.h"

#define VQ_EXPORT_SIDE "vqlm.json" /* what a format cannot say; marks a folder as ours */

enum vq_export_as {
	VQ_AS_FLOAT, /* the model's floats, in their type */
	VQ_AS_HALF,  /* integers of the model, dequantized to float16 */
	VQ_AS_CODES, /* the model's integers */
};

/* What becomes of a tensor, and what of it decides that. */
struct vq_export_item {
	const struct vq_name *name;
	enum vq_export_as as;
	uint32_t n_out, n_in; /* where it is quantized */
	uint32_t bits, group; /* of its grid; bits 0: floats; group 0: the row */
	int sym;
	uint32_t nf;                /* bits of NF codes, or 0 */
	struct vq_agrid act;        /* bits 16: its input is float; ranges are not loaded */
	enum vq_ggml_type block;    /* GGUF */
	const struct vq_name *from; /* whose scales its input goes through, or NULL */
	const struct vq_name *fold; /* of a norm: whose scales go into it, or NULL */
	uint32_t n_more;            /* copies of the first row behind the last, for new tokens */
};

struct vq_export {
	const struct vq_export_opts *o;
	const struct vq_vqm *v;
	FILE *out;
	json_t *model; /* model.json */
	struct vq_config config;
	struct vq_name *names;
	struct vq_export_item *items; /* [n], as names */
	size_t n;
	uint32_t group;      /* inputs a group in the file, 0: the row */
	int32_t image_token; /* as the folder has it */
	int new_token;       /* the tokenizer does not know it */
	json_t *effect;      /* measured, or NULL (export_effect.h) */
	struct vq_folder folder;
};

/* A tensor of the packed model, opened. */
struct vq_export_tensor {
	struct vq_packed_entry e;
	struct vq_tensor t; /* its floats; data NULL where it is quantized */
	struct vq_packed p; /* its integers */
	void *own;
	struct vq_nf_absmax absmax; /* of NF codes; borrowed from the file */
	uint32_t nf;
	struct vq_agrid act;
	const json_t *transform; /* attribute, or NULL; borrowed */
};

VQ_MUST_CHECK int vq_export_open(struct vq_export_tensor *t, const struct vq_vqm *v,
				 const struct vq_name *name, struct vq_err *err);
void vq_export_close(struct vq_export_tensor *t);
/* VQ_E_STOP when a signal came. */
VQ_MUST_CHECK int vq_export_go_on(const struct vq_export *x, struct vq_err *err);
/* The ranges stored for its input: lows and highs [n] each, borrowed from t->act.lo and hi on success. */
VQ_MUST_CHECK int vq_export_ranges(struct vq_export_tensor *t, struct vq_err *err);

/* One range for its input that holds all those stored: the one that stands for it in compressed-tensors.  One too small for
 * a scale is that of scale 1. */
VQ_MUST_CHECK int vq_export_one_range(struct vq_export_tensor *t, float *lo, float *hi,
				      struct vq_err *err);

/* Codes [n_out, n_in] one a byte; given. */
uint8_t *vq_export_codes(const struct vq_export_tensor *t, struct vq_err *err);
/* The grid on groups of `group` inputs, which divide the tensor's own (0: the row): *scale float16 and *zero u8
 * [n_out, *n_groups], given, zero also where the grid is symmetric. */
VQ_MUST_CHECK int vq_export_grid(const struct vq_export_tensor *t, uint32_t group, uint16_t **scale,
				 uint8_t **zero, uint32_t *n_groups, struct vq_err *err);

/* Scales of inputs into norms (export_fold.c).  fold_find settles i->from by the attribute of a linear, or refuses it;
 * fold the norms' `fold`, or refuses what cannot be. */
VQ_MUST_CHECK int vq_export_fold_find(const struct vq_export *x, struct vq_export_item *i,
				      const json_t *attr, struct vq_err *err);
VQ_MUST_CHECK int vq_export_fold(struct vq_export *x, struct vq_err *err);
/* 1 and "decoder.layers.0.norm1." for a weight whose input is a norm's. */
int vq_export_norm_of(const struct vq_export *x, const char *weight, char *norm, size_t room);
/* The scales [n] that `from` has; borrowed from the file. */
VQ_MUST_CHECK int vq_export_scale(const struct vq_vqm *v, const struct vq_name *from, uint32_t n,
				  const float **scale, struct vq_err *err);
/* As vq_export_open, with what was folded into it. */
VQ_MUST_CHECK int vq_export_open_item(struct vq_export_tensor *t, const struct vq_export *x,
				      const struct vq_export_item *i, struct vq_err *err);

/* Fills x->items and x->group, or says what the format cannot hold (export_plan.c). */
VQ_MUST_CHECK int vq_export_plan(struct vq_export *x, struct vq_err *err);
const char *vq_export_name(int to); /* "awq" */
/* What the input of a matrix that goes out as integers becomes: drop also where it is float. */
int vq_export_acts_of(const struct vq_export *x, const struct vq_export_item *i);

/* VQ_E_DATA with what the format has no place for (export_family.c). */
VQ_MUST_CHECK int vq_export_check_family(const struct vq_export *x, struct vq_err *err);
int vq_export_is_idefics3(const struct vq_export *x);
/* The name of a tensor, or without ".weight" of a module, in the files of Hugging Face. */
void vq_export_spell(const struct vq_export *x, const char *canonical, char *buf, size_t room);

/* Weights as safetensors, with index where there are several (export_safetensors.c). */
VQ_MUST_CHECK int vq_export_safetensors(struct vq_export *x, struct vq_err *err);
/* One part of a quantized tensor, made (export_fill.c); given. */
enum vq_export_part {
	VQ_PART_FLOATS, /* not made: the floats as they are, or dequantized */
	VQ_PART_AWQ_WEIGHT,
	VQ_PART_AWQ_ZERO,
	VQ_PART_GPTQ_WEIGHT,
	VQ_PART_GPTQ_ZERO,
	VQ_PART_GPTQ_GROUP,
	VQ_PART_SCALE_DOWN,  /* [groups, out] */
	VQ_PART_SCALE_ALONG, /* [out, groups] */
	VQ_PART_CT_PACKED,
	VQ_PART_CT_PACKED_ZERO,
	VQ_PART_CT_SHAPE,
	VQ_PART_CT_INT,
	VQ_PART_CT_INT_ZERO,
	VQ_PART_CT_INPUT_SCALE,
	VQ_PART_CT_INPUT_ZERO,
	VQ_PART_NF_CODES,
	VQ_PART_NF_ABSMAX,
	VQ_PART_NF_MAP,
	VQ_PART_NF_NESTED_ABSMAX,
	VQ_PART_NF_NESTED_MAP,
	VQ_PART_NF_STATE,
	VQ_PART_ONES, /* of a norm that no model has: weight and bias of CLIP's last */
	VQ_PART_ZEROS,
};
VQ_MUST_CHECK int vq_export_fill(const struct vq_export *x, struct vq_export_tensor *t,
				 enum vq_export_part part, void **data, struct vq_err *err);
/* {"quant_type": "nf4", ...} of bitsandbytes; jansson's: free(). */
char *vq_export_nf_state(const struct vq_export_tensor *t, struct vq_err *err);

/* config.json and the files around it, quantization included (export_config.c, export_quant.c). */
VQ_MUST_CHECK int vq_export_config(struct vq_export *x, struct vq_err *err);
json_t *vq_export_text_json(const struct vq_config *c,
			    uint32_t vocab); /* given; export_config_text.c */
const char *vq_export_act_name(enum vq_act_fn f);
json_t *vq_export_token(int32_t id); /* the id, or null; given */
json_t *vq_export_quant_config(const struct vq_export *x, struct vq_err *err); /* given */

/* Settles x->image_token, new_token and the items' n_more; writes tokenizer_config.json, with the new token and without
 * code of the authors' own, which the folder lacks and tokenizer.json stands for (export_image.c). */
VQ_MUST_CHECK int vq_export_image(struct vq_export *x, struct vq_err *err);
VQ_MUST_CHECK int vq_export_tokenizer_config(struct vq_export *x, struct vq_err *err);

/* Tokenizer, preprocessor, vqlm.json, README.md (export_side.c). */
VQ_MUST_CHECK int vq_export_side(struct vq_export *x, struct vq_err *err);
/* A file of the folder from JSON, indented. */
VQ_MUST_CHECK int vq_export_put_json(struct vq_export *x, const char *name, const json_t *j,
				     struct vq_err *err);
VQ_MUST_CHECK int vq_export_put(struct vq_export *x, const char *name, const void *data, size_t n,
				struct vq_err *err);
/* A line on what was done. */
void vq_export_say(const struct vq_export *x, const char *fmt, ...) VQ_PRINTF(2, 3);

/* Reads the folder back and compares with the packed model: VQ_E_NO when a difference is above its bound
 * (export_verify.c). */
VQ_MUST_CHECK int vq_export_verify(struct vq_export *x, struct vq_err *err);
/* A norm as it was read back, got, beside the model's, plain, and the scales that its readers have: 1 when they have
 * some and it agrees, 0 when they have none, VQ_E_NO (export_verify_fold.c). */
VQ_MUST_CHECK int vq_export_verify_norm(const struct vq_export *x,
					const struct vq_export_item *norm, const float *plain,
					const double *got, struct vq_err *err);

#endif
