/* The calibration inputs that search reads: samples, checkpoints, sketches and measured weights. */
#include "task/search_acts.h"

#include <string.h>

#include "base/mem.h"
#include "base/parse.h"
#include "quant/rtn.h"

#define MAX_SAMPLES (1u << 20)

/* The sample of index i, made when it is the next one. */
static int sample_of(struct vq_acts *a, uint32_t i, struct vq_acts_sample **s, struct vq_err *err)
{
	if (i > a->n_samples || i >= MAX_SAMPLES)
		return vq_fail(err, VQ_E_DATA, "want sample %u next, got %u", a->n_samples, i);
	if (i == a->n_samples) {
		uint32_t room = a->samples_room ? 2 * a->samples_room : 64;
		void *p = a->samples;

		if (i == a->samples_room) {
			if (vq_grow(&p, a->samples_room, room, sizeof(*a->samples), err) < 0)
				return VQ_E_SYS;
			a->samples = p;
			a->samples_room = room;
		}
		memset(&a->samples[a->n_samples++], 0, sizeof(*a->samples));
	}
	*s = &a->samples[i];
	return VQ_OK;
}

/* The payload; passed on first, for the reader gives it once. */
static int load(struct vq_reader *r, const struct vq_record *rec, struct vq_writer *out,
		void **data, struct vq_err *err)
{
	void *p = NULL;
	int rc = vq_reader_load(r, &p, err);

	if (rc == VQ_OK && out)
		rc = vq_writer_put(out, rec, p, err);
	if (rc == VQ_OK && rec->dtype == VQ_F32)
		rc = vq_rtn_check_finite(p, VQ_F32, rec->raw_bytes / sizeof(float), err);
	if (rc == VQ_OK)
		*data = p;
	else
		vq_free(p);
	return rc;
}

static int take_tokens(struct vq_acts *a, struct vq_reader *r, const struct vq_record *rec,
		       uint32_t i, struct vq_writer *out, struct vq_err *err)
{
	struct vq_acts_sample *s;
	void *p;
	int rc = sample_of(a, i, &s, err);

	if (rc < 0)
		return rc;
	if (rec->dtype != VQ_I32 || rec->n_dims != 1 || rec->dims[0] == 0 ||
	    rec->dims[0] > VQ_ACTS_MAX_ROWS || s->tokens)
		return vq_fail(err, VQ_E_DATA, "want i32 [T], T > 0, once");
	rc = load(r, rec, out, &p, err);
	if (rc < 0)
		return rc;
	s->tokens = p;
	s->n_tokens = (uint32_t)rec->dims[0];
	return VQ_OK;
}

static int take_pixels(struct vq_acts *a, struct vq_reader *r, const struct vq_record *rec,
		       uint32_t i, struct vq_writer *out, struct vq_err *err)
{
	void *p;
	uint32_t side = a->cfg->vision.image_size;
	struct vq_acts_sample *s;
	int rc = sample_of(a, i, &s, err);

	if (rc < 0)
		return rc;
	if (!a->cfg->has_vision || rec->dtype != VQ_F32 || rec->n_dims != 4 || rec->dims[1] != 3 ||
	    rec->dims[2] != side || rec->dims[3] != side || rec->dims[0] == 0 ||
	    rec->dims[0] > 1024 || s->pixels)
		return vq_fail(err, VQ_E_DATA, "want f32 [images, 3, %u, %u], once", side, side);
	rc = load(r, rec, out, &p, err);
	if (rc < 0)
		return rc;
	s->pixels = p;
	s->n_images = (uint32_t)rec->dims[0];
	a->n_images += s->n_images;
	return VQ_OK;
}

static int take_sketch(struct vq_acts *a, struct vq_reader *r, const struct vq_record *rec,
		       uint32_t i, struct vq_writer *out, struct vq_err *err)
{
	struct vq_acts_sample *s;
	void *p;
	int rc;

	if (i >= a->n_samples)
		return vq_fail(err, VQ_E_DATA, "want a sketch of a sample below %u", a->n_samples);
	s = &a->samples[i];
	if (rec->dtype != VQ_F32 || rec->n_dims != 3 || rec->dims[0] == 0 || rec->dims[0] > 4096 ||
	    rec->dims[1] != (uint64_t)s->n_images * a->cfg->n_image_tokens ||
	    rec->dims[2] != a->cfg->projector.in || s->sketch)
		return vq_fail(err, VQ_E_DATA, "want f32 [K, %u, %u], once",
			       s->n_images * a->cfg->n_image_tokens, a->cfg->projector.in);
	rc = load(r, rec, out, &p, err);
	if (rc < 0)
		return rc;
	s->sketch = p;
	s->n_sketch = (uint32_t)rec->dims[0];
	return VQ_OK;
}

static int take_entropy(struct vq_acts *a, struct vq_reader *r, const struct vq_record *rec,
			uint32_t i, struct vq_writer *out, struct vq_err *err)
{
	struct vq_acts_sample *s;
	void *p;
	int rc;

	if (i >= a->n_samples)
		return vq_fail(err, VQ_E_DATA, "want a sketch of a sample below %u", a->n_samples);
	s = &a->samples[i];
	if (rec->dtype != VQ_F32 || rec->n_dims != 2 ||
	    rec->dims[0] != (uint64_t)s->n_images * a->cfg->n_image_tokens ||
	    rec->dims[1] != a->cfg->projector.in || s->entropy)
		return vq_fail(err, VQ_E_DATA, "want f32 [%u, %u], once",
			       s->n_images * a->cfg->n_image_tokens, a->cfg->projector.in);
	rc = load(r, rec, out, &p, err);
	if (rc == VQ_OK)
		s->entropy = p;
	return rc;
}

