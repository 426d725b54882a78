/* A small random model with calibration inputs and a plan, as a stream in a file: what the tests of search read. */
#ifndef TOY_STREAM_H
#define TOY_STREAM_H

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "model/names.h"
#include "stream/history.h"
#include "stream/writer.h"

struct toy {
	struct vq_config cfg;
	uint32_t n_samples; /* 0: weights only; every second sample has an image */
	const uint32_t (*blocks)[2];
	uint32_t n_blocks;
	const uint32_t *checkpoints;
	uint32_t n_checkpoints;
	uint32_t
		n_sketch; /* directions of the sketch of sample 0; 0: none, nor a slope of entropies */
	const char *skip;  /* this tensor does not come */
	const char *spoil; /* this tensor holds a NaN */
	uint64_t seed;
};

static struct vq_config toy_config(void)
{
	struct vq_err err = {0};
	struct vq_config c;

	memset(&c, 0, sizeof(c));
	snprintf(c.arch, sizeof(c.arch), "llava");
	c.has_vision = 1;
	c.vision.layer = (struct vq_layer_config){.hidden = 32,
						  .inter = 64,
						  .n_heads = 2,
						  .n_kv_heads = 2,
						  .head_dim = 16,
						  .norm = VQ_NORM_LAYER,
						  .eps = 1e-5f,
						  .act = VQ_ACT_QUICK_GELU,
						  .qkv_bias = 1,
						  .o_bias = 1,
						  .mlp_bias = 1};
	c.vision.n_layers = 2;
	c.vision.image_size = 16;
	c.vision.patch_size = 8;
	c.vision.has_class = 1;
	c.vision.pre_norm = 1;
	c.projector = (struct vq_projector_config){2, 32, 48, VQ_ACT_GELU_ERF, 1, 0};
	c.decoder.layer = (struct vq_layer_config){.hidden = 48,
						   .inter = 96,
						   .n_heads = 3,
						   .n_kv_heads = 1,
						   .head_dim = 16,
						   .norm = VQ_NORM_RMS,
						   .eps = 1e-5f,
						   .act = VQ_ACT_SILU,
						   .gated = 1,
						   .causal = 1,
						   .rope_theta = 10000};
	c.decoder.n_layers = 3;
	c.decoder.vocab = 64;
	c.decoder.max_position = 64;
	c.image_token = 63;
	c.bos = 1;
	c.eos = 2;
	c.pad = 0;
	c.n_image_tokens = 4;
	assert_int_equal(vq_preproc_parse(&c.preproc, NULL, 16, "toy", &err), VQ_OK);
	c.chat = vq_chat_by_name("llava-hf");
	return c;
}

static void toy_json(struct vq_writer *w, uint32_t kind, const char *name, json_t *j)
{
	struct vq_err err = {0};

	assert_non_null(j);
	assert_int_equal(vq_writer_put_json(w, kind, name, j, &err), VQ_OK);
	json_decref(j);
}

static void toy_inputs(struct vq_writer *w, const struct toy *t)
{
	struct vq_rng r = vq_rng_new(t->seed, "toy inputs");
	uint32_t side = t->cfg.vision.image_size, i, k;
	struct vq_err err = {0};
	char name[64];

	for (i = 0; i < t->n_samples; i++) {
		int32_t tokens[32];
		uint64_t n = 6 + i % 5;
		struct vq_tensor tok = {VQ_I32, 1, {n}, tokens};

		for (k = 0; k < n; k++)
			tokens[k] = (int32_t)(3 + vq_rng_u64(r, 1000 * i + k) % 50);
		if (i % 2 == 0)
			for (k = 0; k < t->cfg.n_image_tokens; k++)
				tokens[1 + k] = t->cfg.image_token;
		snprintf(name, sizeof(name), "input/%u/tokens", i);
		assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_INPUT, name, &tok, NULL, &err),
				 VQ_OK);
		if (i % 2 == 0) {
			size_t m = (size_t)3 * side * side, at;
			float *px = vq_alloc_f32(m, NULL);
			struct vq_tensor pix = {VQ_F32, 4, {1, 3, side, side}, px};

			for (at = 0; at < m; at++)
				px[at] = (float)vq_rng_normal(r, 1000000 * (i + 1) + at);
			snprintf(name, sizeof(name), "input/%u/pixels", i);
			assert_int_equal(
				vq_writer_put_tensor(w, VQ_KIND_INPUT, name, &pix, NULL, &err),
				VQ_OK);
			vq_free(px);
		}
	}
}

/* Weights of the scale 1 / sqrt(n_in) with some columns ten times larger, as real models have; norms about 1. */
static void toy_weights(struct vq_writer *w, const struct toy *t)
{
	struct vq_err err = {0};
	struct vq_name *names;
	size_t n, i, k;

	assert_int_equal(vq_names_list(&t->cfg, &names, &n, &err), VQ_OK);
	for (i = 0; i < n; i++) {
		struct vq_rng r = vq_rng_new(t->seed, names[i].name);
		struct vq_tensor v = {VQ_F16, names[i].n_dims, {0}, NULL};
		json_t *attrs = json_pack("{s:I,s:b}", "unit", (json_int_t)names[i].unit, "linear",
					  names[i].linear);
		size_t count, n_in;
		uint16_t *x;

		memcpy(v.dims, names[i].dims, sizeof(names[i].dims));
		assert_int_equal(vq_tensor_count(&v, &count), VQ_OK);
		n_in = v.n_dims > 1 ? (size_t)v.dims[1] : 1;
		x = vq_alloc(count, 2, NULL);
		for (k = 0; k < count; k++) {
			double g = vq_rng_normal(r, k),
			       s = v.n_dims > 1 ? sqrt(1.0 / (double)n_in) : 0.1;

			if (names[i].linear && k % n_in % 17 == 3)
				s *= 5;
			if (v.n_dims == 1 && strstr(names[i].name, "norm") &&
			    strstr(names[i].name, ".weight"))
				g = 10 + g;
			x[k] = vq_f32_to_f16((float)(g * s));
		}
		if (t->spoil && strcmp(t->spoil, names[i].name) == 0)
			x[count / 2] = 0x7e00;
		v.data = x;
		if (!t->skip || strcmp(t->skip, names[i].name) != 0)
			assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_TENSOR, names[i].name, &v,
							      attrs, &err),
					 VQ_OK);
		json_decref(attrs);
		vq_free(x);
	}
	vq_free(names);
}

