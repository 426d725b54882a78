/* The prompts of the chosen samples. */
#include "task/calib_samples.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "task/model_head.h"

/* The samples: a seeded choice of the data, as prompts. */
int vq_calib_samples(struct vq_calib *c, struct vq_err *err)
{
	const struct vq_calib_opts *o = c->o;
	uint32_t i;
	int rc = vq_dataset_open(&c->data, o->data, o->images, err);

	if (rc >= 0 && o->n > c->data.n)
		rc = vq_fail(err, VQ_E_DATA, "%s: want %u samples, the file holds %u", o->data,
			     o->n, c->data.n);
	if (rc >= 0)
		rc = vq_model_tokenizer(&c->tok, &c->cfg, c->ckpt, err);
	if (rc < 0)
		return rc;
	c->picks = vq_alloc(o->n, sizeof(*c->picks), err);
	c->meta.ids = vq_calloc(o->n, sizeof(*c->meta.ids), err);
	c->run.prompts = vq_calloc(o->n, sizeof(*c->run.prompts), err);
	if (!c->picks || !c->meta.ids || !c->run.prompts)
		return VQ_E_SYS;
	c->meta.n = c->run.n = o->n;
	memcpy(c->meta.data_sha256, c->data.sha256, sizeof(c->data.sha256));
	rc = vq_rng_choose(vq_rng_new(o->seed, "calib"), c->data.n, o->n, c->picks, err);
	for (i = 0; i < o->n && rc >= 0; i++) {
		const struct vq_item *it = &c->data.items[c->picks[i]];
		struct vq_err sub = {0};
		char *image = vq_dataset_image(&c->data, it, &sub);

		rc = sub.code;
		if (rc >= 0)
			rc = vq_prompt_build(&c->run.prompts[i], &c->cfg, c->tok, it->text, image,
					     &sub);
		vq_free(image);
		if (rc < 0) {
			rc = vq_fail(err, rc, "%s: sample '%s': %s", o->data, it->id, sub.text);
			break;
		}
		c->meta.ids[i] = vq_strdup(it->id, err);
		if (!c->meta.ids[i])
			rc = VQ_E_SYS;
		c->meta.n_tokens += c->run.prompts[i].n_tokens;
	}
	return rc;
}

void vq_calib_samples_free(struct vq_calib *c)
{
	uint32_t i;

	for (i = 0; c->run.prompts && i < c->run.n; i++)
		vq_prompt_free(&c->run.prompts[i]);
	vq_free(c->run.prompts);
	vq_free(c->picks);
	vq_tokenizer_free(c->tok);
	vq_dataset_close(&c->data);
}
