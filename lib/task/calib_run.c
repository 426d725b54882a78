/* The forward run. */
#include "task/calib_run.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "model/model.h"
#include "task/calib_error.h"
#include "task/calib_experts.h"
#include "task/calib_joint.h"
#include "task/calib_probe.h"
#include "task/calib_weights.h"

int vq_calib_put_inputs(const struct vq_calib_run *r, struct vq_writer *w, struct vq_err *err)
{
	uint32_t i, s = r->cfg->vision.image_size;
	char name[64];
	int rc = VQ_OK;

	for (i = 0; i < r->n && rc >= 0; i++) {
		const struct vq_prompt *p = &r->prompts[i];
		struct vq_tensor tokens = {VQ_I32, 1, {p->n_tokens}, p->tokens};
		struct vq_tensor pixels = {VQ_F32, 4, {p->n_images, 3, s, s}, p->pixels};

		snprintf(name, sizeof(name), "input/%u/tokens", i);
		rc = vq_writer_put_tensor(w, VQ_KIND_INPUT, name, &tokens, NULL, err);
		snprintf(name, sizeof(name), "input/%u/pixels", i);
		if (rc >= 0 && p->n_images)
			rc = vq_writer_put_tensor(w, VQ_KIND_INPUT, name, &pixels, NULL, err);
	}
	return rc;
}

/* The run's state. */
struct state {
	const struct vq_calib_run *r;
	struct vq_writer *w;
	struct vq_model model;
	struct vq_calib_joint joint;
	struct vq_calib_probe probe;
	struct vq_calib_experts experts;
	float *error[VQ_CALIB_MAX_BITS]; /* [n_units] with --error-stats */
	struct vq_progress bar;
	uint64_t done; /* rows times layers */
};

/* A tower at work: the hidden states of all sequences, one after the other. */
struct tower {
	int is_vision;
	const struct vq_layer *layers;
	uint32_t n_layers, unit0, width;
	float *h; /* [rows, width] */
	uint32_t n_seqs;
	uint32_t *start; /* [n_seqs + 1] */
};

static void tower_free(struct tower *t)
{
	vq_free(t->h);
	vq_free(t->start);
	memset(t, 0, sizeof(*t));
}

static int is_checkpoint(const struct vq_calib_run *r, uint32_t unit)
{
	uint32_t i;

	for (i = 0; i < r->meta->n_checkpoints; i++)
		if (r->meta->checkpoints[i] == unit)
			return 1;
	return 0;
}

static int put_checkpoint(struct state *s, uint32_t unit, const float *h, size_t rows,
			  uint32_t width, struct vq_err *err)
{
	struct vq_tensor t = {VQ_F32, 2, {rows, width}, h};
	char name[64];

	if (!is_checkpoint(s->r, unit))
		return VQ_OK;
	snprintf(name, sizeof(name), "input/checkpoint/%u", unit);
	return vq_writer_put_tensor(s->w, VQ_KIND_INPUT, name, &t, NULL, err);
}

/* The last sequence + 1 of a chunk that begins at sequence i: at most VQ_CALIB_CHUNK_ROWS rows, one at least. */
static uint32_t chunk_end(const struct tower *t, uint32_t i)
{
	uint32_t j = i + 1;

	while (j < t->n_seqs && t->start[j + 1] - t->start[i] <= VQ_CALIB_CHUNK_ROWS)
		j++;
	return j;
}

/* Layer l over sequences i..j-1. */
static int forward_chunk(struct state *s, struct tower *t, uint32_t l, uint32_t i, uint32_t j,
			 struct vq_err *err)
{
	uint32_t *start = vq_alloc((size_t)(j - i) + 1, sizeof(*start), err), k;
	struct vq_batch b = {j - i, start};
	int rc;

	if (!start)
		return VQ_E_SYS;
	for (k = i; k <= j; k++)
		start[k - i] = t->start[k] - t->start[i];
	rc = vq_layer_forward(&t->layers[l], t->h + (size_t)t->start[i] * t->width, &b, NULL, err);
	s->done += start[j - i];
	vq_progress_step(&s->bar, s->done);
	vq_free(start);
	return rc;
}

/* The first chunk's rounding error at every bit width; in holds its hidden states before the layer. */
static int layer_errors(struct state *s, const struct tower *t, uint32_t l, const float *in,
			uint32_t n_seqs, struct vq_err *err)
{
	struct vq_batch b = {n_seqs, t->start};
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; i < s->r->n_bits && rc >= 0; i++)
		rc = vq_calib_layer_error(&t->layers[l], in, t->h, &b, s->r->bits[i],
					  &s->error[i][t->unit0 + l], err);
	return rc;
}

