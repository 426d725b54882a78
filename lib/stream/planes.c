/* Byte planes. */
#include "stream/planes.h"

size_t vq_planes_width(enum vq_dtype t)
{
	size_t w = t == VQ_BYTES ? 0 : vq_dtype_size(t);

	return w == 2 || w == 4 ? w : 0;
}

void vq_planes_split(uint8_t *restrict dst, const uint8_t *restrict src, size_t n, size_t width)
{
	size_t i;

	if (width == 2) {
		for (i = 0; i < n; i++) {
			dst[i] = src[2 * i];
			dst[n + i] = src[2 * i + 1];
		}
		return;
	}
	for (i = 0; i < n; i++) {
		dst[i] = src[4 * i];
		dst[n + i] = src[4 * i + 1];
		dst[2 * n + i] = src[4 * i + 2];
		dst[3 * n + i] = src[4 * i + 3];
	}
}

void vq_planes_merge(uint8_t *restrict dst, const uint8_t *restrict src, size_t n, size_t width)
{
	size_t i;

	if (width == 2) {
		for (i = 0; i < n; i++) {
			dst[2 * i] = src[i];
			dst[2 * i + 1] = src[n + i];
		}
		return;
	}
	for (i = 0; i < n; i++) {
		dst[4 * i] = src[i];
		dst[4 * i + 1] = src[n + i];
		dst[4 * i + 2] = src[2 * n + i];
		dst[4 * i + 3] = src[3 * n + i];
	}
}
