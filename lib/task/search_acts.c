/* The activations that search carries along. */
#include "task/search_acts.h"

#include <string.h>

#include "base/mem.h"

/* Rows that one pass over a unit takes at once: bounds the memory of its inner activations. */
#define CHUNK_ROWS 2048u

static int no_room(struct vq_err *err, const char *what)
{
	return vq_fail(err, VQ_E_DATA, "%s: more than this tool takes", what);
}

/* Sequences of equal length: images. */
static int image_starts(struct vq_acts *a, uint32_t rows, struct vq_err *err)
{
	uint32_t i;

	if ((uint64_t)a->n_images * rows > VQ_ACTS_MAX_ROWS)
		return no_room(err, "calibration images");
	vq_free(a->start);
	a->n_seqs = a->n_images;
	a->start = vq_alloc(a->n_seqs + 1, sizeof(*a->start), err);
	if (!a->start)
		return VQ_E_SYS;
	for (i = 0; i <= a->n_seqs; i++)
		a->start[i] = i * rows;
	a->n_rows = a->start[a->n_seqs];
	return VQ_OK;
}

static int sample_starts(struct vq_acts *a, struct vq_err *err)
{
	uint64_t at = 0;
	uint32_t i;

	vq_free(a->start);
	a->n_seqs = a->n_samples;
	a->start = vq_alloc(a->n_seqs + 1, sizeof(*a->start), err);
	if (!a->start)
		return VQ_E_SYS;
	a->start[0] = 0;
	for (i = 0; i < a->n_samples; i++) {
		if (!a->samples[i].tokens)
			return vq_fail(err, VQ_E_DATA, "calibration sample %u has no tokens", i);
		at += a->samples[i].n_tokens;
		if (at > VQ_ACTS_MAX_ROWS)
			return no_room(err, "calibration tokens");
		a->start[i + 1] = (uint32_t)at;
	}
	a->n_rows = (size_t)at;
	return VQ_OK;
}

static float *new_rows(size_t n_rows, size_t width, struct vq_err *err)
{
	size_t n;

	if (vq_mul_size(&n, n_rows, width) < 0) {
		vq_fail(err, VQ_E_SYS, "memory: %zu rows of %zu numbers", n_rows, width);
		return NULL;
	}
	return vq_alloc_f32(n, err);
}

/* quant becomes a copy of full. */
static int copy_full(struct vq_acts *a, struct vq_err *err)
{
	vq_free(a->quant);
	a->quant = new_rows(a->n_rows, a->width, err);
	if (!a->quant)
		return VQ_E_SYS;
	memcpy(a->quant, a->full, a->n_rows * a->width * sizeof(float));
	return VQ_OK;
}

static int embed_images(struct vq_acts *a, const struct vq_model *m, struct vq_err *err)
{
	uint32_t positions = vq_vision_positions(a->cfg), i;
	int rc = image_starts(a, positions, err);
	size_t at = 0;

	if (rc < 0)
		return rc;
	a->width = a->cfg->vision.layer.hidden;
	a->full = new_rows(a->n_rows, a->width, err);
	if (!a->full)
		return VQ_E_SYS;
	for (i = 0; rc >= 0 && i < a->n_samples; i++) {
		struct vq_acts_sample *s = &a->samples[i];

		if (s->n_images)
			rc = vq_vision_embed(m, s->pixels, s->n_images, a->full + at, err);
		at += (size_t)s->n_images * positions * a->width;
		vq_free(s->pixels);
		s->pixels = NULL;
	}
	return rc < 0 ? rc : copy_full(a, err);
}

/* Hidden states behind the last vision layer -> features, in a new array. */
static int to_features(const struct vq_acts *a, const struct vq_model *m, float **h,
		       struct vq_err *err)
{
	float *f =
		new_rows((size_t)a->n_images * a->cfg->n_image_tokens, a->cfg->projector.in, err);

	if (!f)
		return VQ_E_SYS;
	vq_vision_features(m, *h, a->n_images, f);
	vq_free(*h);
	*h = f;
	return VQ_OK;
}

static int embed_tokens(struct vq_acts *a, const struct vq_model *m, const float *image,
			float **out, struct vq_err *err)
{
	uint32_t d = a->cfg->decoder.layer.hidden, i;
	float *h = new_rows(a->n_rows, d, err);
	int rc = h ? VQ_OK : VQ_E_SYS;

	for (i = 0; rc >= 0 && i < a->n_samples; i++) {
		const struct vq_acts_sample *s = &a->samples[i];
		size_t rows = (size_t)s->n_images * a->cfg->n_image_tokens;

		rc = vq_decoder_embed(m, s->tokens, s->n_tokens, image, rows,
				      h + (size_t)a->start[i] * d, err);
		image = image ? image + rows * d : NULL;
		if (rc < 0)
			vq_err_prefix(err, "calibration sample %u", i);
	}
	if (rc < 0)
		vq_free(h);
	else
		*out = h;
	return rc;
}