/* Hidden states before layer l (or after the last) of the probed samples. */
static int keep_for_probe(struct state *s, const struct tower *t, uint32_t l, struct vq_err *err)
{
	uint32_t i, seq = 0, n_images;
	int rc = VQ_OK;

	for (i = 0; i < s->r->n && rc >= 0; i++) {
		n_images = s->r->prompts[i].n_images;
		if (!t->is_vision)
			n_images = 1;
		if (n_images)
			rc = vq_calib_probe_keep(&s->probe, t->is_vision, l, i,
						 t->h + (size_t)t->start[seq] * t->width,
						 t->start[seq + n_images] - t->start[seq], err);
		seq += n_images;
	}
	return rc;
}

static int one_layer(struct state *s, struct tower *t, uint32_t l, struct vq_err *err)
{
	uint32_t i, j, first = chunk_end(t, 0);
	size_t n_in = (size_t)t->start[first] * t->width;
	float *in = NULL;
	int rc = vq_calib_weights_check(s->r->cfg, s->r->ckpt, t->unit0 + l, err);

	if (rc >= 0)
		rc = keep_for_probe(s, t, l, err);
	if (rc >= 0 && t->unit0 + l > 0)
		rc = put_checkpoint(s, t->unit0 + l, t->h, t->start[t->n_seqs], t->width, err);
	if (rc >= 0 && s->r->error_stats) {
		in = vq_alloc_f32(n_in, err);
		if (!in)
			return VQ_E_SYS;
		memcpy(in, t->h, n_in * sizeof(float));
	}
	for (i = 0; i < t->n_seqs && rc >= 0; i = j) {
		j = chunk_end(t, i);
		rc = forward_chunk(s, t, l, i, j, err);
	}
	if (rc >= 0 && in)
		rc = layer_errors(s, t, l, in, first, err);
	vq_free(in);
	if (rc >= 0)
		rc = vq_calib_joint_output(&s->joint, t->h, err);
	if (rc >= 0 && !t->is_vision)
		vq_calib_probe_levels(&s->probe, l, s->joint.min[s->joint.now][0],
				      s->joint.max[s->joint.now][0]);
	vq_info("unit %u done, peak %.0f MiB", t->unit0 + l, (double)vq_peak_anon() / 1048576.0);
	return rc;
}

static int run_tower(struct state *s, struct tower *t, struct vq_err *err)
{
	uint32_t l;
	int rc = vq_calib_joint_tower(&s->joint, t->start[t->n_seqs], t->width, err);

	for (l = 0; l < t->n_layers && rc >= 0; l++)
		rc = one_layer(s, t, l, err);
	if (rc >= 0)
		rc = keep_for_probe(s, t, t->n_layers, err);
	return rc;
}

/* Sequence k of n sequences has rows(k) rows: start and h are made. */
static int tower_room(struct tower *t, struct vq_err *err)
{
	size_t n;

	if (vq_mul_size(&n, t->start[t->n_seqs], t->width) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: %u rows of hidden states",
			       t->start[t->n_seqs]);
	t->h = vq_alloc_f32(n, err);
	return t->h ? VQ_OK : VQ_E_SYS;
}

/* Pictures of all samples -> hidden states before the first vision layer; the pixels are let go. */
static int vision_tower(struct state *s, struct tower *t, struct vq_err *err)
{
	const struct vq_calib_run *r = s->r;
	uint32_t i, k, n_pos = vq_vision_positions(r->cfg);
	int rc;

	*t = (struct tower){1,
			    s->model.vision.layers,
			    r->cfg->vision.n_layers,
			    0,
			    r->cfg->vision.layer.hidden,
			    NULL,
			    0,
			    NULL};
	for (i = 0; i < r->n; i++)
		t->n_seqs += r->prompts[i].n_images;
	t->start = vq_alloc((size_t)t->n_seqs + 1, sizeof(*t->start), err);
	if (!t->start)
		return VQ_E_SYS;
	if ((uint64_t)t->n_seqs * n_pos > UINT32_MAX)
		return vq_fail(err, VQ_E_DATA, "%u pictures are too many; use fewer samples",
			       t->n_seqs);
	for (i = 0; i <= t->n_seqs; i++)
		t->start[i] = i * n_pos;
	rc = tower_room(t, err);
	for (i = k = 0; i < r->n && rc >= 0; k += r->prompts[i++].n_images) {
		if (r->prompts[i].n_images)
			rc = vq_vision_embed(&s->model, r->prompts[i].pixels,
					     r->prompts[i].n_images,
					     t->h + (size_t)t->start[k] * t->width, err);
		vq_free(r->prompts[i].pixels);
		r->prompts[i].pixels = NULL;
	}
	return rc;
}

