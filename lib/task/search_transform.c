/* The transforms of a place. */
#include "task/search_transform.h"

#include <string.h>

#include "base/mem.h"
#include "quant/hadamard.h"
#include "quant/smooth.h"
#include "quant/wush.h"

#define STEP 256u /* rows at a time */
#define DAMP .01  /* of WUSH: the authors' */

const float vq_smooth_exponents[VQ_QVLM_VALUES] = {0, .25f, .4f, .55f, .7f};

/* What all transforms of a place are made from. */
struct sources {
	const float *x;
	size_t n_rows;
	uint32_t n, block; /* block 0: no rotation */
	enum vq_smooth smooth;
	float *x_max, *w_max, *sign;
};

static void sources_free(struct sources *s)
{
	vq_free(s->x_max);
	vq_free(s->w_max);
	vq_free(s->sign);
}

/* Rows of the weights of p, as they came, some at a time; it may spoil them. */
typedef int rows_taker(void *ctx, float *rows, size_t n, struct vq_err *err);

static int each_weight(const struct vq_place *p, rows_taker *take, void *ctx, struct vq_err *err)
{
	uint32_t i;
	size_t row, n, n_in = p->lin[0].full->n_in;
	float *buf = vq_alloc_f32(STEP * n_in, err);
	int rc = buf ? VQ_OK : VQ_E_SYS;

	for (i = 0; i < p->n; i++) {
		const struct vq_linear *l = p->lin[i].full;
		struct vq_tensor t = {l->dtype, 2, {l->n_out, l->n_in}, l->w};

		for (row = 0; rc == VQ_OK && row < l->n_out; row += n) {
			n = l->n_out - row < STEP ? l->n_out - row : STEP;
			rc = vq_tensor_to_f32(&t, row * n_in, n * n_in, buf, err);
			if (rc == VQ_OK)
				rc = take(ctx, buf, n, err);
		}
	}
	vq_free(buf);
	return rc;
}

static int take_max(void *ctx, float *rows, size_t n, struct vq_err *err)
{
	struct sources *s = ctx;

	(void)err;
	vq_column_max(rows, n, s->n, s->w_max);
	return VQ_OK;
}

static int sources_new(struct sources *s, const struct vq_place *p, uint64_t seed,
		       struct vq_err *err)
{
	int rc = VQ_E_SYS;

	if (s->block) {
		s->sign = vq_alloc_f32(s->n, err);
		if (!s->sign)
			return rc;
		vq_sign_fill(s->sign, s->n, seed);
	}
	if (s->smooth == VQ_SMOOTH_OFF)
		return VQ_OK;
	s->x_max = vq_calloc(s->n, sizeof(*s->x_max), err);
	s->w_max = vq_calloc(s->n, sizeof(*s->w_max), err);
	if (!s->x_max || !s->w_max)
		return rc;
	vq_column_max(s->x, s->n_rows, s->n, s->x_max);
	return each_weight(p, take_max, s, err);
}

/* Sums of second moments of scaled rows. */
struct moments {
	const struct vq_transform *scale;
	double *m;
	size_t n_rows;
};

static int take_moments(void *ctx, float *rows, size_t n, struct vq_err *err)
{
	struct moments *m = ctx;
	struct vq_transform t = *m->scale;
	uint32_t block = t.block;

	t.block = 0;
	vq_transform_rows(&t, rows, n, rows);
	m->n_rows += n;
	return vq_block_moments(m->m, rows, n, t.n, block, err);
}

static int input_moments(const struct sources *s, struct moments *m, struct vq_err *err)
{
	float *buf = vq_alloc_f32((size_t)STEP * s->n, err);
	int rc = buf ? VQ_OK : VQ_E_SYS;
	size_t at, n;

	for (at = 0; rc == VQ_OK && at < s->n_rows; at += n) {
		n = s->n_rows - at < STEP ? s->n_rows - at : STEP;
		memcpy(buf, s->x + at * s->n, n * s->n * sizeof(*buf));
		rc = take_moments(m, buf, n, err);
	}
	vq_free(buf);
	return rc;
}

