/* Activation quantization of one token (qact.h), one function an instruction set. */
#ifndef VQ_KERNEL_QACT_ROWS_H
#define VQ_KERNEL_QACT_ROWS_H

#include "kernel/qact.h"

void vq_act_quantize_generic(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			     float *scale, int32_t *zero);
void vq_act_fake_generic(const struct vq_agrid *g, const float *x, uint32_t n, float *out);

/* vq_act_fake of whole rows when ranges are stored for each input (VQ_RANGE_CHANNEL); the bits of the rows' functions. */
void vq_act_fake_channels(const struct vq_agrid *g, const float *x, size_t n_rows, uint32_t n,
			  float *out);

#if defined(__x86_64__)
void vq_act_quantize_avx2(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			  float *scale, int32_t *zero);
void vq_act_fake_avx2(const struct vq_agrid *g, const float *x, uint32_t n, float *out);
void vq_act_quantize_avx512(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			    float *scale, int32_t *zero);
void vq_act_fake_avx512(const struct vq_agrid *g, const float *x, uint32_t n, float *out);
#elif defined(__aarch64__)
void vq_act_quantize_neon(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			  float *scale, int32_t *zero);
void vq_act_fake_neon(const struct vq_agrid *g, const float *x, uint32_t n, float *out);
#endif

#endif
