/* Integer codes as 32-bit words. */
#include "format/words.h"

void vq_words_pack(uint32_t bits, const uint8_t *v, size_t n, size_t stride, uint32_t *w,
		   size_t w_stride)
{
	uint64_t held = 0; /* at most 31 bits and one code */
	uint32_t n_held = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		held |= (uint64_t)v[i * stride] << n_held;
		n_held += bits;
		if (n_held >= 32) {
			*w = (uint32_t)held;
			w += w_stride;
			held >>= 32;
			n_held -= 32;
		}
	}
	if (n_held)
		*w = (uint32_t)held;
}

void vq_words_awq(const uint8_t *v, size_t n_out, size_t n, uint32_t *w)
{
	static const uint8_t order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
	long long c, n_words = (long long)(n_out / 8);

#pragma omp parallel for schedule(static)
	for (c = 0; c < n_words; c++) {
		const uint8_t *rows = v + 8 * (size_t)c * n;
		size_t k, i;

		for (k = 0; k < n; k++) {
			uint32_t word = 0;

			for (i = 0; i < 8; i++)
				word |= (uint32_t)rows[order[i] * n + k] << (4 * i);
			w[k * (size_t)n_words + (size_t)c] = word;
		}
	}
}
