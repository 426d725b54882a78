/* The search of one planned block: which clips its quantizers get, or which codes. */
#ifndef VQ_TASK_SEARCH_BLOCK_H
#define VQ_TASK_SEARCH_BLOCK_H

#include "task/search.h"
#include "task/search_acts.h"
#include "task/search_gptq.h"
#include "task/search_held.h"

/* What a search cost and brought.  Errors are squared and relative to the target's square. */
struct vq_block_cost {
	uint32_t n_rows; /* of activations that errors were measured on */
	int veo;         /* errors are scores: features, and eta times the sketched effect */
	double plain, layerwise, error; /* without clipping, as layer-wise chose, as chosen */
	struct vq_gptq_cost gptq;
	uint64_t n_evals;  /* outputs of the block computed for the sake of its error */
	uint64_t n_places; /* places run in all, layer-wise trials included */
	double per_layer;  /* places of a layer, in the mean */
	uint64_t n_routed,
		n_rerouted; /* rows times sparse layers; of them, those that the quantized stream's own
					* router would have sent to other experts than it was searched with */
	double seconds;
};

struct vq_sblock;

/* full and quant hold the weights of units first..last, in are their records; all are kept until close.  seqs of acts
 * must be at the block's input when it is searched. */
VQ_MUST_CHECK int vq_sblock_open(struct vq_sblock **out, const struct vq_search_opts *o,
				 const struct vq_acts *acts, struct vq_model *full,
				 struct vq_model *quant, const struct vq_held_list *in,
				 uint32_t first, uint32_t last, struct vq_err *err);
void vq_sblock_close(
	struct vq_sblock *b); /* NULL is fine; the linears of quant must not be used any more */

/* Chooses the clips (with gptq, the codes); the linears of quant are then what was chosen. */
VQ_MUST_CHECK int vq_sblock_search(struct vq_sblock *b, struct vq_err *err);

/* Instead: takes them from the finished records of an interrupted run. */
VQ_MUST_CHECK int vq_sblock_adopt(struct vq_sblock *b, const struct vq_held_list *done,
				  struct vq_err *err);

/* Rounds one linear as chosen: 1 and q (codes given); 0 when the record is of no linear that is quantized. */
VQ_MUST_CHECK int vq_sblock_round(struct vq_sblock *b, const struct vq_held *rec,
				  struct vq_searched *q, struct vq_err *err);

/* Appends what goes out for a record whose values the search changed without rounding them (awq: norms and biases): 1;
 * or 0. */
VQ_MUST_CHECK int vq_sblock_rewrite(const struct vq_sblock *b, const struct vq_held *rec,
				    struct vq_held_list *out, struct vq_err *err);

const struct vq_block_cost *vq_sblock_cost(const struct vq_sblock *b);

/* STAT `search/block/A-B`, without times.  Given. */
json_t *vq_sblock_stat(const struct vq_sblock *b, struct vq_err *err);
void vq_sblock_name(uint32_t first, uint32_t last, char name[64]);

/* The line that -v prints. */
void vq_sblock_say(const struct vq_sblock *b);

#endif