static int take_point(struct vq_acts *a, struct vq_reader *r, const struct vq_record *rec,
		      uint32_t unit, struct vq_writer *out, struct vq_err *err)
{
	uint32_t room = a->points_room ? 2 * a->points_room : 8;
	void *grown = a->points, *p;
	int rc;

	if (rec->dtype != VQ_F32 || rec->n_dims != 2 || rec->dims[0] > VQ_ACTS_MAX_ROWS ||
	    rec->dims[1] > VQ_ACTS_MAX_ROWS)
		return vq_fail(err, VQ_E_DATA, "want f32 [rows, width]");
	if (a->n_points == a->points_room) {
		if (vq_grow(&grown, a->points_room, room, sizeof(*a->points), err) < 0)
			return VQ_E_SYS;
		a->points = grown;
		a->points_room = room;
	}
	rc = load(r, rec, out, &p, err);
	if (rc < 0)
		return rc;
	a->points[a->n_points++] =
		(struct vq_acts_point){unit, p, (size_t)rec->dims[0], (size_t)rec->dims[1]};
	return VQ_OK;
}

static int take_vision_weight(struct vq_acts *a, struct vq_reader *r, const struct vq_record *rec,
			      struct vq_writer *out, struct vq_err *err)
{
	uint32_t n = vq_config_n_units(a->cfg), i;
	void *p;
	int rc;

	if (rec->dtype != VQ_F32 || rec->n_dims != 1 || rec->dims[0] != n || a->vision_weight)
		return vq_fail(err, VQ_E_DATA, "want f32 [%u], once", n);
	rc = load(r, rec, out, &p, err);
	if (rc < 0)
		return rc;
	a->vision_weight = p;
	for (i = 0; i < n; i++)
		if (!(a->vision_weight[i] >= 0))
			return vq_fail(err, VQ_E_DATA, "want weights of 0 and above, got %g",
				       (double)a->vision_weight[i]);
	return VQ_OK;
}

/* What a record's name says. */
enum name { OTHER, TOKENS, PIXELS, SKETCH, ENTROPY, POINT, VISION_WEIGHT };

static enum name read_name(const char *name, uint32_t *i)
{
	const char *tail;
	char number[16];
	size_t n;

	if (strcmp(name, "stat/vision_weight") == 0)
		return VISION_WEIGHT;
	if (strncmp(name, "stat/sketch/", 12) == 0)
		return vq_parse_u32(i, name + 12, 0, UINT32_MAX) < 0 ? OTHER : SKETCH;
	if (strncmp(name, "stat/entropy_sketch/", 20) == 0)
		return vq_parse_u32(i, name + 20, 0, UINT32_MAX) < 0 ? OTHER : ENTROPY;
	if (strncmp(name, "input/checkpoint/", 17) == 0)
		return vq_parse_u32(i, name + 17, 0, UINT32_MAX) < 0 ? OTHER : POINT;
	if (strncmp(name, "input/", 6) != 0 || !(tail = strchr(name + 6, '/')))
		return OTHER;
	n = (size_t)(tail - (name + 6));
	if (n >= sizeof(number))
		return OTHER;
	memcpy(number, name + 6, n);
	number[n] = '\0';
	if (vq_parse_u32(i, number, 0, UINT32_MAX) < 0)
		return OTHER;
	if (strcmp(tail, "/tokens") == 0)
		return TOKENS;
	return strcmp(tail, "/pixels") == 0 ? PIXELS : OTHER;
}

int vq_acts_wants(const struct vq_record *rec, const struct vq_search_opts *o,
		  const struct vq_config *c)
{
	int vision = c->has_vision && o->first_unit < vq_config_projector_unit(c);
	uint32_t i;

	switch (read_name(rec->name, &i)) {
	case TOKENS:
	case PIXELS: return 1;
	case SKETCH: return o->method == VQ_METHOD_QVLM && o->veo && vision;
	case ENTROPY: return o->method == VQ_METHOD_QVLM && o->veo && o->veo_lambda > 0 && vision;
	case POINT: return i >= o->first_unit && i <= o->last_unit;
	case VISION_WEIGHT: return o->token_weights == VQ_TOKENS_VISION && o->vision_weight < 0;
	case OTHER: break;
	}
	return 0;
}

int vq_acts_record(struct vq_acts *a, struct vq_reader *r, const struct vq_record *rec,
		   struct vq_writer *out, struct vq_err *err)
{
	uint32_t i;

	switch (read_name(rec->name, &i)) {
	case TOKENS: return take_tokens(a, r, rec, i, out, err);
	case PIXELS: return take_pixels(a, r, rec, i, out, err);
	case SKETCH: return take_sketch(a, r, rec, i, out, err);
	case ENTROPY: return take_entropy(a, r, rec, i, out, err);
	case POINT: return take_point(a, r, rec, i, out, err);
	case VISION_WEIGHT: return take_vision_weight(a, r, rec, out, err);
	case OTHER: break;
	}
	return VQ_OK;
}
