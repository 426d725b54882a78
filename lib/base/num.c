/* Half and bfloat16 conversions. */
#include "base/num.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

float vq_f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16;
	uint32_t exp = (h >> 10) & 31, man = h & 1023;

	if (exp == 31) /* infinity, or NaN made quiet as the hardware does */
		return vq_bits_f32(sign | 0x7f800000 | (man ? 0x400000 | man << 13 : 0));
	if (exp == 0) {
		float f = (float)man * 0x1p-24f;

		return sign ? -f : f;
	}
	return vq_bits_f32(sign | (exp + 112) << 23 | man << 13);
}

uint16_t vq_f32_to_f16(float f)
{
	uint32_t u = vq_f32_bits(f), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;

	if (a > 0x7f800000)
		return (uint16_t)(sign | 0x7e00 | ((a >> 13) & 0x3ff));
	if (a >= 0x477ff000) /* 65520 and more round to infinity */
		return (uint16_t)(sign | 0x7c00);
	if (a < 0x38800000) { /* subnormal: the sum below aligns the last bit with 2^-24 */
		float r = vq_bits_f32(a) + 0.5f;

		return (uint16_t)(sign | (vq_f32_bits(r) - 0x3f000000));
	}
	a += 0xfff + ((a >> 13) & 1); /* ties to even */
	return (uint16_t)(sign | (a - 0x38000000) >> 13);
}

uint16_t vq_f32_to_bf16(float f)
{
	uint32_t u = vq_f32_bits(f);

	if ((u & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) static size_t from_f16_f16c(float *dst, const uint16_t *src,
								size_t n)
{
	size_t i;

	for (i = 0; i + 8 <= n; i += 8)
		_mm256_storeu_ps(dst + i,
				 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
	return i;
}

__attribute__((target("avx,f16c"))) static size_t to_f16_f16c(uint16_t *dst, const float *src,
							      size_t n)
{
	size_t i;

	for (i = 0; i + 8 <= n; i += 8)
		_mm_storeu_si128((__m128i *)(dst + i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i),
								       _MM_FROUND_TO_NEAREST_INT));
	return i;
}

/* Of min and max the second operand is what comes of NaN. */
__attribute__((target("avx,f16c"))) static size_t to_f16_held_f16c(uint16_t *dst, const float *src,
								   size_t n)
{
	const __m256 most = _mm256_set1_ps(VQ_F16_MAX), least = _mm256_set1_ps(-VQ_F16_MAX);
	size_t i;

	for (i = 0; i + 8 <= n; i += 8) {
		__m256 v = _mm256_loadu_ps(src + i);

		v = _mm256_max_ps(least, _mm256_min_ps(most, v));
		_mm_storeu_si128((__m128i *)(dst + i),
				 _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
	}
	return i;
}

/* clang 14 does not know "f16c" here; every CPU with AVX2 has it. */
static int has_f16c(void)
{
	return __builtin_cpu_supports("avx2");
}
#elif defined(__aarch64__)
static size_t from_f16_neon(float *dst, const uint16_t *src, size_t n)
{
	size_t i;

	for (i = 0; i + 4 <= n; i += 4)
		vst1q_f32(dst + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(src + i))));
	return i;
}

static size_t to_f16_neon(uint16_t *dst, const float *src, size_t n)
{
	size_t i;

	for (i = 0; i + 4 <= n; i += 4)
		vst1_u16(dst + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(src + i))));
	return i;
}

static size_t to_f16_held_neon(uint16_t *dst, const float *src, size_t n)
{
	const float32x4_t most = vdupq_n_f32(VQ_F16_MAX), least = vdupq_n_f32(-VQ_F16_MAX);
	size_t i;

	for (i = 0; i + 4 <= n; i += 4) {
		float32x4_t v = vmaxq_f32(least, vminq_f32(most, vld1q_f32(src + i)));

		vst1_u16(dst + i, vreinterpret_u16_f16(vcvt_f16_f32(v)));
	}
	return i;
}
#endif

void vq_f16_to_f32_n(float *dst, const uint16_t *src, size_t n)
{
	size_t i = 0;

#if defined(__x86_64__)
	if (has_f16c())
		i = from_f16_f16c(dst, src, n);
#elif defined(__aarch64__)
	i = from_f16_neon(dst, src, n);
#endif
	for (; i < n; i++)
		dst[i] = vq_f16_to_f32(src[i]);
}

void vq_f32_to_f16_n(uint16_t *dst, const float *src, size_t n)
{
	size_t i = 0;

#if defined(__x86_64__)
	if (has_f16c())
		i = to_f16_f16c(dst, src, n);
#elif defined(__aarch64__)
	i = to_f16_neon(dst, src, n);
#endif
	for (; i < n; i++)
		dst[i] = vq_f32_to_f16(src[i]);
}

void vq_f32_to_f16_held_n(uint16_t *dst, const float *src, size_t n)
{
	size_t i = 0;

#if defined(__x86_64__)
	if (has_f16c())
		i = to_f16_held_f16c(dst, src, n);
#elif defined(__aarch64__)
	i = to_f16_held_neon(dst, src, n);
#endif
	for (; i < n; i++) {
		float v = src[i] > VQ_F16_MAX ? VQ_F16_MAX : src[i];

		dst[i] = vq_f32_to_f16(v < -VQ_F16_MAX ? -VQ_F16_MAX : v);
	}
}

void vq_bf16_to_f32_n(float *dst, const uint16_t *src, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		dst[i] = vq_bf16_to_f32(src[i]);
}