/* t has its scale: finds its matrix from the moments of what is scaled by it. */
static int fit_wush(struct vq_transform *t, const struct vq_place *p, const struct sources *s,
		    struct vq_err *err)
{
	struct vq_transform dual;
	size_t size = (size_t)t->n * t->block, i;
	double *m = vq_calloc(size, 2 * sizeof(*m), err);
	float *matrix = m ? vq_alloc_f32(size, err) : NULL;
	int rc = matrix ? vq_transform_dual(&dual, t, err) : VQ_E_SYS;

	if (rc == VQ_OK) {
		struct moments hx = {t, m, 0}, hw = {&dual, m + size, 0};

		rc = input_moments(s, &hx, err);
		if (rc == VQ_OK)
			rc = each_weight(p, take_moments, &hw, err);
		for (i = 0; i < size; i++) {
			hx.m[i] /= (double)hx.n_rows;
			hw.m[i] /= (double)hw.n_rows;
		}
		vq_transform_free(&dual);
	}
	if (rc == VQ_OK)
		rc = vq_wush_fit(t->n, t->block, m, m + size, DAMP, matrix, err);
	t->matrix = matrix;
	vq_free(m);
	return rc;
}

/* The transform of value v of the weights. */
static int add_transform(struct vq_place *p, const struct vq_search_opts *o,
			 const struct sources *s, uint32_t v, struct vq_err *err)
{
	double exponent =
		s->smooth == VQ_SMOOTH_SEARCH ? (double)vq_smooth_exponents[v] : o->smooth_exponent;
	int smooth = s->smooth == VQ_SMOOTH_FIXED || (s->smooth == VQ_SMOOTH_SEARCH && v > 0);
	struct vq_transform t = {.n = s->n, .block = s->block}, dual = {0};
	float *scale = vq_alloc_f32(s->n, err);
	int rc = scale ? VQ_OK : VQ_E_SYS;
	uint32_t i;

	t.scale = scale;
	for (i = 0; scale && i < s->n; i++)
		scale[i] = s->sign ? s->sign[i] : 1;
	if (scale && smooth)
		vq_smooth_scale(s->x_max, s->w_max, s->sign, s->n, exponent, scale);
	if (rc == VQ_OK && s->block && s->n_rows && o->rotate == VQ_ROTATE_WUSH)
		rc = fit_wush(&t, p, s, err);
	if (rc == VQ_OK)
		rc = vq_transform_dual(&dual, &t, err);
	if (rc == VQ_OK)
		vq_place_transform(p, &t, &dual);
	else
		vq_transform_free(&t);
	return rc;
}

/* SmoothQuant's own places: the norm before can take the scales, as vqlm-export has it. */
static int behind_norm(const char *weight)
{
	static const char *const leaves[] = {".q_proj.weight", ".gate_proj.weight",
					     ".up_proj.weight"};
	size_t i, n = strlen(weight), k;

	for (i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		k = strlen(leaves[i]);
		if (n > k && strcmp(weight + n - k, leaves[i]) == 0)
			return 1;
	}
	return 0;
}

int vq_place_prepare(struct vq_place *p, const struct vq_search_opts *o, const float *x,
		     size_t n_rows, struct vq_err *err)
{
	uint32_t n_in = p->lin[0].full->n_in, v;
	struct sources s = {.x = x, .n_rows = n_rows, .n = n_in};
	int rc;

	s.block = o->rotate == VQ_ROTATE_NONE ? 0 : vq_hadamard_block(n_in);
	s.smooth = n_rows ? o->smooth : VQ_SMOOTH_OFF;
	if (o->smooth_norms && !behind_norm(p->lin[0].rec->rec.name))
		s.smooth = VQ_SMOOTH_OFF;
	if (p->w.bits == 16 || p->n_transforms || (!s.block && s.smooth == VQ_SMOOTH_OFF))
		return VQ_OK;
	rc = sources_new(&s, p, o->seed, err);
	for (v = 0; rc == VQ_OK && v < (s.smooth == VQ_SMOOTH_SEARCH ? VQ_QVLM_VALUES : 1); v++)
		rc = add_transform(p, o, &s, v, err);
	sources_free(&s);
	if (rc < 0)
		vq_err_prefix(err, "'%s'", p->lin[0].rec->rec.name);
	return rc;
}
