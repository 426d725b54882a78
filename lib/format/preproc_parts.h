/* What preproc.c and preproc_tiles.c share. */
#ifndef VQ_FORMAT_PREPROC_PARTS_H
#define VQ_FORMAT_PREPROC_PARTS_H

#include "format/image.h"

/* The square of crop x crop pixels at (x0, y0) of im -> out [3, crop, crop]. */
void vq_tiles_normalise(const struct vq_preproc *p, const struct vq_image *im, uint32_t x0,
			uint32_t y0, float *out);

/* Idefics3's: sizes from the configuration, the configuration from them (scale: rescale_factor; given), the pixels. */
VQ_MUST_CHECK int vq_tiles_parse(struct vq_preproc *p, const json_t *j, uint32_t image_size,
				 const char *label, struct vq_err *err);
json_t *vq_tiles_json(const struct vq_preproc *p, const char *scale);
VQ_MUST_CHECK int vq_tiles_make(const struct vq_preproc *p, const struct vq_image *im, float *out,
				struct vq_err *err);

#endif
