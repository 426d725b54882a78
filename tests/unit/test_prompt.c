/* model/prompt: what the model reads, against golden token ids and pixels of the demo model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "format/checkpoint.h"
#include "format/safetensors.h"
#include "model/prompt.h"

#define DEMO "pipelines/demo/"

struct bench {
	struct vq_ckpt *k;
	struct vq_config c;
	struct vq_tokenizer *t;
	struct vq_dataset d;
	struct vq_err err;
};

static void read_tokenizer(struct bench *b, const char *name)
{
	char *data, *side;
	size_t n, n_side;

	assert_int_equal(vq_ckpt_file(b->k, name, &data, &n, &b->err), 1);
	assert_int_equal(vq_ckpt_file(b->k, "tokenizer_config.json", &side, &n_side, &b->err), 1);
	assert_int_equal(vq_tokenizer_new(&b->t, data, n, name, side, n_side, &b->err), VQ_OK);
	vq_free(data);
	vq_free(side);
}

static void set_up(struct bench *b, const char *model, const char *tokenizer)
{
	memset(b, 0, sizeof(*b));
	assert_int_equal(vq_ckpt_open(&b->k, model, &b->err), VQ_OK);
	assert_int_equal(vq_config_from_ckpt(&b->c, b->k, NULL, &b->err), VQ_OK);
	read_tokenizer(b, tokenizer);
	assert_int_equal(
		vq_dataset_open(&b->d, DEMO "mini-sqa/llava_test_CQM-A.json", NULL, &b->err),
		VQ_OK);
}

static void tear_down(struct bench *b)
{
	vq_dataset_close(&b->d);
	vq_tokenizer_free(b->t);
	vq_ckpt_close(b->k);
}

static const struct vq_item *item(const struct bench *b, const char *id)
{
	uint32_t i;

	for (i = 0; i < b->d.n; i++)
		if (strcmp(b->d.items[i].id, id) == 0)
			return &b->d.items[i];
	fail_msg("no item %s", id);
	return NULL;
}

/* The golden pixels come from u8 * (1/255) in float32; transformers multiplies in double, and so do we.
 * The float32 factor and product are each off by half a unit of 2^-24 in a number below 1, ours by half a
 * unit; that is divided by a std above 0.26, and both differences (below 2^-24) and both quotients (below
 * 4, so 2^-23) are rounded. */
#define PIXEL_BOUND ((1.5 * 0x1p-24 + 0x1p-24) / 0.26 + 2 * 0x1p-23)

/* Token ids and pixels of every golden question; returns how many pictures were among them. */
static int compare(const char *model, const char *golden, const char *tokenizer, double *worst)
{
	struct bench b;
	struct vq_st st;
	size_t i;
	int questions = 0, pictures = 0;

	set_up(&b, model, tokenizer);
	assert_int_equal(vq_st_open(&st, golden, VQ_E_SYS, &b.err), VQ_OK);
	for (i = 0; i < st.n; i++) {
		const struct vq_tensor *ids = &st.entries[i].t, *px;
		const struct vq_item *it;
		struct vq_prompt p;
		char name[64], *image;
		char *dot = strstr(st.entries[i].name, ".input_ids");

		if (!dot)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(dot - st.entries[i].name),
			 st.entries[i].name);
		it = item(&b, name);
		image = vq_dataset_image(&b.d, it, &b.err);
		assert_int_equal(vq_prompt_build(&p, &b.c, b.t, it->text, image, &b.err), VQ_OK);
		assert_int_equal(p.n_tokens, ids->dims[0]);
		assert_memory_equal(p.tokens, ids->data, 4 * p.n_tokens);
		snprintf(name + strlen(name), 16, ".pixel_values");
		px = vq_st_find(&st, name);
		assert_true((px != NULL) == (image != NULL));
		assert_int_equal(p.n_images, px ? 1 : 0);
		for (size_t j = 0; px && j < (size_t)3 * 56 * 56; j++) {
			float want;

			memcpy(&want, (const char *)px->data + 4 * j, 4);
			*worst = fmax(*worst, fabs((double)p.pixels[j] - want));
		}
		questions++;
		pictures += px != NULL;
		vq_prompt_free(&p);
		vq_free(image);
	}
	assert_int_equal(questions, 8);
	vq_st_close(&st);
	tear_down(&b);
	return pictures;
}

