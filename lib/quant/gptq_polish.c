/* Coordinate descent on the codes that GPTQ found. */
#include "base/mem.h"
#include "kernel/lapack.h"
#include "quant/gptq_code.h"

/* One row: b = W H_target, gap = b - Q H. */
static void polish_row(const struct vq_gptq *g, const struct vq_gptq_opts *o, uint8_t *codes,
		       const struct vq_gptq_step *steps, uint32_t group, double *gap)
{
	uint32_t n = g->n, round, i, j, changed = 1;

	for (round = 0; round < o->polish && changed; round++)
		for (i = 0, changed = 0; i < n; i++) {
			const double *h = g->h + (size_t)i * n;
			struct vq_gptq_step s = steps[i / group];
			double q = s.s * ((double)codes[i] - s.z), step;
			uint8_t code = vq_gptq_code(&o->grid, s, q + gap[i] / h[i]);

			if (code == codes[i])
				continue;
			step = s.s * ((double)code - (double)codes[i]);
			codes[i] = code;
			changed = 1;
			for (j = 0; j < n; j++)
				gap[j] -= step * h[j];
		}
}

int vq_gptq_polish(const struct vq_gptq *g, const struct vq_gptq_opts *o, const double *w,
		   uint32_t rows, uint8_t *codes, const struct vq_gptq_step *steps,
		   struct vq_err *err)
{
	size_t n = g->n, i, row;
	uint32_t n_groups = vq_grid_n_groups(&o->grid, g->n);
	uint32_t group = n_groups == 1 ? g->n : o->grid.group;
	double *buf = vq_calloc(rows * n, 2 * sizeof(*buf), err),
	       *gap = buf ? buf + rows * n : NULL;

	if (!buf)
		return VQ_E_SYS;
	for (row = 0; row < rows; row++)
		for (i = 0; i < n; i++)
			buf[row * n + i] = g->dead[i] ? 0 : w[row * n + i];
	vq_dgemm_nn(rows, g->n, g->n, 1, buf, n, g->target ? g->target : g->h, n, gap, n);
	for (row = 0; row < rows; row++)
		for (i = 0; i < n; i++) {
			struct vq_gptq_step s = steps[row * n_groups + i / group];

			buf[row * n + i] = s.s * ((double)codes[row * n + i] - s.z);
		}
	vq_dgemm_nn(rows, g->n, g->n, -1, buf, n, g->h, n, gap, n);
	for (row = 0; row < rows; row++)
		polish_row(g, o, codes + row * n, steps + row * n_groups, group, gap + row * n);
	vq_free(buf);
	return VQ_OK;
}
