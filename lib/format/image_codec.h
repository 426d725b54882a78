/* The decoders behind vq_image_decode. */
#ifndef VQ_FORMAT_IMAGE_CODEC_H
#define VQ_FORMAT_IMAGE_CODEC_H

#include "format/image.h"

VQ_MUST_CHECK int vq_png_decode(struct vq_image *im, const uint8_t *data, size_t n,
				enum vq_alpha alpha, const char *label, struct vq_err *err);
VQ_MUST_CHECK int vq_jpeg_decode(struct vq_image *im, const uint8_t *data, size_t n,
				 const char *label, struct vq_err *err);

/* The header alone. */
VQ_MUST_CHECK int vq_jpeg_size(const uint8_t *data, size_t n, uint32_t *w, uint32_t *h,
			       const char *label, struct vq_err *err);

/* The limits of image.h. */
VQ_MUST_CHECK int vq_image_check(uint64_t w, uint64_t h, const char *label, struct vq_err *err);

#endif
