/* Attention by the kernel set that was chosen. */
#include "kernel/attend.h"

#include "kernel/attend_rows.h"
#include "kernel/cpu.h"

static size_t lines(size_t n)
{
	return (n + 15) / 16 * 16;
}

size_t vq_attend_room(uint32_t dim, uint32_t n_rows)
{
	uint32_t width = vq_keys_width(dim);

	return lines((size_t)n_rows * dim) + (size_t)n_rows * width + 2 * lines(n_rows) +
	       (size_t)VQ_ATTEND_KEYS * (VQ_ATTEND_SCORES + dim + width);
}

struct vq_attend_room vq_attend_divide(const struct vq_attend *a)
{
	uint32_t dim = a->keys->dim, width = vq_keys_width(dim);
	struct vq_attend_room r;

	r.q = a->room;
	r.o = r.q + lines((size_t)a->n_rows * dim);
	r.m = r.o + (size_t)a->n_rows * width;
	r.l = r.m + lines(a->n_rows);
	r.s = r.l + lines(a->n_rows);
	r.k = r.s + VQ_ATTEND_SCORES * VQ_ATTEND_KEYS;
	r.v = r.k + (size_t)VQ_ATTEND_KEYS * dim;
	return r;
}

void vq_attend(const struct vq_attend *a)
{
	vq_kernels_get()->attend(a);
}
