/* Backward passes of a calibration. */
#include "task/calib_probe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/ops.h"
#include "model/adjoint.h"
#include "quant/sketch.h"
#include "task/calib_entropy.h"
#include "task/calib_vision_weight.h"

#define MIN_VECTORS 4
#define MAX_VECTORS 16
#define SHARE       16 /* one sample in so many is probed */
#define MOST_ROOM \
	64 /* vectors times pictures of a sample, but for MIN_VECTORS: a sketch has so many pictures */

void vq_calib_probe_size(const struct vq_calib_run *r, uint32_t *n, uint32_t *n_k)
{
	uint32_t most = r->n / SHARE ? r->n / SHARE : r->n > 0, images = 1, room, i;

	for (i = 0; i < r->n; i++)
		images = r->prompts[i].n_images > images ? r->prompts[i].n_images : images;
	room = MOST_ROOM / images < MAX_VECTORS ? MOST_ROOM / images : MAX_VECTORS;
	*n = most < r->influence_samples ? most : r->influence_samples;
	*n_k = r->n < room ? r->n : room;
	*n_k = *n_k < MIN_VECTORS ? MIN_VECTORS : *n_k;
}

/* A seeded choice of n among the samples with a picture, or of all when none has one. */
static int choose(struct vq_calib_probe *p, struct vq_err *err)
{
	const struct vq_calib_run *r = p->r;
	uint32_t *pool = vq_alloc(r->n, sizeof(*pool), err), m = 0, i;
	int rc;

	if (!pool)
		return VQ_E_SYS;
	for (i = 0; i < r->n; i++)
		if (r->prompts[i].n_images)
			pool[m++] = i;
	for (i = 0; m == 0 && i < r->n; i++)
		pool[i] = i;
	m = m ? m : r->n;
	p->n = p->n < m ? p->n : m;
	p->samples = vq_alloc(p->n, sizeof(*p->samples), err);
	rc = p->samples ? vq_rng_choose(vq_rng_new(r->seed, "probe"), m, p->n, p->samples, err)
			: VQ_E_SYS;
	for (i = 0; i < p->n && rc >= 0; i++)
		p->samples[i] = pool[p->samples[i]];
	vq_free(pool);
	return rc;
}

int vq_calib_probe_new(struct vq_calib_probe *p, const struct vq_calib_run *r, struct vq_err *err)
{
	int rc;

	memset(p, 0, sizeof(*p));
	p->r = r;
	vq_calib_probe_size(r, &p->n, &p->n_k);
	if (p->n == 0)
		return VQ_OK;
	rc = choose(p, err);
	if (rc < 0)
		return rc;
	p->vision = vq_calloc(p->n, sizeof(*p->vision), err);
	p->decoder =
		vq_calloc((size_t)p->n * (r->cfg->decoder.n_layers + 1), sizeof(*p->decoder), err);
	p->levels = vq_calloc((size_t)r->cfg->decoder.n_layers * 2,
			      r->cfg->decoder.layer.hidden * sizeof(float), err);
	return p->vision && p->decoder && p->levels ? VQ_OK : VQ_E_SYS;
}

void vq_calib_probe_free(struct vq_calib_probe *p)
{
	size_t i;

	for (i = 0; p->vision && i < p->n; i++) {
		vq_free(p->vision[i].in);
		vq_free(p->vision[i].out);
	}
	for (i = 0; p->decoder && i < (size_t)p->n * (p->r->cfg->decoder.n_layers + 1); i++)
		vq_free(p->decoder[i]);
	vq_free(p->vision);
	vq_free(p->decoder);
	vq_free(p->levels);
	vq_free(p->samples);
	memset(p, 0, sizeof(*p));
}

static uint32_t place(const struct vq_calib_probe *p, uint32_t sample)
{
	uint32_t i;

	for (i = 0; i < p->n && p->samples[i] != sample; i++)
		;
	return i;
}

