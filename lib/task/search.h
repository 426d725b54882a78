/* vqlm-search: weights become integers and grids, unit by unit, with the rounding functions searched.
 *
 * In: a model stream with (for layerwise, qvlm, gptq and awq) calibration inputs and a plan.  Out: the same stream; lib/README.md
 * has the records of a quantized linear.  Search adds
 *   META `search`            JSON {"input": SHA-256 over the kind, name and hash of every record ahead of the weights}
 *   STAT `search/block/A-B`  JSON after the block of units A..B: parameters, errors and cost, where weights go by block
 * It holds one planned block of weights and the activations of the calibration set, never the model. */
#ifndef VQ_TASK_SEARCH_H
#define VQ_TASK_SEARCH_H

#include "base/io.h"
#include "base/json.h"
#include "kernel/qact.h"
#include "model/config.h"
#include "quant/grid.h"

/* best is gptq, with other defaults on the command line. */
enum vq_method {
	VQ_METHOD_RTN,
	VQ_METHOD_LAYERWISE,
	VQ_METHOD_QVLM,
	VQ_METHOD_GPTQ,
	VQ_METHOD_AWQ,
	VQ_METHOD_BEST,
	VQ_METHOD_NF4
};
#define VQ_METHODS "rtn|layerwise|qvlm|gptq|awq|best|nf4"

/* Weights of calibration tokens, see task/search_tokens.h. */
enum vq_token_weights { VQ_TOKENS_NONE, VQ_TOKENS_VISION, VQ_TOKENS_ATTENTION };
#define VQ_TOKEN_WEIGHTS "none|vision|attention"

/* What inputs go through before they are quantized: task/search_transform.h. */
enum vq_rotate { VQ_ROTATE_NONE, VQ_ROTATE_HADAMARD, VQ_ROTATE_WUSH };
#define VQ_ROTATES "none|hadamard|wush"
enum vq_smooth { VQ_SMOOTH_OFF, VQ_SMOOTH_FIXED, VQ_SMOOTH_SEARCH };

/* Where the ranges of activation grids come from, see task/search_scheme.h. */
enum vq_acts_scheme { VQ_ACTS_GROUP, VQ_ACTS_TOKEN, VQ_ACTS_STATIC, VQ_ACTS_PAPER };
#define VQ_ACTS "group|token|static|paper"

enum { VQ_PART_LLM = 1, VQ_PART_VISION = 2, VQ_PART_PROJECTOR = 4, VQ_PART_ALL = 7 };

struct vq_search_opts {
	enum vq_method method;
	struct vq_wgrid w; /* bits 16: weights stay as they are */
	struct vq_agrid a; /* bits 16: activations stay float; clip is ignored */
	enum vq_acts_scheme acts;
	double act_lp;  /* exponent of the distance by which stored ranges are clipped */
	unsigned parts; /* VQ_PART_* */
	int veo;
	double eta;
	double veo_lambda; /* weight of the decoder's entropies in scores of vision clips; 0: none */
	uint32_t first_unit, last_unit; /* units searched and emitted; 0..UINT32_MAX is all */
	const char *resume;             /* an interrupted output, or NULL */
	int keep_inputs;
	uint32_t sweeps;
	uint32_t rows;   /* rows of activations that errors are measured on, about; 0 = all */
	int act_order;   /* gptq: columns by falling second moment */
	double gptaq;    /* gptq: alpha of the full-precision input's term; 0 without */
	int w_clip;      /* gptq: ranges of weights shrink to the least squared error */
	uint32_t polish; /* gptq: rounds of coordinate descent on the codes */
	int awq_joint;   /* awq: losses with quantized inputs */
	int awq_duo;     /* awq: scales by the weights too */
	enum vq_token_weights token_weights;
	double vision_weight; /* of VQ_TOKENS_VISION; < 0: as calib measured it */
	enum vq_rotate rotate;
	enum vq_smooth smooth;
	double smooth_exponent; /* VQ_SMOOTH_FIXED: 0..1 */
	int smooth_norms;       /* only inputs that come from a norm are smoothed */
	int clip; /* rtn, nf4, gptq and best: clips of inputs are searched; the others always do that */
	double mixed;  /* share of layers whose inputs keep 8 bits */
	uint64_t seed; /* of the signs of a rotation */
};

/* Whether a method looks at the weights alone, each rounded to nearest: rtn, nf4. */
int vq_search_rounds(const struct vq_search_opts *o);
/* Bits of the NF codes that weights get, 0: none (nf4 at 6 and 8 bits is uniform). */
uint32_t vq_search_nf(const struct vq_search_opts *o);
/* Whether a search reads calibration inputs. */
int vq_search_calibrates(const struct vq_search_opts *o);
/* Whether it is gptq, by that name or as best. */
int vq_search_is_gptq(const struct vq_search_opts *o);
/* What is chosen by errors: clips of inputs, clips of weights; these or the smoothing. */
int vq_search_clips_inputs(const struct vq_search_opts *o);
int vq_search_clips_weights(const struct vq_search_opts *o);
int vq_search_chooses(const struct vq_search_opts *o);
/* Whether that is done by the error of a block's output. */
int vq_search_descends(const struct vq_search_opts *o);
/* Whether it wants all weights of a block at once; if not, they pass one tensor at a time. */
int vq_search_by_block(const struct vq_search_opts *o);

/* What --dry-run says. */
struct vq_search_cost {
	uint64_t memory; /* bytes of own memory at the peak */
	uint64_t stream; /* bytes of the output before compression */
	double flop;     /* of all products, at most */
};

/* "llm,vision,projector" -> bits.  VQ_E_USAGE names the word that is none of them. */
VQ_MUST_CHECK int vq_search_parts(const char *text, unsigned *parts, struct vq_err *err);

/* Reads the stream on fd in_fd to its end and writes the searched one.  VQ_E_STOP after a signal: the block at hand
 * is finished and written, the end record is not.  level as vq_writer_open. */
VQ_MUST_CHECK int vq_search_run(const struct vq_search_opts *o, int in_fd, const char *in_label,
				int out_fd, const char *out_label, int level, struct vq_err *err);

/* Reads the stream as far as its first weight and says what the work would take.  level: of the output that would be
 * written. */
VQ_MUST_CHECK int vq_search_dry_run(const struct vq_search_opts *o, int in_fd, const char *in_label,
				    int level, struct vq_search_cost *cost, struct vq_err *err);

/* The part of a model that a canonical tensor name belongs to: VQ_PART_*, 0 for none. */
unsigned vq_search_part_of(const char *name);

/* The parameters that determine the output, for the history.  Given. */
json_t *vq_search_params(const struct vq_search_opts *o, struct vq_err *err);

#endif
