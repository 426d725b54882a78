/* task/prune: order, rule, how many, which; parameter counts of the 7B and 13B shapes; scores from files; perplexity. */
#include <math.h>

#include "base/mem.h"
#include "folder.h"
#include "model/names.h"
#include "model/sampler.h"
#include "task/prune_file.h"
#include "task/prune_run.h"
#include "emulated.h"

#define DEMO "pipelines/demo"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct vq_config llama(uint32_t hidden, uint32_t inter, uint32_t heads, uint32_t layers)
{
	struct vq_config c = {.decoder = {.layer = {.hidden = hidden,
						    .inter = inter,
						    .n_heads = heads,
						    .n_kv_heads = heads,
						    .head_dim = hidden / heads,
						    .norm = VQ_NORM_RMS,
						    .gated = 1},
					  .n_layers = layers,
					  .vocab = 32000}};

	return c;
}

/* The published files: 5.5B, 3.7B, 2.7B and 1.5B of LLaMA-7B, 10.5B of LLaMA-13B (arXiv 2402.02834). */
static void parameter_counts_are_the_published_ones(void **state)
{
	static const struct {
		uint32_t n;
		uint64_t params;
	} want[] = {{32, 6738415616}, {31, 6536032256}, {26, 5524115456},
		    {17, 3702665216}, {12, 2690748416}, {6, 1476448256}};
	struct vq_config c = llama(4096, 11008, 32, 32), big = llama(5120, 13824, 40, 40);
	uint64_t got;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(want); i++) {
		assert_int_equal(vq_prune_params(&c, NULL, want[i].n, &got, NULL), VQ_OK);
		assert_true(got == want[i].params);
	}
	assert_int_equal(vq_prune_params(&big, NULL, 40, &got, NULL), VQ_OK);
	assert_true(got == 13015864320);
	assert_int_equal(vq_prune_params(&big, NULL, 32, &got, NULL), VQ_OK);
	assert_true(got == 10478228480);
}

static void equals_keep_their_order_and_what_is_no_number_goes_last(void **state)
{
	const double score[] = {3, NAN, 1, INFINITY, 1, -2, NAN, 3};
	const uint32_t want[] = {5, 2, 4, 0, 7, 3, 1, 6};
	uint32_t got[COUNT(score)];

	(void)state;
	vq_prune_order(score, COUNT(score), got);
	assert_memory_equal(got, want, sizeof(want));
}

static void the_first_four_and_the_last_two_stay_unless_told(void **state)
{
	const uint32_t order[] = {0, 8, 9, 4, 1, 7, 2, 3, 5, 6}, kept[] = {0, 1, 2, 3, 5, 6, 8, 9},
		       without[] = {1, 2, 3, 4, 5, 6, 7, 9};
	uint32_t all[COUNT(order)], i;
	const struct vq_blocks alive = {all, COUNT(order)};
	struct vq_prune_opts o = {.no_keep = 0};
	struct vq_blocks b;

	(void)state;
	for (i = 0; i < COUNT(order); i++)
		all[i] = i;
	assert_int_equal(vq_prune_choose(&o, &alive, order, COUNT(order), 2, &b, NULL), VQ_OK);
	assert_int_equal(b.n, COUNT(kept));
	assert_memory_equal(b.v, kept, sizeof(kept));
	vq_blocks_free(&b);
	o.no_keep = 1;
	assert_int_equal(vq_prune_choose(&o, &alive, order, COUNT(order), 2, &b, NULL), VQ_OK);
	assert_int_equal(b.n, COUNT(without));
	assert_memory_equal(b.v, without, sizeof(without));
	vq_blocks_free(&b);
}

static void sizes_in_weights_are_the_nearest_model(void **state)
{
	static const struct {
		uint64_t params;
		uint32_t removed;
	} want[] = {{5500000000, 6}, {3700000000, 15}, {2700000000, 20}, {1500000000, 26}};
	struct vq_config c = llama(4096, 11008, 32, 32);
	uint64_t one, two;
	uint32_t n;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(want); i++) {
		struct vq_prune_opts o = {.params = want[i].params};

		assert_int_equal(vq_prune_count(&o, &c, &n, NULL), VQ_OK);
		assert_int_equal(n, want[i].removed);
	}
	/* In the middle of two, the smaller. */
	assert_int_equal(vq_prune_params(&c, NULL, 20, &one, NULL), VQ_OK);
	assert_int_equal(vq_prune_params(&c, NULL, 21, &two, NULL), VQ_OK);
	assert_int_equal(
		vq_prune_count(&(struct vq_prune_opts){.params = (one + two) / 2}, &c, &n, NULL),
		VQ_OK);
	assert_int_equal(n, 12);
}

