/* Numbers: half and bfloat16 conversions, rounding. */
#ifndef VQ_BASE_NUM_H
#define VQ_BASE_NUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline float vq_bits_f32(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

static inline uint32_t vq_f32_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

#define VQ_F16_MAX 65504.0f /* the largest half */

float vq_f16_to_f32(uint16_t h);
uint16_t vq_f32_to_f16(float f); /* round to nearest, ties to even; overflow gives infinity */

static inline float vq_bf16_to_f32(uint16_t h)
{
	return vq_bits_f32((uint32_t)h << 16);
}

uint16_t vq_f32_to_bf16(float f); /* round to nearest, ties to even */

/* Whole arrays; use the CPU's conversion instructions where it has them, to the same bits. */
void vq_f16_to_f32_n(float *dst, const uint16_t *src, size_t n);
void vq_f32_to_f16_n(uint16_t *dst, const float *src, size_t n);
void vq_f32_to_f16_held_n(uint16_t *dst, const float *src,
			  size_t n); /* beyond +-VQ_F16_MAX: that */
void vq_bf16_to_f32_n(float *dst, const uint16_t *src, size_t n);

/* Round half to even (torch.round, numpy.rint) under the default rounding mode. */
static inline float vq_rne(float x)
{
	return __builtin_rintf(x);
}

static inline uint32_t vq_ceil_div(uint32_t a, uint32_t b)
{
	return (a + b - 1) / b;
}

#endif