static void golden_token_ids_and_pixels_are_met(void **state)
{
	static const char *const tokenizers[] = {"tokenizer.json", "tokenizer.model"};
	double worst = 0;
	int i, pictures = 0;

	(void)state;
	for (i = 0; i < 2; i++) {
		pictures += compare(DEMO "mini-llava", DEMO "golden/golden.safetensors",
				    tokenizers[i], &worst);
		pictures +=
			compare(DEMO "mini-llava-outlier", DEMO "golden/golden-outlier.safetensors",
				tokenizers[i], &worst);
	}
	assert_true(pictures > 0 && worst <= PIXEL_BOUND);
	print_message("# figure: input_ids of 8 golden questions x 2 models x 2 tokenizer files "
		      "identical; pixels of %d pictures within %.1e\n",
		      pictures, worst);
}

static void refused(struct bench *b, const char *question, const char *image, const char *why)
{
	struct vq_prompt p;

	memset(&b->err, 0, sizeof(b->err));
	assert_int_equal(vq_prompt_build(&p, &b->c, b->t, question, image, &b->err), VQ_E_DATA);
	if (!strstr(b->err.text, why))
		fail_msg("'%s' does not say '%s'", b->err.text, why);
}

static void question_and_picture_must_agree(void **state)
{
	static const char picture[] = DEMO "mini-sqa/images/test/3/image.png";
	struct bench b;
	static char words[4096];
	size_t i;

	(void)state;
	set_up(&b, DEMO "mini-llava", "tokenizer.json");
	refused(&b, "<image>\nWhat?", NULL, "has '<image>' but no picture");
	refused(&b, "What?", picture, "images/test/3/image.png: the question has no '<image>'");
	refused(&b, "<image><image>", picture, "2 '<image>'");
	refused(&b, "<image>\nWhat?", "none/such.png", "none/such.png: cannot open");
	refused(&b, "<image>\nWhat?", "Makefile", "Makefile: want a PNG or JPEG");
	for (i = 0; i + 2 < sizeof(words); i += 2)
		memcpy(words + i, "q ", 2);
	refused(&b, words, NULL, "the model reads at most 512");
	b.c.has_vision = 0;
	refused(&b, "<image>\nWhat?", picture, "reads no pictures");
	tear_down(&b);
}

static void a_tokenizer_without_image_token_gives_the_same_prompt(void **state)
{
	static const char picture[] = DEMO "mini-sqa/images/test/3/image.png";
	struct bench b;
	struct vq_prompt with, without;
	char *data;
	size_t n;

	(void)state;
	set_up(&b, DEMO "mini-llava", "tokenizer.json");
	assert_int_equal(vq_prompt_build(&with, &b.c, b.t, "<image>\nWhat?", picture, &b.err),
			 VQ_OK);
	vq_tokenizer_free(b.t);
	assert_int_equal(vq_ckpt_file(b.k, "tokenizer.model", &data, &n, &b.err), 1);
	assert_int_equal(vq_tokenizer_new(&b.t, data, n, "tokenizer.model", NULL, 0, &b.err),
			 VQ_OK);
	assert_int_equal(vq_tokenizer_id(b.t, "<image>"), -1);
	assert_int_equal(vq_prompt_build(&without, &b.c, b.t, "<image>\nWhat?", picture, &b.err),
			 VQ_OK);
	assert_int_equal(without.n_tokens, with.n_tokens);
	assert_memory_equal(without.tokens, with.tokens, 4 * with.n_tokens);
	vq_prompt_free(&with);
	vq_prompt_free(&without);
	vq_free(data);
	tear_down(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_token_ids_and_pixels_are_met),
		cmocka_unit_test(question_and_picture_must_agree),
		cmocka_unit_test(a_tokenizer_without_image_token_gives_the_same_prompt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