static void numbers_that_cannot_be_had_are_refused_with_the_range(void **state)
{
	static const struct {
		struct vq_prune_opts o;
		const char *says;
	} bad[] = {
		{{.n = 27}, "-n: want 1..26"},
		{{.n = 32, .no_keep = 1}, "-n: want 1..31"},
		{{.ratio = 0.01}, "--ratio: want 1..26"},
		{{.ratio = 1}, "--ratio: want 1..26"},
		{{.params = 6700000000}, "--params: want 1..26"},
		{{.params = 1}, "--params: want 1..26"},
	};
	struct vq_config c = llama(4096, 11008, 32, 32), small = llama(64, 128, 2, 6);
	struct vq_err err;
	uint32_t n;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(bad); i++) {
		memset(&err, 0, sizeof(err));
		assert_int_equal(vq_prune_count(&bad[i].o, &c, &n, &err), VQ_E_USAGE);
		assert_true(strncmp(err.text, bad[i].says, strlen(bad[i].says)) == 0);
	}
	memset(&err, 0, sizeof(err));
	assert_int_equal(vq_prune_count(&(struct vq_prune_opts){.n = 1}, &small, &n, &err),
			 VQ_E_USAGE);
	assert_non_null(strstr(err.text, "none of the model's 6 blocks"));
}

static void a_ratio_is_rounded_down(void **state)
{
	struct vq_config c = llama(4096, 11008, 32, 32);
	uint32_t n;

	(void)state;
	assert_int_equal(vq_prune_count(&(struct vq_prune_opts){.ratio = 0.2}, &c, &n, NULL),
			 VQ_OK);
	assert_int_equal(n, 6);
}

static void a_list_by_hand_has_numbers_and_ranges(void **state)
{
	static const char *const bad[] = {
		"",   "a",  "8",    "3-2", "1,1", "1-3,2", "0-7",
		"1,", ",1", "1--2", "-1",  "1-",  "1 ",    "00000000000000000000000000000000001"};
	const uint32_t want[] = {0, 1, 6};
	struct vq_prune_opts o = {.blocks = "2,4-5,7,3"};
	struct vq_blocks b;
	size_t i;

	(void)state;
	assert_int_equal(vq_prune_by_hand(&o, 8, &b, NULL), VQ_OK);
	assert_int_equal(b.n, COUNT(want));
	assert_memory_equal(b.v, want, sizeof(want));
	vq_blocks_free(&b);
	for (i = 0; i < COUNT(bad); i++) {
		struct vq_err err = {0};

		o.blocks = bad[i];
		if (vq_prune_by_hand(&o, 8, &b, &err) != VQ_E_USAGE)
			fail_msg("'%s' was taken", bad[i]);
		assert_non_null(strstr(err.text, "--blocks wants blocks of 0..7"));
	}
}

static void a_tensor_of_a_kept_layer_has_its_old_number(void **state)
{
	const uint32_t kept[] = {0, 3, 11};
	struct vq_name n = {.name = "decoder.layers.2.q_proj.weight"};

	(void)state;
	vq_names_from_layer(&n, kept);
	assert_string_equal(n.name, "decoder.layers.11.q_proj.weight");
	strcpy(n.name, "vision.layers.2.q_proj.weight");
	vq_names_from_layer(&n, kept);
	assert_string_equal(n.name, "vision.layers.2.q_proj.weight");
}

/* --- scores from a file --- */

static void refused_file(const char *text, const char *says)
{
	struct vq_err err = {0};
	double score[3];

	put_text("scores.csv", text);
	if (vq_prune_file(in_folder("scores.csv"), 3, score, &err) != VQ_E_DATA)
		fail_msg("taken: %s", text);
	assert_says(&err, SAYS("scores.csv", says));
}