/* The projector's rounding error over the pictures of the first sample that has some. */
static int projector_errors(struct state *s, const float *features, const float *out, size_t n,
			    struct vq_err *err)
{
	const struct vq_config *c = s->r->cfg;
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; i < s->r->n_bits && rc >= 0; i++)
		rc = vq_calib_projector_error(c, &s->model.projector, features, out, n,
					      s->r->bits[i],
					      &s->error[i][vq_config_projector_unit(c)], err);
	return rc;
}

/* One sample: features of its pictures, projector, embedding into the decoder's rows h. */
static int enter_decoder(struct state *s, const struct vq_prompt *p, const float *vision,
			 int is_first, float *h, struct vq_err *err)
{
	const struct vq_config *c = s->r->cfg;
	size_t n = (size_t)p->n_images * c->n_image_tokens;
	float *features = NULL, *image = NULL;
	int rc = VQ_E_SYS;

	if (!n)
		return vq_decoder_embed(&s->model, p->tokens, p->n_tokens, NULL, 0, h, err);
	features = vq_alloc(n, c->projector.in * sizeof(float), err);
	image = vq_alloc(n, c->projector.out * sizeof(float), err);
	if (features && image) {
		vq_vision_features(&s->model, vision, p->n_images, features);
		rc = vq_projector_apply(c, &s->model.projector, features, n, image, err);
	}
	if (rc >= 0 && is_first && s->r->error_stats)
		rc = projector_errors(s, features, image, n, err);
	if (rc >= 0)
		rc = vq_decoder_embed(&s->model, p->tokens, p->n_tokens, image, n, h, err);
	vq_free(features);
	vq_free(image);
	return rc;
}

/* input/checkpoint of the projector: the features of all pictures. */
static int put_features(struct state *s, const struct tower *v, struct vq_err *err)
{
	const struct vq_config *c = s->r->cfg;
	uint32_t unit = vq_config_projector_unit(c), width = c->projector.in;
	size_t rows = (size_t)v->n_seqs * c->n_image_tokens;
	float *features;
	int rc;

	if (!is_checkpoint(s->r, unit))
		return VQ_OK;
	features = vq_alloc(rows, width * sizeof(float), err);
	if (!features)
		return VQ_E_SYS;
	vq_vision_features(&s->model, v->h, v->n_seqs, features);
	rc = put_checkpoint(s, unit, features, rows, width, err);
	vq_free(features);
	return rc;
}

/* All samples -> hidden states before the first decoder layer; the vision tower's are let go. */
static int decoder_tower(struct state *s, struct tower *v, struct tower *t, struct vq_err *err)
{
	const struct vq_calib_run *r = s->r;
	uint32_t i, k = 0, seen = 0;
	uint64_t rows = 0;
	int rc = VQ_OK;

	if (r->cfg->has_vision) {
		rc = vq_calib_weights_check(r->cfg, r->ckpt, vq_config_projector_unit(r->cfg), err);
		if (rc >= 0)
			rc = put_features(s, v, err);
	}
	if (rc < 0)
		return rc;
	*t = (struct tower){0,
			    s->model.decoder.layers,
			    r->cfg->decoder.n_layers,
			    vq_config_decoder_unit(r->cfg),
			    r->cfg->decoder.layer.hidden,
			    NULL,
			    r->n,
			    NULL};
	t->start = vq_alloc((size_t)t->n_seqs + 1, sizeof(*t->start), err);
	if (!t->start)
		return VQ_E_SYS;
	for (i = 0; i < r->n; i++) {
		t->start[i] = (uint32_t)rows;
		rows += r->prompts[i].n_tokens;
		if (rows > UINT32_MAX)
			return vq_fail(err, VQ_E_DATA, "the samples have more than %u tokens",
				       UINT32_MAX);
	}
	t->start[r->n] = (uint32_t)rows;
	rc = tower_room(t, err);
	for (i = 0; i < r->n && rc >= 0; i++) {
		const struct vq_prompt *p = &r->prompts[i];

		rc = enter_decoder(s, p, p->n_images ? v->h + (size_t)v->start[k] * v->width : NULL,
				   p->n_images && !seen, t->h + (size_t)t->start[i] * t->width,
				   err);
		k += p->n_images;
		seen |= p->n_images > 0;
	}
	tower_free(v);
	return rc;
}

