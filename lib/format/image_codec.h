/* The decoders behind vq_image_decode. */
#ifndef VQ_FORMAT_IMAGE_CODEC_H
#define VQ_FORMAT_IMAGE_CODEC_H

#include "format/image.h"

VQ_MUST_CHECK int vq_png_decode(struct vq_image *im, const uint8_t *data, size_t n,
				const char *label, struct vq_err *err);
VQ_MUST_CHECK int vq_jpeg_decode(struct vq_image *im, const uint8_t *data, size_t n,
				 const char *label, struct vq_err *err);

#endif
