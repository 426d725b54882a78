/* The vision tower outside its layers: patches, class token, positions, and what the decoder gets of it. */
#include <string.h>

#include "base/mem.h"
#include "kernel/gemm16.h"
#include "kernel/ops.h"
#include "model/adjoint.h"

static uint32_t side(const struct vq_config *c)
{
	return c->vision.image_size / c->vision.patch_size;
}

uint32_t vq_vision_positions(const struct vq_config *c)
{
	return side(c) * side(c) + (c->vision.has_class ? 1 : 0);
}

/* A convolution whose stride is its kernel is a product: one row [3 * P * P] a patch. */
static void patch_rows(const struct vq_vision_config *c, const float *pixels, float *rows)
{
	uint32_t p = c->patch_size, s = c->image_size, n = s / p, y, x, ch, i;

	for (y = 0; y < n; y++)
		for (x = 0; x < n; x++)
			for (ch = 0; ch < 3; ch++)
				for (i = 0; i < p; i++, rows += p)
					memcpy(rows,
					       pixels + ((size_t)ch * s + (size_t)y * p + i) * s +
						       (size_t)x * p,
					       p * sizeof(float));
}

/* h [n_positions, C] of one picture = class and patches, plus positions. */
static void place_patches(const struct vq_model *m, const float *patches, float *h)
{
	uint32_t c = m->cfg.vision.layer.hidden, n = vq_vision_positions(&m->cfg);
	uint32_t skip = m->cfg.vision.has_class ? 1 : 0;

	if (skip)
		memcpy(h, m->vision.class_embed, c * sizeof(float));
	memcpy(h + (size_t)skip * c, patches, (size_t)(n - skip) * c * sizeof(float));
	vq_add(h, m->vision.position, (size_t)n * c);
}

int vq_vision_embed(const struct vq_model *m, const float *pixels, uint32_t n_images, float *h,
		    struct vq_err *err)
{
	const struct vq_vision_config *c = &m->cfg.vision;
	uint32_t hidden = c->layer.hidden, n = side(&m->cfg) * side(&m->cfg), i;
	uint32_t width = 3 * c->patch_size * c->patch_size, n_pos = vq_vision_positions(&m->cfg);
	float *rows = vq_alloc((size_t)n * width, sizeof(float), err);
	float *patches = vq_alloc((size_t)n * hidden, sizeof(float), err);
	int rc = VQ_E_SYS;

	if (!rows || !patches)
		goto out;
	rc = VQ_OK;
	if (!m->vision.patch_w || !m->vision.position || (c->has_class && !m->vision.class_embed) ||
	    (c->patch_bias && !m->vision.patch_b) ||
	    (c->pre_norm && (!m->vision.pre_w || !m->vision.pre_b))) {
		rc = vq_fail(err, VQ_E_DATA, "the vision embeddings are missing");
		goto out;
	}
	for (i = 0; rc >= 0 && i < n_images; i++) {
		patch_rows(c, pixels + (size_t)i * 3 * c->image_size * c->image_size, rows);
		rc = vq_gemm(rows, n, m->vision.patch_w, VQ_F32, hidden, width, m->vision.patch_b,
			     patches, err);
		if (rc >= 0)
			place_patches(m, patches, h + (size_t)i * n_pos * hidden);
	}
	if (rc >= 0 && c->pre_norm)
		vq_layernorm(h, (size_t)n_images * n_pos, hidden, m->vision.pre_w, m->vision.pre_b,
			     c->layer.eps, h);
out:
	vq_free(rows);
	vq_free(patches);
	return rc;
}

/* Where patch p of a picture lies among its features, in floats. */
static size_t feature_at(const struct vq_config *c, uint32_t p)
{
	uint32_t n = side(c), s = c->projector.shuffle, y, x;

	if (s <= 1)
		return (size_t)p * c->vision.layer.hidden;
	y = p / n;
	x = p % n;
	return ((size_t)(y / s * (n / s) + x / s) * s * s + y % s * s + x % s) *
	       c->vision.layer.hidden;
}

