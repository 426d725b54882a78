/* The r32k4 layout of packed weights (qgemm.h). */
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/qgemm.h"

#define LITTLE 32768u /* codes below which one thread is faster */
#define STEP   128u   /* codes a step: 32 rows, 4 inputs */
#define LINE \
	64u /* inputs of a row at a time, a cache line: rows may lie at multiples of a power of two */

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

/* v[i] |= v[n + i] << shift for n bytes, eight at a time: no bit leaves its byte, for what is shifted is narrow enough. */
static inline void fold(uint64_t *v, uint32_t n, uint32_t shift)
{
	uint32_t i;

	for (i = 0; i < n / 8; i++)
		v[i] |= v[n / 8 + i] << shift;
}

/* Field j of byte i of a plane is code n j + i: halves are laid over each other until a byte is full. */
static void pack_step(uint32_t bits, const uint8_t e[STEP], uint8_t *out)
{
	const uint64_t each = 0x0101010101010101u;
	uint32_t width[3], n = planes_of(bits, width), p, i, low = 0;
	uint64_t all[STEP / 8], v[STEP / 8];

	memcpy(all, e, STEP);
	for (p = 0; p < n; p++) {
		uint32_t f = width[p];

		for (i = 0; i < STEP / 8; i++)
			v[i] = all[i] >> low & each * ((1u << f) - 1);
		if (f <= 4)
			fold(v, 64, 4);
		if (f <= 2)
			fold(v, 32, 2);
		if (f == 1)
			fold(v, 16, 1);
		memcpy(out, v, 16 * (size_t)f);
		out += 16 * f;
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

/* Codes of n rows from codes on, n_cols <= LINE of each, in the order of the layout; what is not there is 0. */
static void gather(const uint8_t *codes, uint32_t n, uint32_t n_in, uint32_t n_cols,
		   uint8_t e[LINE / 4][STEP])
{
	uint32_t r, k;

	if (n < VQ_PANEL || n_cols < LINE)
		memset(e, 0, LINE / 4 * STEP);
	for (r = 0; r < n; r++, codes += n_in) {
		for (k = 0; k < n_cols / 4; k++)
			memcpy(e[k] + (size_t)4 * r, codes + (size_t)4 * k, 4);
		if (n_cols % 4)
			memcpy(e[k] + (size_t)4 * r, codes + (size_t)4 * k, n_cols % 4);
	}
}

void vq_pack_codes(uint32_t bits, const uint8_t *codes, uint32_t n_out, uint32_t n_in,
		   uint8_t *planes)
{
	size_t step = 16 * (size_t)bits, panel_bytes = vq_ceil_div(n_in, 4) * step;
	long long panel, n_panels = ((long long)n_out + VQ_PANEL - 1) / VQ_PANEL;

#pragma omp parallel for schedule(static) if ((size_t)n_out * n_in > LITTLE)
	for (panel = 0; panel < n_panels; panel++) {
		uint32_t row0 = (uint32_t)panel * VQ_PANEL, at, k;
		uint32_t n = n_out - row0 < VQ_PANEL ? n_out - row0 : VQ_PANEL;
		const uint8_t *in = codes + (size_t)row0 * n_in;
		uint8_t *out = planes + (size_t)panel * panel_bytes, e[LINE / 4][STEP];

		for (at = 0; at < n_in; at += LINE) {
			uint32_t n_cols = n_in - at < LINE ? n_in - at : LINE;

			gather(in + at, n, n_in, n_cols, e);
			for (k = 0; k < vq_ceil_div(n_cols, 4); k++, out += step)
				pack_step(bits, e[k], out);
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
