/* The input's grid of a place, and the ranges that it stores. */
#include <string.h>

#include "base/mem.h"
#include "quant/range.h"
#include "task/search_place.h"

#define STEP 256u /* rows at a time, about */

struct vq_agrid vq_place_grid(const struct vq_place *p, uint32_t a, uint32_t v)
{
	const float *ranges = p->ranges[p->n_transforms > 1 ? v : 0];
	struct vq_agrid g = p->a;

	g.clip = p->a_ratio[a];
	if (g.n_ranges && ranges) {
		g.lo = ranges + 2 * (size_t)a * g.n_ranges;
		g.hi = g.lo + g.n_ranges;
	}
	return g;
}

static int new_ranges(struct vq_place *p, uint32_t v, struct vq_err *err)
{
	vq_free(p->ranges[v]);
	p->ranges[v] = vq_alloc_f32(2 * (size_t)VQ_QVLM_VALUES * p->a.n_ranges, err);
	return p->ranges[v] ? VQ_OK : VQ_E_SYS;
}

int vq_place_take_ranges(struct vq_place *p, const struct vq_agrid *g, struct vq_err *err)
{
	size_t n = p->a.n_ranges;

	if (new_ranges(p, 0, err) < 0)
		return VQ_E_SYS;
	memset(p->ranges[0], 0, 2 * VQ_QVLM_VALUES * n * sizeof(float));
	memcpy(p->ranges[0], g->lo, n * sizeof(float));
	memcpy(p->ranges[0] + n, g->hi, n * sizeof(float));
	return VQ_OK;
}

/* Marks the values whose ranges no value before them has. */
static void mark_usable(const float *ranges, size_t n, uint8_t *usable)
{
	uint32_t v, u;

	for (v = 0; v < VQ_QVLM_VALUES; v++) {
		usable[v] = 1;
		for (u = 0; u < v; u++)
			if (memcmp(ranges + 2 * u * n, ranges + 2 * v * n, 2 * n * sizeof(float)) ==
			    0)
				usable[v] = 0;
	}
}

/* The input as value v of the weights sees it, some rows at a time. */
static int measure(struct vq_place *p, uint32_t v, const float *x, size_t n_rows, double lp,
		   struct vq_err *err)
{
	uint32_t n_in = p->lin[0].full->n_in;
	size_t step = vq_agrid_chunk(&p->a, STEP), at, n;
	float *seen = vq_alloc_f32(step * n_in, err), *buf = vq_alloc_f32(step * n_in, err);
	struct vq_range_meter m = {0};
	int rc = seen && buf ? VQ_OK : VQ_E_SYS;

	if (rc == VQ_OK)
		rc = vq_range_begin(&m, &p->a, n_rows, n_in, p->a.n_ranges, err);
	for (at = 0; rc == VQ_OK && at < n_rows; at += n) {
		n = n_rows - at < step ? n_rows - at : step;
		vq_place_see(p, VQ_QVLM_VALUES, v, x + at * n_in, n, seen);
		vq_range_add(&m, seen, n);
	}
	if (rc == VQ_OK)
		vq_range_bounds(&m, p->ranges[v]);
	for (at = 0; rc == VQ_OK && lp > 0 && at < n_rows; at += n) {
		n = n_rows - at < step ? n_rows - at : step;
		vq_place_see(p, VQ_QVLM_VALUES, v, x + at * n_in, n, seen);
		vq_range_try(&m, p->ranges[v], lp, seen, n, buf);
	}
	if (rc == VQ_OK && lp > 0)
		vq_range_pick(&m, p->ranges[v]);
	vq_range_end(&m);
	vq_free(seen);
	vq_free(buf);
	return rc;
}

int vq_place_measure_ranges(struct vq_place *p, const float *x, size_t n_rows, double lp,
			    struct vq_err *err)
{
	uint32_t n = p->n_transforms > 1 ? p->n_transforms : 1, v;
	int rc = VQ_OK;

	for (v = 0; rc == VQ_OK && v < n; v++) {
		rc = new_ranges(p, v, err);
		if (rc == VQ_OK)
			rc = measure(p, v, x, n_rows, lp, err);
	}
	if (rc == VQ_OK)
		mark_usable(p->ranges[0], p->a.n_ranges, p->a_usable);
	for (v = 1; rc == VQ_OK && lp > 0 && v < VQ_QVLM_VALUES; v++)
		p->a_usable[v] = 0;
	return rc;
}
