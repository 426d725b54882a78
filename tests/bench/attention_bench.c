/* Speed of attention beside the machine's limits: prefill and vision in GFLOP/s of what a row must read (4 T (T + 1) / 2 d
 * operations a head when causal, 4 T T d when not) beside the peak of float32 products, decode in GB/s of keys and
 * values beside what the same threads read from memory.  Medians of several runs; one thread on its processor
 * clock, several on the wall's. */
#include <stdio.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernel/cpu.h"
#include "limits.h"
#include "model/attention.h"

#define RUNS   7
#define DECODE 2048u
#define CACHE  ((size_t)192 << 20) /* bytes that decode goes through, more than any cache holds */

static int n_threads;

static void *must(void *p)
{
	if (!p)
		exit(4);
	return p;
}

/* --- attention --- */

static float *rows(size_t n, const char *what)
{
	struct vq_rng r = vq_rng_new(1, what);
	float *x = must(vq_alloc_f32(n, NULL));
	size_t i;

	for (i = 0; i < n; i++)
		x[i] = (float)vq_rng_normal(r, i % 65536);
	return x;
}

static const char *const type_names[] = {"float32", "float16", "int8"};

static void prefill(const char *what, uint32_t t, uint32_t heads, uint32_t kv_heads, uint32_t dim,
		    int causal, enum vq_kv_type type, double limit)
{
	const struct vq_layer_config c = {
		.n_heads = heads, .n_kv_heads = kv_heads, .head_dim = dim, .causal = causal};
	const uint32_t start[] = {0, t}, past = 0;
	const struct vq_batch b = {1, start};
	float *q = rows((size_t)t * heads * dim, "q"), *k = rows((size_t)t * kv_heads * dim, "k"),
	      *v = rows((size_t)t * kv_heads * dim, "v"),
	      *out = must(vq_alloc_f32((size_t)t * heads * dim, NULL));
	double seen = causal ? (t + 1.0) / 2 : t, flop = 4.0 * t * seen * dim * heads, s[RUNS],
	       rate;
	struct vq_kv kv;
	int i;

	if (vq_kv_new(&kv, 1, 1, t, kv_heads, dim, type, NULL) < 0)
		exit(4);
	for (i = 0; i < RUNS; i++) {
		s[i] = limits_now(n_threads);
		if (vq_attention_run(&(struct vq_attention){&c, &b, &past, q, &b, k, v,
							    causal ? kv.layers : NULL, out},
				     NULL) < 0)
			exit(4);
		s[i] = limits_now(n_threads) - s[i];
	}
	rate = flop / limits_median(s, RUNS) / 1e9;
	printf("%-10s %4u x %2u heads x %3u  %-8s %d threads %7.2f ms %7.1f GFLOP/s %5.1f %% of "
	       "%.0f\n",
	       what, t, heads, dim, type_names[type], n_threads, flop / rate / 1e6, rate,
	       100 * rate / limit, limit);
	vq_kv_free(&kv);
	vq_free(q);
	vq_free(k);
	vq_free(v);
	vq_free(out);
}

/* One more token after DECODE - 1, in as many layers as fill CACHE. */
static void decode(uint32_t heads, uint32_t kv_heads, uint32_t dim, enum vq_kv_type type,
		   double limit)
{
	const struct vq_layer_config c = {
		.n_heads = heads, .n_kv_heads = kv_heads, .head_dim = dim, .causal = 1};
	const uint32_t start[] = {0, 1}, past = DECODE - 1, fill[] = {0, DECODE - 1}, none = 0;
	const struct vq_batch b = {1, start}, filled = {1, fill};
	float *q = rows((size_t)heads * dim, "q"), *k = rows((size_t)DECODE * kv_heads * dim, "k"),
	      *v = rows((size_t)DECODE * kv_heads * dim, "v"),
	      *out = must(vq_alloc_f32((size_t)heads * dim, NULL));
	double s[RUNS], rate;
	struct vq_kv kv;
	uint32_t n_layers, l;
	size_t bytes;
	int i;

	if (vq_kv_bytes(1, 1, DECODE, kv_heads, dim, type, &bytes) < 0)
		exit(4);
	n_layers = (uint32_t)(CACHE / bytes);
	if (vq_kv_new(&kv, n_layers, 1, DECODE, kv_heads, dim, type, NULL) < 0)
		exit(4);
	for (l = 0; l < n_layers; l++)
		if (vq_attention_run(&(struct vq_attention){&c, &b, &none, q, &filled, k, v,
							    &kv.layers[l], out},
				     NULL) < 0)
			exit(4);
	kv.n[0] = DECODE - 1;
	for (i = 0; i < RUNS; i++) {
		s[i] = limits_now(n_threads);
		for (l = 0; l < n_layers; l++)
			if (vq_attention_run(&(struct vq_attention){&c, &b, &past, q, &b, k, v,
								    &kv.layers[l], out},
					     NULL) < 0)
				exit(4);
		s[i] = limits_now(n_threads) - s[i];
	}
	rate = (double)bytes * n_layers / limits_median(s, RUNS) / 1e9;
	printf("decode     %4u x %2u heads of %2u x %3u  %-8s %d threads %6.3f ms a layer %6.1f "
	       "GB/s %5.1f %% of %.0f\n",
	       DECODE, heads, kv_heads, dim, type_names[type], n_threads,
	       (double)bytes / rate / 1e6, rate, 100 * rate / limit, limit);
	vq_kv_free(&kv);
	vq_free(q);
	vq_free(k);
	vq_free(v);
	vq_free(out);
}

static void with_threads(int n)
{
	static const uint32_t tokens[] = {512, 2048};
	double fma, ram;
	int i, t;

	n_threads = n;
	omp_set_num_threads(n);
	fma = limits_peak(LIMITS_FMA, n_threads);
	ram = limits_bandwidth(1, n_threads);
	for (i = 0; i < 2; i++) {
		prefill("prefill", tokens[i], 32, 4, 64, 1, VQ_KV_F16, fma);
		prefill("prefill", tokens[i], 32, 32, 128, 1, VQ_KV_F16, fma);
	}
	prefill("prefill", 512, 32, 32, 128, 1, VQ_KV_F32, fma);
	prefill("prefill", 512, 32, 32, 128, 1, VQ_KV_I8, fma);
	prefill("vision", 577, 16, 16, 64, 0, VQ_KV_F32, fma);
	for (t = 0; t < 3; t++) {
		decode(32, 4, 64, (enum vq_kv_type)t, ram);
		decode(32, 32, 128, (enum vq_kv_type)t, ram);
	}
}

int main(void)
{
	int n = omp_get_max_threads();

	printf("kernels: %s\n", vq_cpu_name());
	with_threads(1);
	if (n > 1)
		with_threads(n);
	return 0;
}