int vq_calib_probe_keep(struct vq_calib_probe *p, int is_vision, uint32_t layer, uint32_t sample,
			const float *h, size_t rows, struct vq_err *err)
{
	const struct vq_config *c = p->r->cfg;
	uint32_t i = place(p, sample);
	size_t width = is_vision ? c->vision.layer.hidden : c->decoder.layer.hidden, n;
	float **at;

	if (i == p->n || (is_vision && layer != 0 && layer != c->vision.n_layers))
		return VQ_OK;
	if (is_vision)
		at = layer ? &p->vision[i].out : &p->vision[i].in;
	else
		at = &p->decoder[(size_t)i * (c->decoder.n_layers + 1) + layer];
	if (vq_mul_size(&n, rows, width) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: %zu rows of %zu", rows, width);
	*at = vq_alloc_f32(n, err);
	if (!*at)
		return VQ_E_SYS;
	memcpy(*at, h, n * sizeof(float));
	return VQ_OK;
}

void vq_calib_probe_levels(struct vq_calib_probe *p, uint32_t layer, const float *min,
			   const float *max)
{
	uint32_t d = p->r->cfg->decoder.layer.hidden;

	if (!p->levels)
		return;
	memcpy(p->levels + (size_t)layer * 2 * d, min, d * sizeof(float));
	memcpy(p->levels + ((size_t)layer * 2 + 1) * d, max, d * sizeof(float));
}

/* One sample on its way back. */
struct back {
	struct vq_calib_probe *p;
	const struct vq_model *m;
	const struct vq_prompt *prompt;
	uint32_t i;        /* index among the probed */
	double final_sq;   /* ||F||^2 */
	double *influence; /* [n_units] sums of squares over samples */
	struct vq_calib_vision_weight *weight;
};

/* 1/K sum_k sum_rows rms(h_row)^2 ||g_k,row||^2 / ||F||^2, K = n_k. */
static double effect(const struct back *b, const float *h, const float *g, uint32_t n_k,
		     size_t rows, size_t width)
{
	uint32_t k;
	double sum = 0;
	size_t r, c;

	for (r = 0; r < rows; r++) {
		double hh = 0, gg = 0;

		for (c = 0; c < width; c++)
			hh += (double)h[r * width + c] * h[r * width + c];
		for (k = 0; k < n_k; k++)
			for (c = 0; c < width; c++) {
				double v = g[((size_t)k * rows + r) * width + c];

				gg += v * v;
			}
		sum += hh / (double)width * gg;
	}
	return sum / n_k / b->final_sq;
}

/* Sign vectors at F, pulled back through the final norm: g [K, T, d], zero but for the last token. */
static int start(struct back *b, const float *h, float *g, struct vq_err *err)
{
	const struct vq_layer_config *c = &b->m->cfg.decoder.layer;
	uint32_t d = c->hidden, n = b->prompt->n_tokens, k;
	const float *last = h + (size_t)(n - 1) * d;
	float *f = vq_alloc_f32(d, err);

	if (!f)
		return VQ_E_SYS;
	vq_layer_norm(c, last, 1, b->m->decoder.norm, b->m->decoder.norm_b, f);
	b->final_sq = 0;
	for (k = 0; k < d; k++)
		b->final_sq += (double)f[k] * f[k];
	vq_free(f);
	if (!(b->final_sq > 0))
		return vq_fail(err, VQ_E_DATA, "the final hidden state of a sample is zero");
	memset(g, 0, (size_t)b->p->n_k * n * d * sizeof(float));
	for (k = 0; k < b->p->n_k; k++) {
		float *row = g + ((size_t)k * n + n - 1) * d;

		vq_sketch_signs(b->p->r->seed, b->i * b->p->n_k + k, d, row);
		vq_norm_adjoint(c->norm, c->eps, d, last, b->m->decoder.norm, row);
	}
	return VQ_OK;
}

/* Layers of a tower from the last to the first, over the rows of one sequence: h[l] before layer l, g [n_k, rows, width]. */
static int layers_back(struct back *b, const struct vq_layer *layers, uint32_t n_layers,
		       uint32_t unit0, float *const *h, uint32_t rows, float *g, uint32_t n_k,
		       struct vq_err *err)
{
	uint32_t l, width = layers[0].cfg->hidden;
	int rc = VQ_OK;

	for (l = n_layers; l-- > 0 && rc >= 0;) {
		b->influence[unit0 + l] += effect(b, h[l + 1], g, n_k, rows, width);
		if (unit0 == vq_config_decoder_unit(&b->m->cfg))
			vq_calib_vision_weight_add(b->weight, l, b->prompt, g, n_k);
		rc = vq_layer_adjoint(&layers[l], h[l], rows, g, n_k, NULL, err);
	}
	return rc;
}

void vq_calib_probe_pictures(const struct vq_config *c, const struct vq_prompt *p,
			     const float *from, uint32_t n_stack, float *to)
{
	uint32_t d = c->decoder.layer.hidden, n = p->n_tokens, t, k;

	for (k = 0; k < n_stack; k++)
		for (t = 0; t < n; t++)
			if (p->tokens[t] == c->image_token) {
				memcpy(to, from + ((size_t)k * n + t) * d, d * sizeof(float));
				to += d;
			}
}

static int write_sketch(struct back *b, float *g, size_t rows, struct vq_writer *w,
			struct vq_err *err)
{
	uint32_t width = b->m->cfg.projector.in, n_k = b->p->n_k;
	struct vq_tensor t = {VQ_F32, 3, {n_k, rows, width}, g};
	float scale = (float)(1 / sqrt(n_k * b->final_sq));
	char name[64];
	size_t i;

	for (i = 0; i < n_k * rows * width; i++)
		g[i] *= scale;
	snprintf(name, sizeof(name), "stat/sketch/%u", b->p->samples[b->i]);
	return vq_writer_put_tensor(w, VQ_KIND_STAT, name, &t, NULL, err);
}

/* Hidden states of one picture before each layer and after the last, h [n_layers + 1] of all [n_pos, C]; h[0] is there. */
static int tower_forward(const struct vq_model *m, float *const *h, uint32_t n_pos,
			 struct vq_err *err)
{
	const uint32_t start[2] = {0, n_pos};
	const struct vq_batch one = {1, start};
	uint32_t l;
	int rc = VQ_OK;

	for (l = 0; l < m->cfg.vision.n_layers && rc >= 0; l++) {
		memcpy(h[l + 1], h[l], (size_t)n_pos * m->cfg.vision.layer.hidden * sizeof(float));
		rc = vq_layer_forward(&m->vision.layers[l], h[l + 1], &one, NULL, err);
	}
	return rc;
}

/* The vectors of picture `image`: from [K, features, projector.in] of all pictures to gh [n_k, n_pos, C], the first of
 * them after the last of the picture before. */
static void tower_vectors(const struct back *b, const float *from, uint32_t image, uint32_t n_k,
			  uint32_t n_pos, float *gh)
{
	const struct vq_config *c = &b->m->cfg;
	uint32_t n_images = b->prompt->n_images, i;
	size_t each = (size_t)n_images * c->n_image_tokens * c->projector.in;

	for (i = 0; i < n_k; i++)
		vq_vision_features_adjoint(b->m, b->p->vision[b->i].out, n_images, image,
					   from + ((size_t)image * n_k + i) % b->p->n_k * each, 1,
					   gh + (size_t)i * n_pos * c->vision.layer.hidden);
}

/* The tower of one picture: g [K, features, projector.in] of all pictures of the sample. */
static int tower_back(struct back *b, const float *g, uint32_t image, struct vq_err *err)
{
	const struct vq_config *c = &b->m->cfg;
	uint32_t n_pos = vq_vision_positions(c), n_layers = c->vision.n_layers, l;
	uint32_t n_k = vq_ceil_div(b->p->n_k, b->prompt->n_images);
	size_t one = (size_t)n_pos * c->vision.layer.hidden;
	float *gh = vq_alloc(n_k, one * sizeof(float), err);
	float *states = vq_alloc((size_t)n_layers + 1, one * sizeof(float), err);
	float **h = vq_alloc((size_t)n_layers + 1, sizeof(*h), err);
	int rc = VQ_E_SYS;

	if (!gh || !states || !h)
		goto out;
	for (l = 0; l <= n_layers; l++)
		h[l] = states + l * one;
	memcpy(h[0], b->p->vision[b->i].in + image * one, one * sizeof(float));
	rc = tower_forward(b->m, h, n_pos, err);
	if (rc >= 0) {
		tower_vectors(b, g, image, n_k, n_pos, gh);
		rc = layers_back(b, b->m->vision.layers, n_layers, 0, h, n_pos, gh, n_k, err);
	}
out:
	vq_free(gh);
	vq_free(states);
	vq_free(h);
	return rc;
}

/* From g [K, T, d] at the decoder's input to gf [K, rows, projector.in] of the features; rows of all pictures. */
static int projector_back(struct back *b, const float *g, uint32_t rows, float *gf,
			  struct vq_err *err)
{
	const struct vq_config *c = &b->m->cfg;
	uint32_t n_k = b->p->n_k, d = c->decoder.layer.hidden, width = c->projector.in;
	float *gp = vq_alloc((size_t)n_k * rows, d * sizeof(float), err);
	float *out = vq_alloc(rows, d * sizeof(float), err);
	float *features = vq_alloc(rows, width * sizeof(float), err);
	int rc = VQ_E_SYS;

	if (!gp || !out || !features)
		goto out;
	vq_calib_probe_pictures(c, b->prompt, g, n_k, gp);
	vq_calib_probe_pictures(c, b->prompt,
				b->p->decoder[(size_t)b->i * (c->decoder.n_layers + 1)], 1, out);
	b->influence[vq_config_projector_unit(c)] += effect(b, out, gp, n_k, rows, d);
	vq_vision_features(b->m, b->p->vision[b->i].out, b->prompt->n_images, features);
	rc = vq_projector_adjoint(c, &b->m->projector, features, rows, gp, n_k, gf, err);
out:
	vq_free(gp);
	vq_free(out);
	vq_free(features);
	return rc;
}

/* From g [K, T, d] at the decoder's input through projector and tower. */
static int pictures_back(struct back *b, const float *g, struct vq_writer *w, struct vq_err *err)
{
	const struct vq_config *c = &b->m->cfg;
	uint32_t rows = b->prompt->n_images * c->n_image_tokens, i;
	float *gf = vq_alloc((size_t)b->p->n_k * rows, c->projector.in * sizeof(float), err);
	int rc = gf ? projector_back(b, g, rows, gf, err) : VQ_E_SYS;

	for (i = 0; i < b->prompt->n_images && rc >= 0; i++)
		rc = tower_back(b, gf, i, err);
	if (rc >= 0)
		rc = write_sketch(b, gf, rows, w, err); /* scales gf: comes last */
	vq_free(gf);
	return rc;
}

static int sample_back(struct back *b, struct vq_writer *w, struct vq_err *err)
{
	const struct vq_config *c = &b->m->cfg;
	uint32_t n = b->prompt->n_tokens, n_layers = c->decoder.n_layers;
	float *const *h = b->p->decoder + (size_t)b->i * (n_layers + 1);
	float *g = vq_alloc((size_t)b->p->n_k * n, c->decoder.layer.hidden * sizeof(float), err);
	int rc = g ? start(b, h[n_layers], g, err) : VQ_E_SYS;

	if (rc >= 0)
		rc = layers_back(b, b->m->decoder.layers, n_layers, vq_config_decoder_unit(c), h, n,
				 g, b->p->n_k, err);
	if (rc >= 0 && b->prompt->n_images)
		rc = pictures_back(b, g, w, err);
	vq_free(g);
	return rc;
}

static int write_influence(const struct vq_calib_probe *p, const double *sums, float *out,
			   struct vq_writer *w, struct vq_err *err)
{
	uint32_t n = vq_config_n_units(p->r->cfg), i, decoder = vq_config_decoder_unit(p->r->cfg);
	uint32_t vision_runs = 0;
	struct vq_tensor t = {VQ_F32, 1, {n}, out};

	for (i = 0; i < p->n; i++)
		vision_runs += p->r->prompts[p->samples[i]].n_images > 0;
	for (i = 0; i < n; i++) {
		uint32_t runs = i < decoder ? vision_runs : p->n;

		out[i] = runs ? (float)sqrt(sums[i] / runs) : 0;
	}
	return vq_writer_put_tensor(w, VQ_KIND_STAT, "stat/influence", &t, NULL, err);
}

int vq_calib_probe_run(struct vq_calib_probe *p, const struct vq_model *m,
		       const struct vq_calib_joint *joint, struct vq_writer *w, struct vq_err *err)
{
	struct vq_calib_vision_weight weight;
	struct vq_progress bar;
	float *influence;
	double *sums;
	uint32_t i;
	int rc;

	if (p->n == 0)
		return VQ_OK;
	sums = vq_calloc(vq_config_n_units(&m->cfg), sizeof(*sums), err);
	influence = vq_alloc_f32(vq_config_n_units(&m->cfg), err);
	rc = vq_calib_vision_weight_new(&weight, &m->cfg, err);
	if (!sums || !influence)
		rc = VQ_E_SYS;
	vq_progress_start(&bar, "influence", p->n);
	for (i = 0; i < p->n && rc >= 0; i++) {
		struct back b = {p, m, &p->r->prompts[p->samples[i]], i, 0, sums, &weight};

		rc = sample_back(&b, w, err);
		(void)vq_peak_anon(); /* a sample of it */
		vq_progress_step(&bar, i + 1);
	}
	vq_progress_end(&bar);
	if (rc >= 0)
		rc = write_influence(p, sums, influence, w, err);
	if (rc >= 0)
		rc = vq_calib_vision_weight_write(&weight, w, err);
	if (rc >= 0 && joint && joint->n_bits)
		rc = vq_calib_entropy(p, m, joint, influence, w, err);
	vq_calib_vision_weight_free(&weight);
	vq_free(influence);
	vq_free(sums);
	return rc;
}
