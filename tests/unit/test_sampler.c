/* Choosing tokens from logits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "model/sampler.h"

static const float logits[] = {0.5f, 2.0f, -1.0f, 2.0f, 0.0f};

enum { N = 5 };

static double share(int i, double temperature)
{
	double sum = 0;
	int j;

	for (j = 0; j < N; j++)
		sum += exp(logits[j] / temperature);
	return exp(logits[i] / temperature) / sum;
}

static void greedy_takes_the_first_of_the_largest(void **state)
{
	(void)state;
	assert_int_equal(vq_sample_greedy(logits, N), 1);
	assert_int_equal(vq_sample_greedy(logits, 1), 0);
}

static void draws_follow_the_softmax(void **state)
{
	static const double temperatures[] = {0.5, 1.0, 3.0};
	struct vq_rng r = vq_rng_new(1, "sampler");
	enum { DRAWS = 40000 };
	size_t t;
	int i;

	(void)state;
	for (t = 0; t < 3; t++) {
		int count[N] = {0};

		for (i = 0; i < DRAWS; i++)
			count[vq_sample(logits, N, temperatures[t],
					vq_rng_uniform(r, t * DRAWS + (uint64_t)i))]++;
		for (i = 0; i < N; i++) { /* five standard deviations of a binomial share */
			double p = share(i, temperatures[t]);

			assert_true(fabs((double)count[i] / DRAWS - p) <
				    5 * sqrt(p * (1 - p) / DRAWS));
		}
	}
}

static void the_ends_of_the_unit_interval_are_tokens(void **state)
{
	(void)state;
	assert_int_equal(vq_sample(logits, N, 1.0, 0.0), 0);
	assert_int_equal(vq_sample(logits, N, 1.0, 1.0 - 0x1p-53), N - 1);
	/* a tiny temperature does not overflow */
	assert_true(vq_sample(logits, N, 1e-6, 0.999) == 3);
}

static void log_probabilities_are_those_of_the_softmax(void **state)
{
	const float far[] = {1000.0f, 0.0f};
	int i;

	(void)state;
	for (i = 0; i < N; i++)
		assert_true(fabs(vq_log_prob(logits, N, i) - log(share(i, 1.0))) < 1e-9);
	assert_true(vq_log_prob(far, 2, 0) == 0.0);
	assert_true(fabs(vq_log_prob(far, 2, 1) + 1000.0) < 1e-9);
}

static void logits_that_are_no_numbers_are_refused(void **state)
{
	float bad[N];
	struct vq_err err = {0};

	(void)state;
	memcpy(bad, logits, sizeof(bad));
	assert_int_equal(vq_logits_check(bad, N, &err), VQ_OK);
	bad[2] = NAN;
	assert_int_equal(vq_logits_check(bad, 2, &err), VQ_OK);
	assert_int_equal(vq_logits_check(bad, N, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "token 2"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(greedy_takes_the_first_of_the_largest),
		cmocka_unit_test(draws_follow_the_softmax),
		cmocka_unit_test(the_ends_of_the_unit_interval_are_tokens),
		cmocka_unit_test(log_probabilities_are_those_of_the_softmax),
		cmocka_unit_test(logits_that_are_no_numbers_are_refused),
	};

	return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
