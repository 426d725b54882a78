/* The forward run. */
#include "task/calib_run.h"

#include <stdio.h>

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

int vq_calib_run_all(const struct vq_calib_run *r, struct vq_writer *w, struct vq_err *err)
{
	(void)r;
	(void)w;
	(void)err;
	return VQ_OK;
}
