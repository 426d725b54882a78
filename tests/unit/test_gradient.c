/* model/gradient, model/loss: against central differences of the loss, on a small LLaMA of two blocks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <omp.h>
#include <cmocka.h>

#include "base/mem.h"
#include "kernel/gemm_back.h"
#include "model/gradient.h"
#include "random_layer.h"

#define LAYERS 2
#define VOCAB  40
#define ROWS   13

static const uint32_t starts[] = {0, 6, ROWS}; /* two sequences */
static const struct vq_batch batch = {2, starts};
static const float weights[] = {0.3f, 0.7f};

/* Two random blocks, a final norm and a head. */
struct small {
	struct random_layer made[LAYERS];
	struct vq_layer layers[LAYERS];
	struct vq_model m;
	int32_t targets[ROWS];
	float *norm, *head, *h;
	float *teacher; /* NULL, or the caller's */
};

static void small_new(struct small *s)
{
	uint32_t i, d;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < LAYERS; i++) {
		random_layer_new(&s->made[i], 1, 1000 * (i + 1));
		s->layers[i] = s->made[i].layer;
	}
	d = s->made[0].cfg.hidden;
	s->norm = random_rows(d, 0.2, 7);
	for (i = 0; i < d; i++)
		s->norm[i] += 1;
	s->head = random_rows((size_t)VOCAB * d, 1 / sqrt(d), 8);
	s->h = random_rows((size_t)ROWS * d, 1, 9);
	for (i = 0; i < ROWS; i++)
		s->targets[i] = i % 5 == 3 ? VQ_NO_TARGET : (int32_t)(i * 7 % VOCAB);
	s->m.cfg.decoder.layer = s->made[0].cfg;
	s->m.cfg.decoder.n_layers = LAYERS;
	s->m.cfg.decoder.vocab = VOCAB;
	s->m.decoder.layers = s->layers;
	s->m.decoder.norm = s->norm;
	s->m.decoder.head = (struct vq_linear){
		.n_out = VOCAB, .n_in = d, .dtype = VQ_F32, .w = s->head, .act = {.bits = 16}};
}

static void small_free(struct small *s)
{
	uint32_t i;

	for (i = 0; i < LAYERS; i++)
		random_layer_free(&s->made[i]);
	vq_free(s->norm);
	vq_free(s->head);
	vq_free(s->h);
}

static float *copy_of_h(const struct small *s)
{
	size_t n = (size_t)ROWS * s->made[0].cfg.hidden;
	float *h = vq_alloc_f32(n, NULL);

	assert_non_null(h);
	memcpy(h, s->h, n * sizeof(float));
	return h;
}

static double loss_of(const struct small *s)
{
	struct vq_gradient q = {&s->m, &batch, {s->targets, s->teacher}, weights, .ctx = NULL};
	double nll[2];
	float *h = copy_of_h(s);

	assert_int_equal(vq_decoder_losses(&q, h, nll, NULL), VQ_OK);
	vq_free(h);
	return weights[0] * nll[0] + weights[1] * nll[1];
}

/* All gradients, kept. */
struct all {
	const struct small *s;
	uint32_t layer;
	float *lin[LAYERS][VQ_N_LINEARS];
	double *norm[LAYERS][2];
	uint32_t left; /* bit l: block l was left */
};

static int on_enter(void *ctx, uint32_t layer, struct vq_layer *l, struct vq_err *err)
{
	(void)l;
	(void)err;
	((struct all *)ctx)->layer = layer;
	return VQ_OK;
}

static int on_linear(void *ctx, enum vq_lin lin, uint32_t expert, const float *x, const float *g,
		     uint32_t n, struct vq_err *err)
{
	struct all *a = ctx;
	const struct vq_linear *l = &a->s->layers[a->layer].lin[lin];

	(void)expert;
	(void)err;
	vq_gemm_weight_grad(g, x, n, l->n_out, l->n_in, a->lin[a->layer][lin]);
	return VQ_OK;
}

