/* Attention in plain C: the meaning of the operation, a row at a time. */
#include <string.h>

#include "kernel/attend_rows.h"

/* One tile of one row. */
struct tile {
	const struct vq_keys *h;
	uint32_t first, n; /* keys */
};

static float number(const struct vq_keys *h, const void *p, size_t i)
{
	switch (h->type) {
	case VQ_KV_F32: return ((const float *)p)[i];
	case VQ_KV_F16: return vq_f16_to_f32(((const uint16_t *)p)[i]);
	case VQ_KV_I8: return ((const int8_t *)p)[i];
	}
	return 0;
}

static float score(const struct vq_keys *h, const float *q, uint32_t u)
{
	size_t at = (size_t)u / VQ_KEY_PANEL * h->dim * VQ_KEY_PANEL + u % VQ_KEY_PANEL;
	float s = 0;
	uint32_t i;

	for (i = 0; i < h->dim; i++)
		s = fmaf(q[i], number(h, h->k, at + (size_t)i * VQ_KEY_PANEL), s);
	return h->type == VQ_KV_I8 ? s * h->k_scale[u] : s;
}

static float sum_of(const float *p, uint32_t n)
{
	float lane[16] = {0};
	uint32_t u, w;

	for (u = 0; u < n; u++)
		lane[u % 16] += p[u];
	for (w = 8; w > 0; w /= 2)
		for (u = 0; u < w; u++)
			lane[u] += lane[u + w];
	return lane[0];
}

static void one_tile(const struct tile *t, const float *q, float *s, float *o, float *m, float *l)
{
	const struct vq_keys *h = t->h;
	uint32_t width = vq_keys_width(h->dim), u, i;
	float top = *m, a;

	for (u = 0; u < t->n; u++) {
		s[u] = score(h, q, t->first + u);
		top = s[u] > top ? s[u] : top;
	}
	a = vq_attend_exp2(*m - top);
	*m = top;
	for (u = 0; u < t->n; u++)
		s[u] = vq_attend_exp2(s[u] - top);
	*l = fmaf(*l, a, sum_of(s, t->n));
	for (i = 0; i < h->dim; i++)
		o[i] *= a;
	for (u = 0; u < t->n; u++) {
		float p = h->type == VQ_KV_I8 ? s[u] * h->v_scale[t->first + u] : s[u];

		for (i = 0; i < h->dim; i++)
			o[i] = fmaf(p, number(h, h->v, (size_t)(t->first + u) * width + i), o[i]);
	}
}

void vq_attend_generic(const struct vq_attend *a)
{
	struct vq_attend_room x = vq_attend_divide(a);
	uint32_t dim = a->keys->dim, r, i, k;
	float c = vq_attend_scale(dim);

	for (r = 0; r < a->n_rows; r++) {
		size_t at = r / a->group * a->stride + (size_t)(r % a->group) * dim;
		uint32_t seen = vq_attend_seen(a, r);
		float m = -INFINITY, l = 0;

		for (i = 0; i < dim; i++)
			x.q[i] = a->q[at + i] * c;
		memset(x.o, 0, dim * sizeof(float));
		for (k = 0; k < seen; k += VQ_ATTEND_KEYS) {
			uint32_t left = seen - k;
			struct tile t = {a->keys, k, left < VQ_ATTEND_KEYS ? left : VQ_ATTEND_KEYS};

			one_tile(&t, x.q, x.s, x.o, &m, &l);
		}
		for (i = 0; i < dim; i++)
			a->out[at + i] = x.o[i] * (1.0f / l);
	}
}