static int enter_decoder(struct vq_acts *a, const struct vq_model *m, struct vq_err *err)
{
	float *full = NULL, *quant = NULL;
	int rc = sample_starts(a, err);

	if (rc == VQ_OK)
		rc = embed_tokens(a, m, a->full, &full, err);
	if (rc == VQ_OK)
		rc = embed_tokens(a, m, a->quant, &quant, err);
	if (rc < 0) {
		vq_free(full);
		return rc;
	}
	vq_free(a->full);
	vq_free(a->quant);
	a->full = full;
	a->quant = quant;
	a->width = a->cfg->decoder.layer.hidden;
	return VQ_OK;
}

/* Both streams become the full-precision states that calib sent. */
static int enter_point(struct vq_acts *a, struct vq_acts_point *p, const struct vq_model *m,
		       struct vq_err *err)
{
	const struct vq_config *c = a->cfg;
	uint32_t decoder = vq_config_decoder_unit(c), tower = vq_config_projector_unit(c), width;
	int rc, features = p->unit == tower && c->has_vision &&
			   p->n_rows == (size_t)a->n_images * c->n_image_tokens;

	vq_acts_drop(a);
	a->width = (uint32_t)p->width;
	a->full = p->h;
	p->h = NULL;
	if (p->unit >= decoder)
		rc = sample_starts(a, err);
	else
		rc = image_starts(a, features ? c->n_image_tokens : vq_vision_positions(c), err);
	if (rc < 0)
		return rc;
	width = p->unit >= decoder ? c->decoder.layer.hidden
		: features         ? c->projector.in
				   : c->vision.layer.hidden;
	if (a->n_rows != p->n_rows || a->width != width ||
	    (p->unit == tower && c->has_vision && !features && c->vision.post_norm))
		return vq_fail(err, VQ_E_DATA,
			       "'input/checkpoint/%u': its shape does not fit the samples: want "
			       "%zu rows, got [%zu, %zu]",
			       p->unit, a->n_rows, p->n_rows, p->width);
	if (p->unit == tower && c->has_vision && !features) {
		rc = to_features(a, m, &a->full, err);
		a->width = c->projector.in;
		if (rc == VQ_OK)
			rc = image_starts(a, c->n_image_tokens, err);
	}
	return rc < 0 ? rc : copy_full(a, err);
}

int vq_acts_enter(struct vq_acts *a, uint32_t unit, const struct vq_model *m, struct vq_err *err)
{
	uint32_t decoder = vq_config_decoder_unit(a->cfg), i;
	int rc = VQ_OK;

	if (a->n_samples == 0)
		return vq_fail(err, VQ_E_DATA,
			       "want calibration inputs, got none; run vqlm-calib with -d and -n "
			       "above 0, or search with --method rtn");
	for (i = 0; i < a->n_points && a->points[i].unit != unit; i++)
		;
	if (i < a->n_points && a->points[i].h) {
		rc = enter_point(a, &a->points[i], m, err);
	} else if (unit == 0 && a->cfg->has_vision) {
		rc = embed_images(a, m, err);
	} else if (unit == 0) {
		rc = enter_decoder(a, m, err);
	} else if (!a->entered || a->unit != unit) {
		return vq_fail(err, VQ_E_DATA,
			       "want the activations that enter unit %u: begin with unit 0 or at a "
			       "checkpoint of vqlm-calib",
			       unit);
	} else if (unit == decoder) {
		rc = enter_decoder(a, m, err);
	}
	a->entered = rc >= 0;
	a->unit = unit;
	return rc;
}

/* Sequences s0..s1 of h through the layers of units first..last. */
static int run_layers(const struct vq_acts *a, struct vq_model *m, uint32_t first, uint32_t last,
		      uint32_t s0, uint32_t s1, float *h, uint32_t *start, struct vq_err *err)
{
	struct vq_batch b = {s1 - s0, start};
	uint32_t i, unit;
	int rc = VQ_OK;

	for (i = 0; i <= s1 - s0; i++)
		start[i] = a->start[s0 + i] - a->start[s0];
	for (unit = first; rc >= 0 && unit <= last; unit++)
		rc = vq_layer_forward(vq_model_layer(m, unit), h + (size_t)a->start[s0] * a->width,
				      &b, NULL, err);
	return rc;
}