/* States of the right shape stand in for those of a full-precision run: search resets to them whatever they are. */
static void toy_points(struct vq_writer *w, const struct toy *t)
{
	struct vq_rng r = vq_rng_new(t->seed, "toy points");
	uint32_t d = t->cfg.decoder.layer.hidden, i;
	struct vq_err err = {0};
	size_t rows = 0, k;
	char name[64];

	for (i = 0; i < t->n_samples; i++)
		rows += 6 + i % 5;
	for (i = 0; i < t->n_checkpoints; i++) {
		float *h = vq_alloc_f32(rows * d, NULL);
		struct vq_tensor v = {VQ_F32, 2, {rows, d}, h};

		for (k = 0; k < rows * d; k++)
			h[k] = (float)vq_rng_normal(r, k + i * rows * d);
		snprintf(name, sizeof(name), "input/checkpoint/%u", t->checkpoints[i]);
		assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_INPUT, name, &v, NULL, &err),
				 VQ_OK);
		vq_free(h);
	}
}

static void toy_sketch(struct vq_writer *w, const struct toy *t)
{
	struct vq_rng r = vq_rng_new(t->seed, "toy sketch");
	uint32_t rows = t->cfg.n_image_tokens, width = t->cfg.vision.layer.hidden;
	size_t n = (size_t)t->n_sketch * rows * width, k;
	float *g = vq_alloc_f32(n, NULL);
	struct vq_tensor v = {VQ_F32, 3, {t->n_sketch, rows, width}, g};
	struct vq_err err = {0};

	for (k = 0; k < n; k++)
		g[k] = (float)(0.01 * vq_rng_normal(r, k));
	assert_int_equal(vq_writer_put_tensor(w, VQ_KIND_STAT, "stat/sketch/0", &v, NULL, &err),
			 VQ_OK);
	v.n_dims = 2;
	v.dims[0] = rows;
	v.dims[1] = width;
	assert_int_equal(
		vq_writer_put_tensor(w, VQ_KIND_STAT, "stat/entropy_sketch/0", &v, NULL, &err),
		VQ_OK);
	vq_free(g);
}

static void toy_plan(struct vq_writer *w, const struct toy *t)
{
	json_t *blocks = json_array(), *d = json_array();
	uint32_t i;

	for (i = 0; i < t->n_blocks; i++)
		json_array_append_new(blocks, json_pack("[I,I]", (json_int_t)t->blocks[i][0],
							(json_int_t)t->blocks[i][1]));
	for (i = 0; i + 1 < vq_config_n_units(&t->cfg); i++)
		json_array_append_new(d, json_null());
	toy_json(w, VQ_KIND_PLAN, "plan",
		 json_pack("{s:o,s:o,s:f,s:I,s:s,s:s,s:I,s:s,s:I}", "blocks", blocks, "D", d, "h0",
			   0.5, "depth", (json_int_t)3, "partition", "fixed", "proxy", "entropy",
			   "bits", (json_int_t)4, "space", "raw", "seed", (json_int_t)0));
}

static void toy_write(const char *path, const struct toy *t)
{
	json_t *model = json_pack("{s:s,s:s}", "name", "toy", "sha256", "0"), *header,
	       *points = json_array(), *ids = json_array();
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	struct vq_err err = {0};
	struct vq_writer *w;
	uint32_t i;

	for (i = 0; i < t->n_checkpoints; i++)
		json_array_append_new(points, json_integer(t->checkpoints[i]));
	for (i = 0; i < t->n_samples; i++)
		json_array_append_new(ids, json_sprintf("%u", i));
	header = vq_header_new("toy", model, &err);
	assert_true(fd >= 0 && header != NULL);
	assert_int_equal(vq_writer_open(&w, fd, path, 0, &err), VQ_OK);
	assert_int_equal(vq_writer_begin(w, header, &err), VQ_OK);
	toy_json(w, VQ_KIND_META, "config", vq_config_json(&t->cfg, &err));
	toy_json(w, VQ_KIND_META, "calib",
		 json_pack("{s:I,s:o,s:I,s:s,s:I,s:o}", "n", (json_int_t)t->n_samples, "ids", ids,
			   "seed", (json_int_t)0, "data_sha256",
			   t->n_samples ? "0123456789abcdef0123456789abcdef0123456789abcdef0123456"
					  "789abcdef"
					: "",
			   "n_tokens", (json_int_t)(t->n_samples * 8), "checkpoints", points));
	toy_inputs(w, t);
	toy_points(w, t);
	if (t->n_sketch)
		toy_sketch(w, t);
	if (t->n_blocks)
		toy_plan(w, t);
	toy_weights(w, t);
	assert_int_equal(vq_writer_end(w, &err), VQ_OK);
	vq_writer_close(w);
	close(fd);
	json_decref(header);
	json_decref(model);
}

#endif