static int put_errors(struct state *s, struct vq_err *err)
{
	uint32_t i;
	char name[64];
	int rc = VQ_OK;

	for (i = 0; i < s->r->n_bits && s->r->error_stats && rc >= 0; i++) {
		struct vq_tensor t = {VQ_F32, 1, {vq_config_n_units(s->r->cfg)}, s->error[i]};

		snprintf(name, sizeof(name), "stat/error/%u", s->r->bits[i]);
		rc = vq_writer_put_tensor(s->w, VQ_KIND_STAT, name, &t, NULL, err);
	}
	return rc;
}

static int prepare(struct state *s, struct vq_err *err)
{
	const struct vq_config *c = s->r->cfg;
	uint32_t i, pairs = c->decoder.n_layers - 1;
	int rc = vq_model_from_ckpt(&s->model, c, s->r->ckpt, err);

	if (c->has_vision)
		pairs += c->vision.n_layers - 1;
	if (rc >= 0)
		rc = vq_calib_joint_new(&s->joint, s->r, pairs, err);
	if (rc >= 0)
		rc = vq_calib_probe_new(&s->probe, s->r, err);
	for (i = 0; i < s->r->n_bits && s->r->error_stats && rc >= 0; i++) {
		s->error[i] = vq_calloc(vq_config_n_units(c), sizeof(float), err);
		rc = s->error[i] ? VQ_OK : VQ_E_SYS;
	}
	return rc;
}

static uint64_t total_rows(const struct vq_calib_run *r)
{
	uint64_t vision = 0, tokens = 0;
	uint32_t i;

	for (i = 0; i < r->n; i++) {
		tokens += r->prompts[i].n_tokens;
		vision += r->prompts[i].n_images;
	}
	vision *= r->cfg->has_vision ? vq_vision_positions(r->cfg) : 0;
	return vision * (r->cfg->has_vision ? r->cfg->vision.n_layers : 0) +
	       tokens * r->cfg->decoder.n_layers;
}

/* No sample has a picture: the tower's weights are looked through, its pairs stay empty. */
static int skip_vision(struct state *s, struct vq_err *err)
{
	uint32_t l;
	int rc = VQ_OK;

	s->joint.pair = s->r->cfg->vision.n_layers - 1;
	for (l = 0; l < s->r->cfg->vision.n_layers && rc >= 0; l++)
		rc = vq_calib_weights_check(s->r->cfg, s->r->ckpt, l, err);
	return rc;
}

int vq_calib_run_all(const struct vq_calib_run *r, struct vq_writer *w, struct vq_err *err)
{
	struct state s = {.r = r, .w = w};
	struct tower v = {0}, d = {0};
	uint32_t i;
	int rc = prepare(&s, err);

	vq_progress_start(&s.bar, "layers", total_rows(r));
	if (rc >= 0 && r->cfg->has_vision)
		rc = vision_tower(&s, &v, err);
	if (rc >= 0 && v.n_seqs)
		rc = run_tower(&s, &v, err);
	else if (rc >= 0 && r->cfg->has_vision)
		rc = skip_vision(&s, err);
	if (rc >= 0)
		rc = decoder_tower(&s, &v, &d, err);
	if (rc >= 0)
		rc = vq_calib_experts_begin(&s.experts, &s.model, err);
	if (rc >= 0)
		rc = run_tower(&s, &d, err);
	vq_calib_experts_end(&s.experts);
	if (rc >= 0)
		rc = vq_calib_experts_put(&s.experts, d.start[d.n_seqs], w, err);
	vq_progress_end(&s.bar);
	tower_free(&v);
	tower_free(&d);
	if (rc >= 0)
		rc = vq_calib_joint_write(&s.joint, w, err);
	if (rc >= 0)
		rc = put_errors(&s, err);
	if (rc >= 0)
		rc = vq_calib_probe_run(&s.probe, &s.model, &s.joint, w, err);
	for (i = 0; i < VQ_CALIB_MAX_BITS; i++)
		vq_free(s.error[i]);
	vq_calib_experts_free(&s.experts);
	vq_calib_probe_free(&s.probe);
	vq_calib_joint_free(&s.joint);
	vq_model_free(&s.model);
	return rc;
}
