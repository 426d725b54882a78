/* The demo's checkpoint, and a packed model of it beside floats of the same values. */
#ifndef DEMO_MODEL_H
#define DEMO_MODEL_H

#include <math.h>

#include "format/checkpoint.h"
#include "model/names.h"
#include "model/packed.h"
#include "quant/grid.h"
#include "quant/smooth.h"
#include "vqm_bytes.h"

#define DEMO "pipelines/demo/mini-llava"

static struct vq_ckpt *ckpt;
static struct vq_config config;
static struct vq_name *names;
static size_t n_names;

static inline int demo_setup(void **state)
{
	struct vq_err err = {0};

	(void)state;
	if (vq_ckpt_open(&ckpt, DEMO, &err) < 0 ||
	    vq_config_from_ckpt(&config, ckpt, NULL, &err) < 0 ||
	    vq_names_list(&config, &names, &n_names, &err) < 0) {
		print_error("%s\n", err.text);
		return -1;
	}
	return 0;
}

static inline int demo_teardown(void **state)
{
	(void)state;
	vq_free(names);
	vq_ckpt_close(ckpt);
	return 0;
}

/* Logits after a short prompt without picture; vq_free. */
static inline float *run_decoder(const struct vq_model *m)
{
	static const int32_t tokens[] = {1, 300, 17, 421, 90, 77, 12, 600, 255, 3, 41, 500};
	const uint32_t n = sizeof(tokens) / sizeof(tokens[0]), start[2] = {0, n}, last = n - 1;
	const struct vq_batch b = {1, start};
	struct vq_err err = {0};
	float *h = vq_alloc_f32((size_t)n * config.decoder.layer.hidden, &err);
	float *logits = vq_alloc_f32(config.decoder.vocab, &err);

	assert_true(h && logits);
	assert_int_equal(vq_decoder_embed(m, tokens, n, NULL, 0, h, &err), VQ_OK);
	assert_int_equal(vq_decoder_layers(m, h, &b, NULL, &err), VQ_OK);
	assert_int_equal(vq_decoder_logits(m, h, &last, 1, logits, &err), VQ_OK);
	vq_free(h);
	return logits;
}

/* What a test packs for a linear: its codes, and the transform of its input (n 0: none), both the caller's. */
typedef struct vq_codes (*packed_linear)(const struct vq_name *n, struct vq_transform *t);

/* Largest difference of logits: the packed model against floats of the same values behind the same transforms, and
 * those against the checkpoint. */
static inline void compare_with_floats(const struct bytes *b, packed_linear linear, double *worst,
				       double *shift)
{
	struct vq_transform *t = vq_calloc(n_names, sizeof(*t), NULL);
	float *want, *got, *full;
	struct vq_model packed, sim;
	struct vq_err err;
	struct vq_vqm v;
	size_t i;

	assert_int_equal(open_bytes(&v, b->p, b->n, &err), VQ_OK);
	assert_int_equal(vq_model_from_vqm(&packed, &v, &err), VQ_OK);
	assert_int_equal(vq_model_from_ckpt(&sim, &config, ckpt, &err), VQ_OK);
	full = run_decoder(&sim);
	for (i = 0; i < n_names; i++) {
		struct vq_linear *l = vq_model_linear(&sim, names[i].name);
		struct vq_codes c;
		float *w;

		if (!names[i].linear)
			continue;
		c = linear(&names[i], &t[i]);
		w = vq_alloc_f32((size_t)c.n_out * c.n_in, &err);
		vq_grid_dequant(&c, w);
		assert_int_equal(vq_model_keep(&sim, names[i].unit, w, &err), VQ_OK);
		l->w = w;
		l->dtype = VQ_F32;
		l->act = vq_model_linear(&packed, names[i].name)->act;
		l->transform = t[i].n ? &t[i] : NULL;
		vq_codes_free(&c);
	}
	want = run_decoder(&sim);
	got = run_decoder(&packed);
	*worst = *shift = 0;
	for (i = 0; i < config.decoder.vocab; i++) {
		*worst = fmax(*worst, fabs((double)(got[i] - want[i])));
		*shift = fmax(*shift, fabs((double)(full[i] - want[i])));
	}
	for (i = 0; i < n_names; i++)
		vq_transform_free(&t[i]);
	vq_free(t);
	vq_free(want);
	vq_free(got);
	vq_free(full);
	vq_model_free(&sim);
	vq_model_free(&packed);
	vq_vqm_close(&v);
}

#endif
