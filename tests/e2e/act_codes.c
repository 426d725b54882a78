/* act_codes MODEL.vqm GOLDEN.safetensors OUT: runs a packed model over the questions of golden vectors and writes, to
 * OUT/ID.codes, what the input of each linear became, in order of execution:
 *
 *   i32 rows, n, groups;  f32 x [rows, n];  i8 q [rows, n];  f32 scale [rows, groups];  i32 zero [rows, groups]
 *
 * It is linked with --wrap=vq_act_quantize, so that the codes are the very ones that the products run on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/safetensors.h"
#include "model/packed.h"

void __real_vq_act_quantize(const struct vq_agrid *g, const float *x, struct vq_qact *a);
void __wrap_vq_act_quantize(const struct vq_agrid *g, const float *x, struct vq_qact *a);

static FILE *out;

static void die(const char *what, const struct vq_err *err)
{
	fprintf(stderr, "act_codes: %s%s\n", what, err ? err->text : "");
	exit(4);
}

static void put(const void *data, size_t size, size_t n)
{
	if (fwrite(data, size, n, out) != n)
		die("cannot write", NULL);
}

void __wrap_vq_act_quantize(const struct vq_agrid *g, const float *x, struct vq_qact *a)
{
	uint32_t r;

	__real_vq_act_quantize(g, x, a);
	put((const uint32_t[]){a->n_rows, a->n, a->n_groups}, sizeof(uint32_t), 3);
	put(x, sizeof(*x), (size_t)a->n_rows * a->n);
	for (r = 0; r < a->n_rows; r++)
		put(a->q + (size_t)r * a->stride, 1, a->n);
	put(a->scale, sizeof(*a->scale), (size_t)a->n_rows * a->n_groups);
	put(a->zero, sizeof(*a->zero), (size_t)a->n_rows * a->n_groups);
}

static const struct vq_tensor *golden(const struct vq_st *st, const char *id, const char *what)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.%s", id, what);
	return vq_st_find(st, name);
}

static void run(const struct vq_model *m, const struct vq_st *st, const char *id)
{
	const struct vq_tensor *pixels = golden(st, id, "pixel_values");
	const struct vq_tensor *ids = golden(st, id, "input_ids");
	uint32_t n = (uint32_t)ids->dims[0], start[] = {0, n}, n_image = 0;
	struct vq_err err = {0};
	float *image = NULL, *h = vq_alloc_f32((size_t)n * m->cfg.decoder.layer.hidden, &err);

	if (!h)
		die("", &err);
	if (pixels) {
		n_image = m->cfg.n_image_tokens;
		image = vq_alloc_f32((size_t)n_image * m->cfg.projector.out, &err);
		if (!image || vq_vision_encode(m, pixels->data, 1, image, &err) < 0)
			die("", &err);
	}
	if (vq_decoder_embed(m, ids->data, n, image, n_image, h, &err) < 0 ||
	    vq_decoder_layers(m, h, &(struct vq_batch){1, start}, NULL, &err) < 0)
		die("", &err);
	vq_free(image);
	vq_free(h);
}

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	struct vq_vqm vqm;
	struct vq_model m;
	struct vq_st st;
	size_t i;

	if (argc != 4)
		die("usage: act_codes MODEL.vqm GOLDEN.safetensors OUT", NULL);
	if (vq_vqm_open(&vqm, argv[1], 1, &err) < 0 || vq_model_from_vqm(&m, &vqm, &err) < 0 ||
	    vq_st_open(&st, argv[2], VQ_E_SYS, &err) < 0)
		die("", &err);
	for (i = 0; i < st.n; i++) {
		char *dot = strchr(st.entries[i].name, '.'), id[32], path[4096];

		if (!dot || strcmp(dot, ".input_ids") != 0)
			continue;
		snprintf(id, sizeof(id), "%.*s", (int)(dot - st.entries[i].name),
			 st.entries[i].name);
		snprintf(path, sizeof(path), "%s/%s.codes", argv[3], id);
		out = fopen(path, "wb");
		if (!out)
			die("cannot write ", NULL);
		run(&m, &st, id);
		if (fclose(out) != 0)
			die("cannot write", NULL);
	}
	vq_st_close(&st);
	vq_model_free(&m);
	vq_vqm_close(&vqm);
	return 0;
}
