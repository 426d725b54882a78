/* The r32k4 layout of packed weights (qgemm.h). */
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/qgemm.h"

#define LITTLE 32768u /* codes below which one thread is faster */
#define STEP   128u   /* codes a step: 32 rows, 4 inputs */

/* Widths of the planes of a code, least significant first; the count. */
static uint32_t planes_of(uint32_t bits, uint32_t width[3])
{
	uint32_t f, n = 0;

	if (bits == 8) {
		width[0] = 8;
		return 1;
	}
	for (f = 4; f; f /= 2)
		if (bits & f)
			width[n++] = f;
	return n;
}

size_t vq_packed_plane_bytes(uint32_t bits, uint32_t n_out, uint32_t n_in)
{
	size_t panels = ((size_t)n_out + VQ_PANEL - 1) / VQ_PANEL, bytes;

	if (vq_mul_size(&bytes, panels, ((size_t)n_in + 3) / 4) < 0 ||
	    vq_mul_size(&bytes, bytes, 16 * (size_t)bits) < 0)
		return SIZE_MAX;
	return bytes;
}

size_t vq_packed_n_scales(uint32_t n_out, uint32_t n_groups)
{
	size_t rows = ((size_t)n_out + VQ_PANEL - 1) / VQ_PANEL * VQ_PANEL, n;

	return vq_mul_size(&n, rows, n_groups) < 0 ? SIZE_MAX : n;
}

static void pack_step(uint32_t bits, const uint8_t e[STEP], uint8_t *out)
{
	uint32_t width[3], n = planes_of(bits, width), p, i, j, low = 0;

	for (p = 0; p < n; p++) {
		uint32_t f = width[p], bytes = 16 * f, mask = (1u << f) - 1;

		for (i = 0; i < bytes; i++) {
			uint32_t v = 0;

			for (j = 0; j < 8 / f; j++)
				v |= ((uint32_t)e[bytes * j + i] >> low & mask) << (f * j);
			out[i] = (uint8_t)v;
		}
		out += bytes;
		low += f;
	}
}

static void expand_step(uint32_t bits, const uint8_t *in, uint8_t e[STEP])
{
	uint32_t width[3], n = planes_of(bits, width), p, i, j, low = 0;

	memset(e, 0, STEP);
	for (p = 0; p < n; p++) {
		uint32_t f = width[p], bytes = 16 * f, mask = (1u << f) - 1;

		for (j = 0; j < 8 / f; j++)
			for (i = 0; i < bytes; i++)
				e[bytes * j + i] |= (uint8_t)((in[i] >> (f * j) & mask) << low);
		in += bytes;
		low += f;
	}
}

void vq_panel_expand(uint32_t bits, const uint8_t *panel, uint32_t n_steps, uint8_t *codes)
{
	uint32_t k;

	for (k = 0; k < n_steps; k++)
		expand_step(bits, panel + (size_t)k * 16 * bits, codes + (size_t)k * STEP);
}

void vq_pack_codes(uint32_t bits, const uint8_t *codes, uint32_t n_out, uint32_t n_in,
		   uint8_t *planes)
{
	uint32_t n_steps = vq_ceil_div(n_in, 4);
	long long panel, n_panels = ((long long)n_out + VQ_PANEL - 1) / VQ_PANEL;

#pragma omp parallel for schedule(static) if ((size_t)n_out * n_in > LITTLE)
	for (panel = 0; panel < n_panels; panel++) {
		uint8_t *out = planes + (size_t)panel * n_steps * 16 * bits;
		uint32_t row0 = (uint32_t)panel * VQ_PANEL, k, e;

		for (k = 0; k < n_steps; k++, out += 16 * bits) {
			uint8_t step[STEP] = {0};

			for (e = 0; e < STEP; e++)
				if (row0 + e / 4 < n_out && 4 * k + e % 4 < n_in)
					step[e] = codes[(size_t)(row0 + e / 4) * n_in + 4 * k +
							e % 4];
			pack_step(bits, step, out);
		}
	}
}

void vq_unpack_codes(uint32_t bits, const uint8_t *planes, uint32_t n_out, uint32_t n_in,
		     uint8_t *codes)
{
	uint32_t n_steps = vq_ceil_div(n_in, 4);
	long long panel, n_panels = ((long long)n_out + VQ_PANEL - 1) / VQ_PANEL;

#pragma omp parallel for schedule(static) if ((size_t)n_out * n_in > LITTLE)
	for (panel = 0; panel < n_panels; panel++) {
		const uint8_t *in = planes + (size_t)panel * n_steps * 16 * bits;
		uint32_t row0 = (uint32_t)panel * VQ_PANEL, k, e;

		for (k = 0; k < n_steps; k++, in += 16 * bits) {
			uint8_t step[STEP];

			expand_step(bits, in, step);
			for (e = 0; e < STEP; e++)
				if (row0 + e / 4 < n_out && 4 * k + e % 4 < n_in)
					codes[(size_t)(row0 + e / 4) * n_in + 4 * k + e % 4] =
						step[e];
		}
	}
}

/* Element (row, group) of [n_out, n_groups] lies at [row / 32, group, row % 32]. */
static size_t scale_at(uint32_t row, uint32_t group, uint32_t n_groups)
{
	return ((size_t)(row / VQ_PANEL) * n_groups + group) * VQ_PANEL + row % VQ_PANEL;
}

void vq_pack_scales(const uint16_t *scale, uint32_t n_out, uint32_t n_groups, uint16_t *out)
{
	uint32_t r, g;

	memset(out, 0, vq_packed_n_scales(n_out, n_groups) * sizeof(*out));
	for (r = 0; r < n_out; r++)
		for (g = 0; g < n_groups; g++)
			out[scale_at(r, g, n_groups)] = scale[(size_t)r * n_groups + g];
}

void vq_unpack_scales(const uint16_t *packed, uint32_t n_out, uint32_t n_groups, uint16_t *scale)
{
	uint32_t r, g;

	for (r = 0; r < n_out; r++)
		for (g = 0; g < n_groups; g++)
			scale[(size_t)r * n_groups + g] = packed[scale_at(r, g, n_groups)];
}

void vq_pack_zeros(const uint8_t *zero, uint32_t n_out, uint32_t n_groups, uint8_t *out)
{
	uint32_t r, g;

	memset(out, 0, vq_packed_n_scales(n_out, n_groups));
	for (r = 0; r < n_out; r++)
		for (g = 0; g < n_groups; g++)
			out[scale_at(r, g, n_groups)] = zero[(size_t)r * n_groups + g];
}

void vq_pack_absmax(const float *absmax, uint32_t n_out, uint32_t n_groups, float *out)
{
	uint32_t r, g;

	memset(out, 0, vq_packed_n_scales(n_out, n_groups) * sizeof(*out));
	for (r = 0; r < n_out; r++)
		for (g = 0; g < n_groups; g++)
			out[scale_at(r, g, n_groups)] = absmax[(size_t)r * n_groups + g];
}

void vq_unpack_zeros(const uint8_t *packed, uint32_t n_out, uint32_t n_groups, uint8_t *zero)
{
	uint32_t r, g;

	for (r = 0; r < n_out; r++)
		for (g = 0; g < n_groups; g++)
			zero[(size_t)r * n_groups + g] = packed[scale_at(r, g, n_groups)];
}