static int on_norm(void *ctx, int second, const float *in, const float *g, uint32_t n,
		   struct vq_err *err)
{
	struct all *a = ctx;
	const struct vq_layer_config *c = &a->s->made[0].cfg;
	uint32_t i;

	(void)err;
	for (i = 0; i < n; i++)
		vq_norm_weight_adjoint(c->norm, c->eps, c->hidden, in + (size_t)i * c->hidden,
				       g + (size_t)i * c->hidden, a->norm[a->layer][second]);
	return VQ_OK;
}

static int on_leave(void *ctx, uint32_t layer, struct vq_err *err)
{
	(void)err;
	((struct all *)ctx)->left |= 1u << layer;
	return VQ_OK;
}

static void all_new(struct all *a, const struct small *s, float **to_input)
{
	struct vq_gradient q = {&s->m, &batch,   {s->targets, s->teacher}, weights,
				a,     on_enter, {on_linear, on_norm, a},  on_leave};
	double nll[2];
	uint32_t i, k;

	memset(a, 0, sizeof(*a));
	a->s = s;
	for (i = 0; i < LAYERS; i++) {
		for (k = 0; k < VQ_N_LINEARS; k++)
			a->lin[i][k] = vq_calloc((size_t)s->layers[i].lin[k].n_out *
							 s->layers[i].lin[k].n_in,
						 sizeof(float), NULL);
		for (k = 0; k < 2; k++)
			a->norm[i][k] = vq_calloc(s->made[0].cfg.hidden, sizeof(double), NULL);
	}
	*to_input = copy_of_h(s);
	assert_int_equal(vq_decoder_gradient(&q, *to_input, nll, NULL), VQ_OK);
	assert_int_equal(a->left, (1u << LAYERS) - 1);
	assert_true(fabs(weights[0] * nll[0] + weights[1] * nll[1] - loss_of(s)) < 1e-9);
}

static void all_free(struct all *a)
{
	uint32_t i, k;

	for (i = 0; i < LAYERS; i++) {
		for (k = 0; k < VQ_N_LINEARS; k++)
			vq_free(a->lin[i][k]);
		for (k = 0; k < 2; k++)
			vq_free(a->norm[i][k]);
	}
}

/* The derivative of the loss along v at w [n], by differences, beside g . v; both over |g|. */
static double off(const struct small *s, float *w, size_t n, const float *g)
{
	float *v = random_rows(n, 1, 77), *was = vq_alloc_f32(n, NULL);
	double t = 2e-3, got = 0, norm = 0, loss[2];
	size_t i;
	int side;

	assert_non_null(was);
	memcpy(was, w, n * sizeof(float));
	for (side = 0; side < 2; side++) {
		for (i = 0; i < n; i++)
			w[i] = (float)(was[i] + (side ? -t : t) * v[i]);
		loss[side] = loss_of(s);
	}
	memcpy(w, was, n * sizeof(float));
	for (i = 0; i < n; i++) {
		got += (double)g[i] * v[i];
		norm += (double)g[i] * g[i];
	}
	vq_free(v);
	vq_free(was);
	assert_true(norm > 0);
	return fabs(got - (loss[0] - loss[1]) / (2 * t)) / sqrt(norm);
}

static void check_gradients(int teacher)
{
	struct small s;
	struct all a;
	float *to_input;
	double worst = 0;
	uint32_t i, k, j, d;

	small_new(&s);
	d = s.made[0].cfg.hidden;
	if (teacher)
		s.teacher = random_rows((size_t)ROWS * d, 1, 10);
	all_new(&a, &s, &to_input);
	worst = off(&s, s.h, (size_t)ROWS * d, to_input);
	for (i = 0; i < LAYERS; i++) {
		for (k = 0; k < VQ_N_LINEARS; k++) {
			const struct vq_linear *l = &s.layers[i].lin[k];

			worst = fmax(worst, off(&s, s.made[i].weight[k], (size_t)l->n_out * l->n_in,
						a.lin[i][k]));
		}
		for (k = 0; k < 2; k++) {
			float *g = vq_alloc_f32(d, NULL);

			assert_non_null(g);
			for (j = 0; j < d; j++)
				g[j] = (float)a.norm[i][k][j];
			worst = fmax(worst, off(&s, s.made[i].norm[k], d, g));
			vq_free(g);
		}
	}
	print_message(
		"# figure: gradients of a two-block decoder %s against central differences: off "
		"by %.1e of their norms\n",
		teacher ? "with a teacher" : "without one", worst);
	assert_true(worst < 2e-3);
	vq_free(s.teacher);
	vq_free(to_input);
	all_free(&a);
	small_free(&s);
}