static void scores_come_in_every_published_form(void **state)
{
	static const char *const same[] = {
		"block_name,block_score\nmodel.layers.0,3.5\nmodel.layers.1,-1\n"
		"model.layers.2,inf\nmodel.norm.weight,9\nlm_head.weight,1\n",
		"rank,block_name,block_score,block_index\r\n1,model.layers.1,-1,1\r\n"
		"2,model.layers.0,3.5,0\r\n3,model.layers.2,inf,2\r\n",
		"block_name,all_weight_scores\nmodel.layers.0,1,2,0.5\nmodel.layers.1,1,-3,1\n"
		"model.layers.2,0,0,inf",
		"removed_block,ppl_x,num_calib_data,params\n2.0,inf,10.0,6536032256.0\n"
		"0.0,3.5,10.0,1\n1.0,-1,10.0,1\n",
		"weight_name,weight_score\nmodel.layers.0.self_attn.q_proj.weight,3\n"
		"model.layers.0.mlp.up_proj.weight,0.5\nmodel.layers.1.a,0\nmodel.layers.1.b,-1\n"
		"model.layers.2.a,inf\nmodel.layers.2.b,1\nlm_head.weight,50\n",
	};
	double score[3];
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(same); i++) {
		put_text("scores.csv", same[i]);
		assert_int_equal(vq_prune_file(in_folder("scores.csv"), 3, score, NULL), VQ_OK);
		assert_true(score[0] == 3.5 && score[1] == -1 && isinf(score[2]));
	}
	put_text("scores.csv", "1,0,2\r\n");
	assert_int_equal(vq_prune_file(in_folder("scores.csv"), 3, score, NULL), VQ_OK);
	assert_true(score[1] == 0 && score[0] == 1 && score[2] == 2);
}

static void files_that_are_no_scores_are_refused_with_the_line(void **state)
{
	(void)state;
	refused_file("", "line 1: want the columns");
	refused_file("name,score\n", "line 1: want the columns");
	refused_file("block_name,block_score\n", "block 0 comes 0 times");
	refused_file("block_name,block_score\n0,1\n1,2\n2\n",
		     "line 4: want a score, got 'nothing'");
	refused_file("block_name,block_score\n0,1\n1,2\n2,x\n", "line 4: want a score, got 'x'");
	refused_file("block_name,block_score\n0,1\n1,2\n2,1\n1,2\n", "block 1 comes 2 times");
	refused_file("block_name,block_score\n0,1\n3,2\n",
		     "line 3: want a block of the model's 0..2");
	refused_file("block_name,block_score\n0.5,1\n", "line 2: want a block of the model's 0..2");
	refused_file("block_name,block_score\nmodel.layers.x.y,1\n", "line 2: want a block");
	refused_file("block_name,block_score\nmodel.layers.99999999999999999999,1\n", "line 2");
	refused_file("block_name,block_score\n,1\n", "line 2: want a block");
	refused_file(
		"weight_name,weight_score\nmodel.layers.0.a,1\nmodel.layers.0.b,1\n"
		"model.layers.1.a,1\nmodel.layers.2.a,1\nmodel.layers.2.b,1\n",
		"block 1 comes 1 times; want each of the model's 3 blocks as often as the first");
	refused_file("0,1\n2,3\n", "line 1: want the columns");
	refused_file("0,1\n", "block 2 comes 0 times");
	refused_file("0,1,1,2\n", "block 1 comes 2 times");
	refused_file("0,1,x\n", "line 1: want a block, got 'x'");
	refused_file("0,1,3\n", "line 1: want a block of the model's 0..2");
}

/* --- perplexity --- */

static struct {
	struct vq_ckpt *ckpt;
	struct vq_config cfg;
	struct vq_prune_samples samples;
	struct vq_prune_run run;
} demo;

static int open_demo(void **state)
{
	struct vq_prune_opts o = {
		.data = DEMO "/mini-sqa/llava_train_calib_CQM-A.json", .samples = 6, .answers = 1};
	struct vq_err err = {0};

	(void)state;
	if (vq_ckpt_open(&demo.ckpt, DEMO "/mini-llava", &err) < 0 ||
	    vq_config_from_ckpt(&demo.cfg, demo.ckpt, NULL, &err) < 0 ||
	    vq_prune_samples_open(&demo.samples, &o, demo.ckpt, &demo.cfg, &err) < 0 ||
	    vq_prune_run_open(&demo.run, &demo.cfg, demo.ckpt, &demo.samples, &err) < 0) {
		print_error("%s\n", err.text);
		return -1;
	}
	return 0;
}