static int run_projector(const struct vq_acts *a, const struct vq_model *m, float **h,
			 struct vq_err *err)
{
	uint32_t out = a->cfg->projector.out;
	float *y = new_rows(a->n_rows, out, err);
	size_t at;
	int rc = y ? VQ_OK : VQ_E_SYS;

	for (at = 0; rc >= 0 && at < a->n_rows; at += CHUNK_ROWS) {
		size_t n = a->n_rows - at < CHUNK_ROWS ? a->n_rows - at : CHUNK_ROWS;

		rc = vq_projector_apply(a->cfg, &m->projector, *h + at * a->width, n, y + at * out,
					err);
	}
	if (rc < 0) {
		vq_free(y);
		return rc;
	}
	vq_free(*h);
	*h = y;
	return VQ_OK;
}

int vq_acts_run(const struct vq_acts *a, struct vq_model *m, uint32_t first, uint32_t last,
		float **h, struct vq_err *err)
{
	uint32_t s0 = 0, *start;
	int rc = VQ_OK;

	if (a->cfg->has_vision && first == vq_config_projector_unit(a->cfg))
		return run_projector(a, m, h, err);
	start = vq_alloc((size_t)a->n_seqs + 1, sizeof(*start), err);
	if (!start)
		return VQ_E_SYS;
	while (rc >= 0 && s0 < a->n_seqs) {
		uint32_t s1 = s0 + 1;

		while (s1 < a->n_seqs && a->start[s1 + 1] - a->start[s0] <= CHUNK_ROWS)
			s1++;
		rc = run_layers(a, m, first, last, s0, s1, *h, start, err);
		s0 = s1;
	}
	vq_free(start);
	return rc;
}

int vq_acts_features(struct vq_acts *a, const struct vq_model *m, struct vq_err *err)
{
	int rc = to_features(a, m, &a->full, err);

	if (rc == VQ_OK)
		rc = to_features(a, m, &a->quant, err);
	a->width = a->cfg->projector.in;
	return rc < 0 ? rc : image_starts(a, a->cfg->n_image_tokens, err);
}

void vq_acts_left(struct vq_acts *a, uint32_t last)
{
	if (a->cfg->has_vision && last == vq_config_projector_unit(a->cfg))
		a->width = a->cfg->projector.out;
	a->unit = last + 1;
}

uint32_t *vq_acts_choose(const struct vq_acts *a, size_t n_rows, uint32_t *n, struct vq_err *err)
{
	uint32_t k = a->n_seqs, *out, i;

	if (n_rows && n_rows < a->n_rows) {
		k = (uint32_t)((uint64_t)a->n_seqs * n_rows / a->n_rows);
		k = k ? k : 1;
	}
	out = vq_alloc(k, sizeof(*out), err);
	if (!out)
		return NULL;
	for (i = 0; i < k; i++)
		out[i] = (uint32_t)((uint64_t)i * a->n_seqs / k);
	*n = k;
	return out;
}

float *vq_acts_gather(const struct vq_acts *a, const float *h, uint32_t width, const uint32_t *seqs,
		      uint32_t n, uint32_t *start, struct vq_err *err)
{
	float *out;
	uint32_t i;

	start[0] = 0;
	for (i = 0; i < n; i++)
		start[i + 1] = start[i] + a->start[seqs[i] + 1] - a->start[seqs[i]];
	out = new_rows(start[n], width, err);
	for (i = 0; out && i < n; i++)
		memcpy(out + (size_t)start[i] * width, h + (size_t)a->start[seqs[i]] * width,
		       (size_t)(start[i + 1] - start[i]) * width * sizeof(float));
	return out;
}

void vq_acts_drop(struct vq_acts *a)
{
	vq_free(a->full);
	vq_free(a->quant);
	vq_free(a->start);
	a->full = a->quant = NULL;
	a->start = NULL;
	a->n_rows = a->n_seqs = 0;
	a->entered = 0;
}

void vq_acts_free(struct vq_acts *a)
{
	uint32_t i;

	vq_acts_drop(a);
	for (i = 0; i < a->n_samples; i++) {
		vq_free(a->samples[i].tokens);
		vq_free(a->samples[i].pixels);
		vq_free(a->samples[i].sketch);
		vq_free(a->samples[i].entropy);
	}
	for (i = 0; i < a->n_points; i++)
		vq_free(a->points[i].h);
	vq_free(a->wide);
	vq_free(a->samples);
	vq_free(a->points);
	vq_free(a->vision_weight);
	memset(a, 0, sizeof(*a));
}
