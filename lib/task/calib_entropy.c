/* Slopes of entropies, sample by sample. */
#include "task/calib_entropy.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/adjoint.h"
#include "quant/dependency_slope.h"

struct slopes {
	const struct vq_calib_probe *p;
	const struct vq_model *m;
	const struct vq_calib_joint *joint;
	const float *influence; /* of decoder layers */
	uint32_t sample;        /* index among the probed */
	uint32_t n, d;          /* tokens, channels */
	float *g;               /* [n, d] at the output of the layer at hand */
	float *below;           /* [n, d] what the pair under it adds to its input's side */
};

static struct vq_levels levels_of(const struct slopes *s, uint32_t layer)
{
	uint32_t n_layers = s->m->cfg.decoder.n_layers;
	const float *range = s->p->levels + (size_t)layer * 2 * s->d;

	return (struct vq_levels){s->p->decoder[(size_t)s->sample * (n_layers + 1) + layer + 1],
				  range, range + s->d};
}

/* Pair (l - 1, l): its slope in the output of l joins g, that in the output of l - 1 is kept for the next step. */
static int add_pair(struct slopes *s, uint32_t l, struct vq_err *err)
{
	const struct vq_config *c = &s->m->cfg;
	uint32_t pair = (c->has_vision ? c->vision.n_layers - 1 : 0) + l - 1;
	uint32_t bits = s->joint->bits[0];
	struct vq_levels k = levels_of(s, l - 1), k1 = levels_of(s, l);

	memset(s->below, 0, (size_t)s->n * s->d * sizeof(float));
	return vq_joint_slope(s->joint->p[0][0] + ((size_t)pair << (2 * bits)), &k, &k1, s->n, s->d,
			      bits, (double)s->influence[l - 1], s->below, s->g, err);
}

static int decoder_back(struct slopes *s, struct vq_err *err)
{
	uint32_t n_layers = s->m->cfg.decoder.n_layers, l;
	float *const *h = s->p->decoder + (size_t)s->sample * (n_layers + 1);
	size_t all = (size_t)s->n * s->d, i;
	int rc = VQ_OK;

	memset(s->g, 0, all * sizeof(float));
	for (l = n_layers; l-- > 0 && rc >= 0;) {
		if (l > 0)
			rc = add_pair(s, l, err);
		if (rc >= 0)
			rc = vq_layer_adjoint(&s->m->decoder.layers[l], h[l], s->n, s->g, 1, NULL,
					      err);
		for (i = 0; l > 0 && i < all; i++)
			s->g[i] += s->below[i];
	}
	return rc;
}

static int features_back(const struct slopes *s, const struct vq_prompt *prompt,
			 struct vq_writer *w, struct vq_err *err)
{
	const struct vq_config *c = &s->m->cfg;
	uint32_t rows = prompt->n_images * c->n_image_tokens, width = c->projector.in;
	float *gp = vq_alloc(rows, s->d * sizeof(float), err);
	float *features = vq_alloc(rows, width * sizeof(float), err);
	float *out = vq_alloc(rows, width * sizeof(float), err);
	struct vq_tensor t = {VQ_F32, 2, {rows, width}, out};
	json_t *attrs = json_pack("{s:I}", "bits", (json_int_t)s->joint->bits[0]);
	char name[64];
	int rc = VQ_E_SYS;

	if (!gp || !features || !out)
		goto out;
	if (!attrs) {
		vq_fail(err, VQ_E_SYS, "memory: cannot have attributes");
		goto out;
	}
	vq_calib_probe_pictures(c, prompt, s->g, 1, gp);
	vq_vision_features(s->m, s->p->vision[s->sample].out, prompt->n_images, features);
	rc = vq_projector_adjoint(c, &s->m->projector, features, rows, gp, 1, out, err);
	snprintf(name, sizeof(name), "stat/entropy_sketch/%u", s->p->samples[s->sample]);
	if (rc >= 0)
		rc = vq_writer_put_tensor(w, VQ_KIND_STAT, name, &t, attrs, err);
out:
	json_decref(attrs);
	vq_free(gp);
	vq_free(features);
	vq_free(out);
	return rc;
}

static int one_sample(struct slopes *s, struct vq_writer *w, struct vq_err *err)
{
	const struct vq_prompt *prompt = &s->p->r->prompts[s->p->samples[s->sample]];
	int rc = VQ_E_SYS;

	if (!prompt->n_images)
		return VQ_OK;
	s->n = prompt->n_tokens;
	s->g = vq_alloc(s->n, s->d * sizeof(float), err);
	s->below = vq_alloc(s->n, s->d * sizeof(float), err);
	if (s->g && s->below)
		rc = decoder_back(s, err);
	if (rc >= 0)
		rc = features_back(s, prompt, w, err);
	vq_free(s->g);
	vq_free(s->below);
	return rc;
}

int vq_calib_entropy(const struct vq_calib_probe *p, const struct vq_model *m,
		     const struct vq_calib_joint *joint, const float *influence,
		     struct vq_writer *w, struct vq_err *err)
{
	struct slopes s = {.p = p,
			   .m = m,
			   .joint = joint,
			   .influence = influence + vq_config_decoder_unit(&m->cfg),
			   .d = m->cfg.decoder.layer.hidden};
	int rc = VQ_OK;

	for (s.sample = 0; s.sample < p->n && rc >= 0; s.sample++)
		rc = one_sample(&s, w, err);
	return rc;
}