static int close_demo(void **state)
{
	(void)state;
	vq_prune_run_close(&demo.run);
	vq_prune_samples_close(&demo.samples);
	vq_ckpt_close(demo.ckpt);
	return 0;
}

/* One sample at a time, every block but `without`, the losses of all rows: nothing is shared. */
static double plain_ppl(uint32_t without)
{
	const struct vq_model *m = &demo.run.model;
	uint32_t i, b, t, d = demo.run.width, vocab = demo.cfg.decoder.vocab, n = 0;
	float *logits = vq_alloc_f32(vocab, NULL);
	double sum = 0;

	for (i = 0; i < demo.samples.n; i++) {
		const struct vq_prompt *p = &demo.samples.prompts[i];
		uint32_t start[2] = {0, p->n_tokens};
		struct vq_batch batch = {1, start};
		size_t n_img = (size_t)p->n_images * demo.cfg.n_image_tokens;
		float *image = vq_alloc_f32(n_img * d, NULL),
		      *h = vq_alloc_f32((size_t)p->n_tokens * d, NULL);

		assert_int_equal(
			n_img ? vq_vision_encode(m, p->pixels, p->n_images, image, NULL) : 0, 0);
		assert_int_equal(vq_decoder_embed(m, p->tokens, p->n_tokens, image, n_img, h, NULL),
				 0);
		for (b = 0; b < demo.cfg.decoder.n_layers; b++)
			if (b != without)
				assert_int_equal(vq_layer_forward(&m->decoder.layers[b], h, &batch,
								  NULL, NULL),
						 0);
		for (t = demo.samples.target[i]; t < p->n_tokens; t++, n++) {
			uint32_t row = t - 1;

			assert_int_equal(vq_decoder_logits(m, h, &row, 1, logits, NULL), 0);
			sum -= vq_log_prob(logits, vocab, p->tokens[t]);
		}
		vq_free(image);
		vq_free(h);
	}
	vq_free(logits);
	assert_true(n > 0);
	return exp(sum / n);
}

/* In an emulator without the first block and without the last. */
static void perplexity_without_a_block_is_that_of_the_model_run_without_it(void **state)
{
	uint32_t all[5] = {0, 1, 2, 3, 4}, i, k;
	const struct vq_blocks alive = {all, 5};
	const size_t one = (size_t)demo.run.rows * demo.run.width * sizeof(float);
	double score[5], other[5];

	(void)state;
	assert_int_equal(demo.cfg.decoder.n_layers, 5);
	assert_int_equal(vq_prune_ppl(&demo.run, &alive, 100 * one, score, NULL), VQ_OK);
	for (i = 0; i < 5; i += stride(4)) {
		double want = plain_ppl(i);

		if (fabs(score[i] / want - 1) > 1e-5)
			fail_msg("without block %u: want %.9g, got %.9g", i, want, score[i]);
	}
	/* However many models run together. */
	for (k = 0; k <= 3; k += stride(3)) {
		assert_int_equal(vq_prune_ppl(&demo.run, &alive, k * one + 1, other, NULL), VQ_OK);
		assert_memory_equal(score, other, sizeof(score));
	}
}

static void of_a_model_that_lacks_blocks_already_only_the_rest_is_scored(void **state)
{
	uint32_t some[3] = {0, 1, 4};
	const struct vq_blocks alive = {some, 3};
	float *h = vq_alloc_f32((size_t)demo.run.rows * demo.run.width, NULL);
	double score[3], want;

	(void)state;
	assert_int_equal(vq_prune_ppl(&demo.run, &alive, 1 << 20, score, NULL), VQ_OK);
	memcpy(h, demo.run.h0, (size_t)demo.run.rows * demo.run.width * sizeof(float));
	assert_int_equal(vq_prune_run_block(&demo.run, 0, h, 1, NULL), VQ_OK);
	assert_int_equal(vq_prune_run_block(&demo.run, 4, h, 1, NULL), VQ_OK);
	assert_int_equal(vq_prune_run_ppl(&demo.run, h, &want, NULL), VQ_OK);
	assert_true(score[1] == want);
	vq_free(h);
}

