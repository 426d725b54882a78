/* What a candidate of a block is judged by. */
#include "task/search_score.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/layerwise.h"
#include "quant/sketch.h"

void vq_score_begin(struct vq_score *s, const struct vq_search_opts *o, const struct vq_acts *acts,
		    const struct vq_model *m, uint32_t first, uint32_t last)
{
	const struct vq_config *c = &m->cfg;
	uint32_t tower = vq_config_projector_unit(c), i;

	*s = (struct vq_score){
		.m = m, .cfg = c, .acts = acts, .eta = o->eta, .lambda = o->veo_lambda};
	if (o->method == VQ_METHOD_QVLM && o->veo && c->has_vision && first < tower &&
	    last + 1 == tower)
		for (i = 0; i < acts->n_samples; i++)
			s->veo = s->veo || acts->samples[i].sketch;
	s->width = c->has_vision && first == tower ? c->projector.out
		   : s->veo                        ? c->projector.in
						   : acts->width;
}

uint32_t *vq_score_rows(struct vq_score *s, const struct vq_acts *acts, size_t n_rows, uint32_t *n,
			struct vq_err *err)
{
	uint8_t *take = vq_calloc(acts->n_seqs, 1, err);
	uint32_t k, i, j, image = 0, *seqs = vq_acts_choose(acts, n_rows, &k, err), *out = NULL;

	if (!take || !seqs)
		goto out;
	for (i = 0; i < k; i++)
		take[seqs[i]] = 1;
	for (i = 0; s->veo && i < acts->n_samples; i++)
		for (j = 0; j < acts->samples[i].n_images; j++, image++)
			if (acts->samples[i].sketch)
				take[image] = 1;
	for (i = 0, k = 0; i < acts->n_seqs; i++)
		k += take[i];
	s->seqs = vq_alloc(k, sizeof(*s->seqs), err);
	out = s->seqs ? vq_alloc(k, sizeof(*out), err) : NULL;
	if (!out)
		goto out;
	for (i = 0, k = 0; i < acts->n_seqs; i++)
		if (take[i])
			s->seqs[k++] = i;
	memcpy(out, s->seqs, k * sizeof(*out));
	s->n_seqs = *n = k;
	for (i = 0, s->n_rows = 0; i < k; i++)
		s->n_rows += acts->start[out[i] + 1] - acts->start[out[i]];
out:
	vq_free(take);
	vq_free(seqs);
	return out;
}

int vq_score_target(struct vq_score *s, const float *out, struct vq_err *err)
{
	if (s->veo)
		s->n_rows = (size_t)s->n_seqs * s->cfg->n_image_tokens;
	s->target = vq_alloc_f32(s->n_rows * s->width, err);
	s->features = s->veo ? vq_alloc_f32(s->n_rows * s->width, err) : NULL;
	if (!s->target || (s->veo && !s->features))
		return VQ_E_SYS;
	if (s->veo)
		vq_vision_features(s->m, out, s->n_seqs, s->target);
	else
		memcpy(s->target, out, s->n_rows * s->width * sizeof(float));
	s->ref = vq_sum_weighted2(NULL, s->target, s->r, s->n_rows, s->width);
	if (!(s->ref > 0))
		s->ref = 1; /* an output of zeros: the error is then absolute */
	return VQ_OK;
}

static double inner(const float *a, const float *b, size_t n)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return sum;
}

/* Means over the sketched samples: of the effect of dv, which holds the measured sequences' rows, and of the change of
 * the entropies. */
static void effects(const struct vq_score *s, const float *dv, double *effect, double *entropy)
{
	size_t per = (size_t)s->cfg->n_image_tokens * s->width;
	uint32_t i, image = 0, at = 0, n = 0;

	*effect = *entropy = 0;
	for (i = 0; i < s->acts->n_samples; i++) {
		const struct vq_acts_sample *p = &s->acts->samples[i];
		size_t all = per * p->n_images;

		while (at < s->n_seqs && s->seqs[at] < image)
			at++;
		if (p->sketch) {
			*effect += vq_sketch_energy(p->sketch, p->n_sketch, all, dv + at * per);
			*entropy += p->entropy ? inner(p->entropy, dv + at * per, all) : 0;
			n++;
		}
		image += p->n_images;
	}
	*effect /= n ? n : 1;
	*entropy /= n ? n : 1;
}

int vq_score_of(struct vq_score *s, const float *out, double *score, struct vq_err *err)
{
	size_t n = s->n_rows * s->width, i;
	double effect, entropy;

	if (!s->veo) {
		*score = vq_sum_weighted2(out, s->target, s->r, s->n_rows, s->width) / s->ref;
	} else {
		vq_vision_features(s->m, out, s->n_seqs, s->features);
		for (i = 0; i < n; i++)
			s->features[i] -= s->target[i];
		*score = vq_sum_squares(s->features, s->n_rows, s->width) / s->ref;
		effects(s, s->features, &effect, &entropy);
		*score += s->eta * effect;
		if (s->lambda > 0)
			*score += s->lambda * entropy;
	}
	if (!isfinite(*score))
		return vq_fail(err, VQ_E_DATA,
			       "the output of a block is not finite: the activations overflow");
	return VQ_OK;
}

void vq_score_free(struct vq_score *s)
{
	vq_free(s->seqs);
	vq_free(s->target);
	vq_free(s->features);
	memset(s, 0, sizeof(*s));
}
