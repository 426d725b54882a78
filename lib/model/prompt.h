/* From a question to what the model reads: chat template, tokens, pixels. */
#ifndef VQ_MODEL_PROMPT_H
#define VQ_MODEL_PROMPT_H

#include "format/dataset.h"
#include "format/tokenizer.h"
#include "model/config.h"

struct vq_prompt {
	int32_t *tokens; /* the image token repeated n_image_tokens times for each picture */
	uint32_t n_tokens;
	float *pixels; /* [n_images, 3, S, S]; NULL without a picture */
	uint32_t n_images;
};

/* question: the human turn; "<image>" in it must match image (path or NULL). */
VQ_MUST_CHECK int vq_prompt_build(struct vq_prompt *p, const struct vq_config *c,
				  const struct vq_tokenizer *t, const char *question,
				  const char *image, struct vq_err *err);
void vq_prompt_free(struct vq_prompt *p);

#endif
