/* Round to nearest, a whole weight in the checkpoint's type at once. */
#include "quant/rtn.h"

#include "base/mem.h"
#include "base/num.h"

/* Rows of a weight that one piece of work converts, fits and measures. */
#define TILE_ROWS 8u

struct vq_codes vq_codes_rows(const struct vq_codes *c, uint32_t first, uint32_t n)
{
	struct vq_codes v = *c;
	size_t ng = vq_grid_n_groups(&c->grid, c->n_in);

	v.n_out = n;
	v.codes += (size_t)first * c->n_in;
	v.scale += first * ng;
	if (v.zero)
		v.zero += first * ng;
	return v;
}

/* 1 when any of x is NaN or infinite: without a branch, so that the compiler may vectorise. */
static int any_bad(const float *x, size_t n)
{
	uint32_t bad = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		uint32_t e = vq_f32_bits(x[i]) & 0x7f800000u;

		bad |= e + 0x00800000u; /* reaches the sign bit only when all bits of e are set */
	}
	return (int)(bad >> 31);
}

static void measure(const float *w, const float *q, size_t n, double *err2, double *ref2)
{
	double e = 0, r = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		double d = (double)q[i] - (double)w[i];

		e += d * d;
		r += (double)w[i] * (double)w[i];
	}
	*err2 = e;
	*ref2 = r;
}

struct fit {
	struct vq_codes *c;
	struct vq_tensor t;
	float clip;
	double *sums; /* [n_out, 2] squared error and squared weight of a row */
	uint8_t *bad; /* [n_tiles] 1: holds NaN or infinity */
};

static void fit_tile(const struct fit *f, uint32_t tile, float *buf, float *back)
{
	uint32_t n_in = f->c->n_in, first = tile * TILE_ROWS, r;
	uint32_t n = f->c->n_out - first < TILE_ROWS ? f->c->n_out - first : TILE_ROWS;
	struct vq_codes v = vq_codes_rows(f->c, first, n);
	size_t all = (size_t)n * n_in;

	/* The type was looked at before: the conversion cannot fail. */
	if (vq_tensor_to_f32(&f->t, (size_t)first * n_in, all, buf, NULL) < 0 ||
	    any_bad(buf, all)) {
		f->bad[tile] = 1;
		return;
	}
	vq_grid_fit(&v, buf, f->clip);
	if (!f->sums)
		return;
	vq_grid_dequant(&v, back);
	for (r = 0; r < n; r++)
		measure(buf + (size_t)r * n_in, back + (size_t)r * n_in, n_in,
			f->sums + 2 * (size_t)(first + r), f->sums + 2 * (size_t)(first + r) + 1);
}

/* The first bad row is reported, whichever thread found one first. */
static int report(const struct fit *f, uint32_t n_tiles, struct vq_err *err)
{
	size_t n_in = f->c->n_in, size = vq_dtype_size(f->t.dtype), row;
	const uint8_t *w = f->t.data;
	uint32_t i;

	for (i = 0; i < n_tiles && !f->bad[i]; i++)
		;
	if (i == n_tiles)
		return VQ_OK;
	for (row = (size_t)i * TILE_ROWS; row < f->c->n_out; row++)
		if (vq_rtn_check_finite(w + row * n_in * size, f->t.dtype, n_in, err) < 0)
			return vq_err_prefix(err, "row %zu", row);
	return VQ_OK;
}

static double total(const double *sums, size_t n)
{
	double e = 0, r = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		e += sums[2 * i];
		r += sums[2 * i + 1];
	}
	return r > 0 ? e / r : 0;
}

int vq_rtn_fit(struct vq_codes *c, const void *w, enum vq_dtype type, float clip, double *error,
	       struct vq_err *err)
{
	struct fit f = {c, {type, 2, {c->n_out, c->n_in}, w}, clip, NULL, NULL};
	uint32_t n_tiles = vq_ceil_div(c->n_out, TILE_ROWS);
	int rc = VQ_OK, failed = 0;
	long long i;

	if (type != VQ_F32 && type != VQ_F16 && type != VQ_BF16)
		return vq_fail(err, VQ_E_DATA, "want f32, f16 or bf16 weights, got %s",
			       vq_dtype_name(type));
	f.bad = vq_calloc(n_tiles, 1, err);
	if (error)
		f.sums = vq_calloc(c->n_out, 2 * sizeof(double), err);
	if (!f.bad || (error && !f.sums)) {
		rc = VQ_E_SYS;
		goto out;
	}
#pragma omp parallel
	{
		float *buf = vq_alloc_f32((size_t)2 * TILE_ROWS * c->n_in, NULL);

		if (!buf) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(dynamic, 4)
		for (i = 0; i < (long long)n_tiles; i++)
			if (buf)
				fit_tile(&f, (uint32_t)i, buf, buf + (size_t)TILE_ROWS * c->n_in);
		vq_free(buf);
	}
	if (failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot have rows of %u weights", c->n_in);
	else
		rc = report(&f, n_tiles, err);
	if (rc == VQ_OK && error)
		*error = total(f.sums, c->n_out);
out:
	vq_free(f.sums);
	vq_free(f.bad);
	return rc;
}

int vq_rtn_check_finite(const void *w, enum vq_dtype type, size_t n, struct vq_err *err)
{
	struct vq_tensor t = {type, 1, {n}, w};
	float buf[1024];
	size_t at, i;

	if (type != VQ_F32 && type != VQ_F16 && type != VQ_BF16)
		return VQ_OK;
	for (at = 0; at < n; at += 1024) {
		size_t m = n - at < 1024 ? n - at : 1024;

		if (vq_tensor_to_f32(&t, at, m, buf, err) < 0)
			return VQ_E_DATA;
		if (!any_bad(buf, m))
			continue;
		for (i = 0; i < m; i++)
			if (any_bad(buf + i, 1))
				return vq_fail(err, VQ_E_DATA,
					       "element %zu: want a finite number, got %s", at + i,
					       buf[i] != buf[i] ? "NaN" : "infinity");
	}
	return VQ_OK;
}
