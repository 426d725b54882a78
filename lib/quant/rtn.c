/* Round to nearest, a whole weight in the checkpoint's type at once. */
#include "quant/rtn.h"

#include "base/mem.h"
#include "base/num.h"
#include "kernel/round.h"

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

struct fit {
	struct vq_codes *c;
	struct vq_tensor t;
	float clip;
	double *err2, *ref2; /* [n_out] squared error and squared weight of a row; or NULL */
	uint8_t *bad;        /* [n_tiles] 1: holds NaN or infinity */
};

static void fit_tile(const struct fit *f, uint32_t tile, float *buf, float *back)
{
	uint32_t n_in = f->c->n_in, first = tile * TILE_ROWS;
	uint32_t n = f->c->n_out - first < TILE_ROWS ? f->c->n_out - first : TILE_ROWS;
	struct vq_codes v = vq_codes_rows(f->c, first, n);
	size_t all = (size_t)n * n_in;
	const uint8_t *w =
		(const uint8_t *)f->t.data + (size_t)first * n_in * vq_dtype_size(f->t.dtype);

	/* The type was looked at before: the conversion cannot fail. */
	if (vq_first_bad(f->t.dtype, w, all) < all ||
	    vq_tensor_to_f32(&f->t, (size_t)first * n_in, all, buf, NULL) < 0) {
		f->bad[tile] = 1;
		return;
	}
	vq_grid_fit(&v, buf, f->clip);
	if (!f->err2)
		return;
	vq_grid_dequant(&v, back);
	vq_round_errors(buf, back, n, n_in, f->err2 + first, f->ref2 + first);
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

static double total(const struct fit *f)
{
	double e = 0, r = 0;
	size_t i;

	for (i = 0; i < f->c->n_out; i++) {
		e += f->err2[i];
		r += f->ref2[i];
	}
	return r > 0 ? e / r : 0;
}

int vq_rtn_fit(struct vq_codes *c, const void *w, enum vq_dtype type, float clip, double *error,
	       struct vq_err *err)
{
	struct fit f = {c, {type, 2, {c->n_out, c->n_in}, w}, clip, NULL, NULL, NULL};
	uint32_t n_tiles = vq_ceil_div(c->n_out, TILE_ROWS);
	int rc = VQ_OK, failed = 0;
	long long i;

	if (type != VQ_F32 && type != VQ_F16 && type != VQ_BF16)
		return vq_fail(err, VQ_E_DATA, "want f32, f16 or bf16 weights, got %s",
			       vq_dtype_name(type));
	f.bad = vq_calloc(n_tiles, 1, err);
	if (error)
		f.err2 = vq_calloc(c->n_out, 2 * sizeof(double), err);
	if (!f.bad || (error && !f.err2)) {
		rc = VQ_E_SYS;
		goto out;
	}
	f.ref2 = f.err2 ? f.err2 + c->n_out : NULL;
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
		*error = total(&f);
out:
	vq_free(f.err2);
	vq_free(f.bad);
	return rc;
}

int vq_rtn_check_finite(const void *w, enum vq_dtype type, size_t n, struct vq_err *err)
{
	struct vq_tensor t = {type, 1, {n}, w};
	size_t i = vq_first_bad(type, w, n);
	float x;

	if (i == n)
		return VQ_OK;
	if (vq_tensor_to_f32(&t, i, 1, &x, err) < 0)
		return VQ_E_DATA;
	return vq_fail(err, VQ_E_DATA, "element %zu: want a finite number, got %s", i,
		       x != x ? "NaN" : "infinity");
}