/* A head of zeroes makes every token as likely as any other. */
static void uniform_logits_have_the_perplexity_of_the_vocabulary(void **state)
{
	size_t n = (size_t)demo.cfg.decoder.vocab * demo.run.width;
	float *zero = vq_calloc(n, sizeof(*zero), NULL);
	struct vq_tensor t = {VQ_F32, 2, {demo.cfg.decoder.vocab, demo.run.width}, zero}, old;
	struct vq_name name = {.name = "decoder.head.weight",
			       .n_dims = 2,
			       .dims = {demo.cfg.decoder.vocab, demo.run.width}};
	double ppl;

	(void)state;
	assert_int_equal(vq_names_find(&demo.cfg, demo.ckpt, &name, &old, NULL), VQ_OK);
	assert_int_equal(vq_model_bind(&demo.run.model, name.name, &t, NULL), VQ_OK);
	assert_int_equal(vq_prune_run_ppl(&demo.run, demo.run.h0, &ppl, NULL), VQ_OK);
	assert_true(fabs(ppl / demo.cfg.decoder.vocab - 1) < 1e-12);
	assert_int_equal(vq_model_bind(&demo.run.model, name.name, &old, NULL), VQ_OK);
	vq_free(zero);
}

/* The answer's tokens and the end token, none of the question's; with every token of text, no token of a picture. */
static void targets_are_answers_or_all_text(void **state)
{
	struct vq_prune_opts o = {.data = DEMO "/mini-sqa/llava_train_calib_CQM-A.json",
				  .samples = 6};
	struct vq_prune_samples s;
	uint32_t i, t, n = 0, pictures = 0;

	(void)state;
	for (i = 0; i < demo.samples.n; i++)
		for (t = 0; t < demo.samples.prompts[i].n_tokens; t++)
			n += (uint32_t)vq_prune_target(&demo.samples, &demo.cfg, i, t);
	assert_int_equal(n, 2 * demo.samples.n); /* a letter and the end */
	assert_int_equal(vq_prune_samples_open(&s, &o, demo.ckpt, &demo.cfg, NULL), VQ_OK);
	for (i = n = 0; i < s.n; i++)
		for (t = 0; t < s.prompts[i].n_tokens; t++) {
			int picture = s.prompts[i].tokens[t] == demo.cfg.image_token;

			pictures += (uint32_t)picture;
			n += (uint32_t)vq_prune_target(&s, &demo.cfg, i, t);
			assert_true(vq_prune_target(&s, &demo.cfg, i, t) == (t > 0 && !picture));
		}
	assert_true(pictures > 0);
	assert_int_equal(n + pictures + s.n, s.start[s.n]);
	vq_prune_samples_close(&s);
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, folder_setup, folder_teardown)
#define WITH_DEMO(f) cmocka_unit_test_setup_teardown(f, open_demo, close_demo)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parameter_counts_are_the_published_ones),
		cmocka_unit_test(equals_keep_their_order_and_what_is_no_number_goes_last),
		cmocka_unit_test(the_first_four_and_the_last_two_stay_unless_told),
		cmocka_unit_test(sizes_in_weights_are_the_nearest_model),
		cmocka_unit_test(numbers_that_cannot_be_had_are_refused_with_the_range),
		cmocka_unit_test(a_ratio_is_rounded_down),
		cmocka_unit_test(a_list_by_hand_has_numbers_and_ranges),
		cmocka_unit_test(a_tensor_of_a_kept_layer_has_its_old_number),
		IN_FOLDER(scores_come_in_every_published_form),
		IN_FOLDER(files_that_are_no_scores_are_refused_with_the_line),
		WITH_DEMO(perplexity_without_a_block_is_that_of_the_model_run_without_it),
		WITH_DEMO(of_a_model_that_lacks_blocks_already_only_the_rest_is_scored),
		WITH_DEMO(uniform_logits_have_the_perplexity_of_the_vocabulary),
		WITH_DEMO(targets_are_answers_or_all_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