static void gradients_of_all_weights_and_the_input_equal_central_differences(void **state)
{
	(void)state;
	check_gradients(0);
}

static void gradients_towards_a_teacher_equal_central_differences(void **state)
{
	(void)state;
	check_gradients(1);
}

static void a_model_that_is_its_teacher_has_no_loss(void **state)
{
	struct small s;
	double nll = 1;

	(void)state;
	small_new(&s);
	assert_int_equal(vq_decoder_loss(&s.m, s.h, ROWS, &(struct vq_loss){s.targets, s.h}, &nll,
					 1, NULL, NULL),
			 VQ_OK);
	assert_true(nll == 0);
	small_free(&s);
}

static void gradients_have_the_same_bytes_for_any_number_of_threads(void **state)
{
	struct small s;
	struct all a[2];
	float *to_input[2];
	uint32_t i, k, t;
	int was = omp_get_max_threads();

	(void)state;
	small_new(&s);
	for (t = 0; t < 2; t++) {
		omp_set_num_threads(t ? 4 : 1);
		all_new(&a[t], &s, &to_input[t]);
	}
	omp_set_num_threads(was);
	assert_memory_equal(to_input[0], to_input[1],
			    (size_t)ROWS * s.made[0].cfg.hidden * sizeof(float));
	for (i = 0; i < LAYERS; i++)
		for (k = 0; k < VQ_N_LINEARS; k++)
			assert_memory_equal(a[0].lin[i][k], a[1].lin[i][k],
					    (size_t)s.layers[i].lin[k].n_out *
						    s.layers[i].lin[k].n_in * sizeof(float));
	for (t = 0; t < 2; t++) {
		vq_free(to_input[t]);
		all_free(&a[t]);
	}
	small_free(&s);
}

static void loss_of_equal_logits_is_the_logarithm_of_the_vocabulary(void **state)
{
	struct small s;
	double nll;
	float *h;

	(void)state;
	small_new(&s);
	memset(s.head, 0, (size_t)VOCAB * s.made[0].cfg.hidden * sizeof(float));
	h = copy_of_h(&s);
	assert_int_equal(vq_decoder_loss(&s.m, h, ROWS, &(struct vq_loss){s.targets, NULL}, &nll, 1,
					 NULL, NULL),
			 VQ_OK);
	assert_true(fabs(nll - 11 * log(VOCAB)) < 1e-6); /* rows 3 and 8 are asked for nothing */
	vq_free(h);
	small_free(&s);
}

static void a_target_out_of_the_vocabulary_is_refused(void **state)
{
	struct vq_err err = {0};
	struct small s;
	double nll;

	(void)state;
	small_new(&s);
	s.targets[2] = VOCAB;
	assert_int_equal(vq_decoder_loss(&s.m, s.h, ROWS, &(struct vq_loss){s.targets, NULL}, &nll,
					 1, NULL, &err),
			 VQ_E_DATA);
	assert_string_equal(err.text, "token 40 at 3: want 0..39");
	small_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gradients_of_all_weights_and_the_input_equal_central_differences),
		cmocka_unit_test(gradients_towards_a_teacher_equal_central_differences),
		cmocka_unit_test(a_model_that_is_its_teacher_has_no_loss),
		cmocka_unit_test(gradients_have_the_same_bytes_for_any_number_of_threads),
		cmocka_unit_test(loss_of_equal_logits_is_the_logarithm_of_the_vocabulary),
		cmocka_unit_test(a_target_out_of_the_vocabulary_is_refused),
	};

	return cmocka_run_group_tests_name("gradient", tests, NULL, NULL);
}
