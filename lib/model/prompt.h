/* From a question to what the model reads: chat template, tokens, pixels. */
#ifndef VQ_MODEL_PROMPT_H
#define VQ_MODEL_PROMPT_H

#include "format/dataset.h"
#include "format/tokenizer.h"
#include "model/config.h"

struct vq_prompt {
	int32_t *
		tokens; /* the image token repeated n_image_tokens times for each picture or tile */
	uint32_t n_tokens;
	float *pixels; /* [n_images, 3, S, S]; NULL without a picture, and from vq_prompt_tokens */
	uint32_t
		n_images; /* pictures that the tower sees: with tiles (vq_preproc_tiling) more than one of a file */
};

/* question: the human turn; "<image>" in it must match image (path or NULL).  A path inside data that cannot be
 * opened is bad data. */
VQ_MUST_CHECK int vq_prompt_build(struct vq_prompt *p, const struct vq_config *c,
				  const struct vq_tokenizer *t, const char *question,
				  const char *image, struct vq_err *err);

/* The same without the pixels: the file is not opened.  tiles: what the picture becomes; NULL without one, and where
 * pictures have no tiles. */
VQ_MUST_CHECK int vq_prompt_tokens(struct vq_prompt *p, const struct vq_config *c,
				   const struct vq_tokenizer *t, const char *question,
				   const char *image, const struct vq_tiling *tiles,
				   struct vq_err *err);

/* A file's picture, with what is transparent as the model has it: dropped, or laid on white (Idefics3). */
VQ_MUST_CHECK int vq_prompt_decode(const struct vq_config *c, struct vq_image *im, const char *data,
				   size_t n, const char *label, struct vq_err *err);

/* A picture as the vision tower takes it: pixels [n_images, 3, S, S].  Errors name label. */
VQ_MUST_CHECK int vq_prompt_pixels(const struct vq_config *c, const struct vq_image *im,
				   const char *label, float *pixels, struct vq_err *err);

void vq_prompt_free(struct vq_prompt *p);

#endif
