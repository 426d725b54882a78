/* Sizes of a packed model by part, and its card. */
#ifndef VQ_TASK_PACK_CARD_H
#define VQ_TASK_PACK_CARD_H

#include <stdint.h>

#include "base/json.h"
#include "base/str.h"
#include "model/config.h"
#include "quant/transform_attr.h"

enum vq_pack_part {
	VQ_PACK_VISION,
	VQ_PACK_PROJECTOR,
	VQ_PACK_DECODER,
	VQ_PACK_EMBED,
	VQ_PACK_HEAD,
	VQ_PACK_N_PARTS
};

struct vq_pack_size {
	uint64_t elements, before,
		after; /* before: bytes in the checkpoint's type, 2 an element for codes */
	uint64_t q_elements, q_after; /* of quantized linears alone */
	uint32_t n_quantized;
};

enum vq_pack_part vq_pack_part_of(const char *tensor);
const char *vq_pack_part_name(enum vq_pack_part p);

struct vq_pack_facts {
	const struct vq_config *config;
	const json_t *header, *calib, *plan; /* calib and plan may be NULL */
	const char *base_model, *license;
	const struct vq_pack_size *sizes; /* [VQ_PACK_N_PARTS] */
	const uint32_t *n_transformed;    /* [VQ_TRANSFORM_N_KINDS] linears */
};

/* Markdown with YAML front matter, appended to b. */
void vq_pack_card(struct vq_str *b, const struct vq_pack_facts *f);

/* Its beginning, for other cards: YAML front matter and title; then how the model was made (header: producer and history;
 * plan may be NULL) and from what samples. */
void vq_card_front(struct vq_str *b, const json_t *header, const char *base_model,
		   const char *license, const char *library, int has_vision);
void vq_card_recipe(struct vq_str *b, const json_t *header, const json_t *plan);
void vq_card_calib(struct vq_str *b, const json_t *calib);

/* Bits of storage an element, grids included. */
double vq_pack_bits(const struct vq_pack_size *s);
struct vq_pack_size vq_pack_total(const struct vq_pack_size *sizes);

#endif