void vq_vision_features(const struct vq_model *m, const float *h, uint32_t n_images,
			float *features)
{
	const struct vq_config *c = &m->cfg;
	uint32_t n = vq_vision_positions(c), hidden = c->vision.layer.hidden, p;
	uint32_t skip = c->vision.has_class && !c->vision.keep_class ? 1 : 0;
	size_t each = (size_t)(n - skip) * hidden, i;

	for (i = 0; i < n_images; i++, features += each) {
		const float *from = h + (i * n + skip) * hidden;

		if (!c->vision.post_norm && c->projector.shuffle <= 1) {
			memcpy(features, from, each * sizeof(float));
			continue;
		}
		for (p = 0; p < n - skip; p++, from += hidden) {
			float *to = features + feature_at(c, p);

			if (c->vision.post_norm)
				vq_layernorm(from, 1, hidden, m->vision.post_w, m->vision.post_b,
					     c->vision.layer.eps, to);
			else
				memcpy(to, from, hidden * sizeof(float));
		}
	}
}

void vq_vision_features_adjoint(const struct vq_model *m, const float *h, uint32_t n_images,
				uint32_t image, const float *g, uint32_t k, float *out)
{
	const struct vq_config *c = &m->cfg;
	uint32_t n = vq_vision_positions(c), hidden = c->vision.layer.hidden, p, v;
	uint32_t skip = c->vision.has_class && !c->vision.keep_class ? 1 : 0;
	size_t each = (size_t)(n - skip) * hidden;

	for (v = 0; v < k; v++) {
		memset(out, 0, (size_t)skip * hidden * sizeof(float));
		out += (size_t)skip * hidden;
		for (p = 0; p < n - skip; p++, out += hidden) {
			memcpy(out, g + ((size_t)v * n_images + image) * each + feature_at(c, p),
			       hidden * sizeof(float));
			if (c->vision.post_norm)
				vq_norm_adjoint(VQ_NORM_LAYER, c->vision.layer.eps, hidden,
						h + ((size_t)image * n + skip + p) * hidden,
						m->vision.post_w, out);
		}
	}
}

/* One picture after the other through all layers, a few at a time: h is [n, positions, C]. */
static int run_layers(const struct vq_model *m, float *h, uint32_t n_images, struct vq_err *err)
{
	uint32_t n = vq_vision_positions(&m->cfg), i;
	uint32_t *start = vq_alloc((size_t)n_images + 1, sizeof(*start), err);
	struct vq_batch b = {n_images, start};
	int rc = VQ_OK;

	if (!start)
		return VQ_E_SYS;
	for (i = 0; i <= n_images; i++)
		start[i] = i * n;
	for (i = 0; rc >= 0 && i < m->cfg.vision.n_layers; i++)
		rc = vq_layer_forward(&m->vision.layers[i], h, &b, NULL, err);
	vq_free(start);
	return rc;
}

int vq_vision_encode(const struct vq_model *m, const float *pixels, uint32_t n_images, float *out,
		     struct vq_err *err)
{
	const struct vq_config *c = &m->cfg;
	uint32_t n_pos = vq_vision_positions(c), hidden = c->vision.layer.hidden;
	size_t pixels_each = (size_t)3 * c->vision.image_size * c->vision.image_size;
	uint32_t most = 2048 / n_pos ? 2048 / n_pos : 1, i; /* pictures at a time */
	float *h, *features;
	int rc = VQ_E_SYS;

	if (most > n_images)
		most = n_images;
	h = vq_alloc((size_t)most * n_pos, hidden * sizeof(float), err);
	features = vq_alloc((size_t)most * n_pos, hidden * sizeof(float), err);
	if (!h || !features)
		goto out;
	rc = VQ_OK;
	for (i = 0; rc >= 0 && i < n_images; i += most) {
		uint32_t n = n_images - i < most ? n_images - i : most;

		rc = vq_vision_embed(m, pixels + i * pixels_each, n, h, err);
		if (rc >= 0)
			rc = run_layers(m, h, n, err);
		if (rc < 0)
			break;
		vq_vision_features(m, h, n, features);
		rc = vq_projector_apply(c, &m->projector, features, (size_t)n * c->n_image_tokens,
					out + (size_t)i * c->n_image_tokens * c->projector.out,
					err);
	}
out:
	vq_free(h);
	vq_free(features);
	return rc;
}
