/* Pillow's Image.resize with antialiasing, to the bit: a separable filter whose support grows with the
 * scale, weights in 22-bit fixed point, and 8-bit samples between the two passes.  Each of these details
 * shows in the last bits, and a model sees them. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "format/image.h"

#define FIXED_BITS 22 /* 32 bits less 8 of sample and 2 of headroom */

/* For each output position the weights [width] of the input samples first[x] .. first[x] + n[x]. */
struct weights {
	uint32_t width;
	uint32_t *first, *n;
	int32_t *w; /* [n_out, width] */
};

static double triangle(double x)
{
	x = fabs(x);
	return x < 1.0 ? 1.0 - x : 0.0;
}

static double cubic(double x)
{
	const double a = -0.5;

	x = fabs(x);
	if (x < 1.0)
		return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
	if (x < 2.0)
		return (((x - 5) * x + 8) * x - 4) * a;
	return 0.0;
}

static double sinc(double x)
{
	if (x == 0.0)
		return 1.0;
	x *= M_PI;
	return sin(x) / x;
}

static double lanczos3(double x)
{
	return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

static void weights_free(struct weights *k)
{
	vq_free(k->first);
	vq_free(k->n);
	vq_free(k->w);
}

/* The weights of one output position, normalised, then rounded half away from zero. */
static void fill(struct weights *k, uint32_t x, uint32_t n_in, double scale, double support,
		 double (*f)(double), double *tmp)
{
	double stretch = scale < 1.0 ? 1.0 : scale;
	double center = (x + 0.5) * scale, sum = 0.0;
	int64_t lo = (int64_t)(center - support + 0.5), hi = (int64_t)(center + support + 0.5);
	uint32_t i, n;

	lo = lo < 0 ? 0 : lo;
	hi = hi > (int64_t)n_in ? (int64_t)n_in : hi;
	n = hi > lo ? (uint32_t)(hi - lo) : 0;
	for (i = 0; i < n; i++) {
		tmp[i] = f((i + (double)lo - center + 0.5) * (1.0 / stretch));
		sum += tmp[i];
	}
	k->first[x] = (uint32_t)lo;
	k->n[x] = n;
	for (i = 0; i < n; i++) {
		double w = (sum != 0.0 ? tmp[i] / sum : tmp[i]) * (1 << FIXED_BITS);

		k->w[(size_t)x * k->width + i] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
	}
}

static int weights_new(struct weights *k, uint32_t n_in, uint32_t n_out, enum vq_filter filter,
		       struct vq_err *err)
{
	double scale = (double)n_in / n_out, support, *tmp;
	double (*f)(double) = filter == VQ_FILTER_BILINEAR  ? triangle
			      : filter == VQ_FILTER_LANCZOS ? lanczos3
							    : cubic;
	uint32_t x;

	memset(k, 0, sizeof(*k));
	support = (filter == VQ_FILTER_BILINEAR  ? 1.0
		   : filter == VQ_FILTER_LANCZOS ? 3.0
						 : 2.0) *
		  (scale < 1.0 ? 1.0 : scale);
	k->width = (uint32_t)ceil(support) * 2 + 1;
	k->first = vq_alloc(n_out, sizeof(*k->first), err);
	k->n = vq_alloc(n_out, sizeof(*k->n), err);
	k->w = vq_alloc(n_out, k->width * sizeof(*k->w), err);
	tmp = vq_alloc(k->width, sizeof(*tmp), err);
	if (!k->first || !k->n || !k->w || !tmp) {
		weights_free(k);
		vq_free(tmp);
		return VQ_E_SYS;
	}
	for (x = 0; x < n_out; x++)
		fill(k, x, n_in, scale, support, f, tmp);
	vq_free(tmp);
	return VQ_OK;
}

static uint8_t clip8(int32_t acc)
{
	acc >>= FIXED_BITS;
	return (uint8_t)(acc < 0 ? 0 : acc > 255 ? 255 : acc);
}

static void pass_rows(const struct vq_image *in, const struct weights *k, struct vq_image *out)
{
#pragma omp parallel for
	for (uint32_t y = 0; y < in->h; y++) {
		for (uint32_t x = 0; x < out->w; x++) {
			const uint8_t *p = in->rgb + 3 * ((size_t)y * in->w + k->first[x]);
			const int32_t *w = k->w + (size_t)x * k->width;
			int32_t r = 1 << (FIXED_BITS - 1), g = r, b = r;
			uint8_t *o = out->rgb + 3 * ((size_t)y * out->w + x);

			for (uint32_t i = 0; i < k->n[x]; i++) {
				r += p[3 * i] * w[i];
				g += p[3 * i + 1] * w[i];
				b += p[3 * i + 2] * w[i];
			}
			o[0] = clip8(r);
			o[1] = clip8(g);
			o[2] = clip8(b);
		}
	}
}

static void pass_columns(const struct vq_image *in, const struct weights *k, struct vq_image *out)
{
	size_t stride = 3 * (size_t)in->w;

#pragma omp parallel for
	for (uint32_t y = 0; y < out->h; y++) {
		const int32_t *w = k->w + (size_t)y * k->width;

		for (size_t x = 0; x < stride; x++) {
			const uint8_t *p = in->rgb + k->first[y] * stride + x;
			int32_t acc = 1 << (FIXED_BITS - 1);

			for (uint32_t i = 0; i < k->n[y]; i++)
				acc += p[i * stride] * w[i];
			out->rgb[y * stride + x] = clip8(acc);
		}
	}
}

/* One pass into a new picture; rows: 1 changes the width, 0 the height. */
static int run_pass(const struct vq_image *in, int rows, uint32_t n_out, enum vq_filter f,
		    struct vq_image *out, struct vq_err *err)
{
	struct weights k;
	int rc = vq_image_new(out, rows ? n_out : in->w, rows ? in->h : n_out, "resize", err);

	if (rc < 0)
		return rc;
	rc = weights_new(&k, rows ? in->w : in->h, n_out, f, err);
	if (rc < 0) {
		vq_image_free(out);
		return rc;
	}
	(rows ? pass_rows : pass_columns)(in, &k, out);
	weights_free(&k);
	return VQ_OK;
}

int vq_image_resize(const struct vq_image *in, uint32_t w, uint32_t h, enum vq_filter f,
		    struct vq_image *out, struct vq_err *err)
{
	struct vq_image mid = {0}, res = {0};
	const struct vq_image *from = in;
	int rc = VQ_OK;

	if (w == in->w && h == in->h) {
		rc = vq_image_new(&res, w, h, "resize", err);
		if (rc == VQ_OK)
			memcpy(res.rgb, in->rgb, 3 * (size_t)w * h);
		goto out;
	}
	if (w != in->w) {
		rc = run_pass(in, 1, w, f, &mid, err);
		from = &mid;
	}
	if (rc == VQ_OK && h != in->h) {
		rc = run_pass(from, 0, h, f, &res, err);
	} else if (rc == VQ_OK) {
		res = mid;
		memset(&mid, 0, sizeof(mid));
	}
out:
	vq_image_free(&mid);
	if (rc == VQ_OK)
		*out = res;
	return rc;
}
