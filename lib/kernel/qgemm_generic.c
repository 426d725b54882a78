/* Integer products in plain C: the meaning of the operation. */
#include "kernel/qgemm_rows.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/attend_rows.h"
#include "kernel/gemm16_rows.h"
#include "kernel/qact_rows.h"

#define LITTLE (1u << 15) /* multiplications below which one thread is faster */

/* sum over inputs k0..k1 of (u - zw)(q - za) for the 32 rows of a panel; codes [steps, 32, 4]. */
static void sums(const uint8_t *codes, const int32_t zw[VQ_PANEL], const int8_t *q, int32_t za,
		 uint32_t k0, uint32_t k1, int32_t sum[VQ_PANEL])
{
	uint32_t k, r;

	memset(sum, 0, VQ_PANEL * sizeof(*sum));
	for (k = k0; k < k1; k++) {
		const uint8_t *u = codes + (size_t)(k / 4) * 4 * VQ_PANEL + k % 4;
		int32_t d = q[k] - za;

		for (r = 0; r < VQ_PANEL; r++)
			sum[r] += (u[4 * r] - zw[r]) * d;
	}
}

/* Scale and zero point of the 32 rows of a panel in one of its groups. */
static void grids(const struct vq_packed *w, size_t at, float sw[VQ_PANEL], int32_t zw[VQ_PANEL])
{
	uint32_t r;

	for (r = 0; r < VQ_PANEL; r++) {
		sw[r] = w->value ? w->absmax[at + r] * VQ_BYTE_STEP
				 : vq_f16_to_f32(w->scale[at + r]);
		zw[r] = w->zero ? w->zero[at + r] : w->value ? 128 : 1 << (w->bits - 1);
	}
}

/* One token times one panel, the codes of which have been expanded. */
static void panel_row(const struct vq_product *p, uint32_t panel, const uint8_t *codes, uint32_t t,
		      float y[VQ_PANEL])
{
	const struct vq_packed *w = p->w;
	const int8_t *q = p->a->q + (size_t)t * p->a->stride;
	uint32_t s, r;

	memset(y, 0, VQ_PANEL * sizeof(*y));
	for (s = 0; s < p->n_segs; s++) {
		size_t at = ((size_t)panel * w->n_groups + s / p->w_every) * VQ_PANEL;
		size_t ag = (size_t)t * p->a->n_groups + s / p->a_every;
		uint32_t k0 = s * p->seg, k1 = w->n_in - k0 < p->seg ? w->n_in : k0 + p->seg;
		int32_t zw[VQ_PANEL], sum[VQ_PANEL];
		float sw[VQ_PANEL];

		grids(w, at, sw, zw);
		sums(codes, zw, q, p->a->zero[ag], k0, k1, sum);
		for (r = 0; r < VQ_PANEL; r++)
			y[r] = fmaf(p->a->scale[ag] * sw[r], (float)sum[r], y[r]);
	}
}

/* The sums of one token and one panel into the matrix. */
static void store(const struct vq_product *p, uint32_t panel, uint32_t t, const float y[VQ_PANEL])
{
	uint32_t o = panel * VQ_PANEL, n = p->w->n_out - o, r;
	float *out = p->y + (size_t)t * p->w->n_out + o;

	for (r = 0; r < n && r < VQ_PANEL; r++) {
		float v = p->bias ? y[r] + p->bias[o + r] : y[r];

		out[r] = p->add ? out[r] + v : v;
	}
}

int vq_qgemm_generic(const struct vq_product *p, struct vq_err *err)
{
	const struct vq_packed *w = p->w;
	uint32_t n_steps = vq_ceil_div(w->n_in, 4), n_panels = vq_ceil_div(w->n_out, VQ_PANEL);
	size_t n_codes = (size_t)n_steps * 4 * VQ_PANEL, step = (size_t)16 * w->bits;
	long long panel;
	int failed = 0;

#pragma omp parallel if ((uint64_t)w->n_out * w->n_in * p->a->n_rows > LITTLE)
	{
		uint8_t *codes = vq_alloc(n_codes, 1, NULL);

		if (!codes) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(dynamic, 1)
		for (panel = 0; panel < (long long)n_panels; panel++) {
			float y[VQ_PANEL];
			uint32_t t;
			size_t i;

			if (!codes)
				continue;
			vq_panel_expand(w->bits, w->planes + (size_t)panel * n_steps * step,
					n_steps, codes);
			for (i = 0; w->value && i < n_codes; i++)
				codes[i] = w->byte[codes[i]];
			for (t = 0; t < p->a->n_rows; t++) {
				panel_row(p, (uint32_t)panel, codes, t, y);
				store(p, (uint32_t)panel, t, y);
			}
		}
		vq_free(codes);
	}
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a panel of %zu codes", n_codes);
	return VQ_OK;
}

static int runs(void)
{
	return 1;
}

const struct vq_kernels vq_kernels_generic = {
	.name = "generic",
	.runs = runs,
	.act_quantize = vq_act_quantize_generic,
	.act_fake = vq_act_fake_generic,
	.transform = vq_transform_generic,
	.qgemm = vq_qgemm_generic,
	.gemm = &vq_gemm_generic,
	.gemm_bf16 = NULL,
	.attend = vq_attend_generic,
	.joint_rows = vq_joint_rows_generic,
	.ops = &vq_ops_generic,
};
