/* Adapters: where they are, how they are merged and trained. */
#include "model/lora.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernel/gemm16.h"
#include "kernel/gemm_back.h"

#define BETA1 0.9
#define BETA2 0.999
#define EPS   1e-8
#define DECAY 0.01

static size_t linear_size(const struct vq_linear *l, uint32_t rank)
{
	return l->n_out ? ((size_t)l->n_in + l->n_out) * rank : 0;
}

static const struct vq_linear *linear_at(const struct vq_lora *l, uint32_t layer, uint32_t number)
{
	return vq_layer_linear_at((struct vq_layer *)(uintptr_t)&l->layers[layer],
				  number); /* only read */
}

/* Numbers in the adapters of the first linears of a layer. */
static size_t layer_size(const struct vq_lora *l, uint32_t layer, uint32_t n)
{
	size_t size = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
		size += linear_size(linear_at(l, layer, i), l->rank);
	return size;
}

/* Where the adapters of a linear begin. */
static size_t offset(const struct vq_lora *l, uint32_t layer, uint32_t number)
{
	size_t at = 0;
	uint32_t i;

	for (i = 0; i < layer; i++)
		at += layer_size(l, i, vq_layer_n_linears(&l->layers[i]));
	return at + layer_size(l, layer, number);
}

struct vq_adapter vq_lora_at(const struct vq_lora *l, uint32_t layer, uint32_t number)
{
	float *a = l->value + offset(l, layer, number);

	return (struct vq_adapter){a, a + (size_t)l->rank * linear_at(l, layer, number)->n_in};
}

static void begin(struct vq_lora *l, uint64_t seed)
{
	struct vq_rng r = vq_rng_new(seed, "lora");
	uint32_t layer, k;
	size_t i;

	for (layer = 0; layer < l->n_layers; layer++)
		for (k = 0; k < vq_layer_n_linears(&l->layers[layer]); k++) {
			const struct vq_linear *w = linear_at(l, layer, k);
			float *a = vq_lora_at(l, layer, k).a;

			if (!w->n_out)
				continue; /* no gate: nothing there is its own */
			for (i = 0; i < (size_t)l->rank * w->n_in; i++)
				a[i] = (float)((2 * vq_rng_uniform(r, (size_t)(a - l->value) + i) -
						1) /
					       sqrt(w->n_in));
		}
}

int vq_lora_new(struct vq_lora *a, const struct vq_layer *layers, uint32_t n_layers, uint32_t rank,
		float alpha, uint64_t seed, struct vq_err *err)
{
	struct vq_lora t = {layers, n_layers, rank, alpha / (float)rank, 0, NULL, NULL, NULL, NULL};

	t.n = offset(&t, n_layers, 0);
	t.value = vq_calloc(t.n, sizeof(float), err);
	t.grad = vq_calloc(t.n, sizeof(float), err);
	t.moment1 = vq_calloc(t.n, sizeof(float), err);
	t.moment2 = vq_calloc(t.n, sizeof(float), err);
	if (!t.value || !t.grad || !t.moment1 || !t.moment2) {
		vq_lora_free(&t);
		return VQ_E_SYS;
	}
	begin(&t, seed);
	*a = t;
	return VQ_OK;
}

void vq_lora_free(struct vq_lora *a)
{
	vq_free(a->value);
	vq_free(a->grad);
	vq_free(a->moment1);
	vq_free(a->moment2);
	memset(a, 0, sizeof(*a));
}

int vq_lora_merge(const struct vq_lora *l, uint32_t layer, uint32_t number, float *out,
		  struct vq_err *err)
{
	const struct vq_linear *w = linear_at(l, layer, number);
	struct vq_tensor t = {w->dtype, 2, {w->n_out, w->n_in}, w->w};
	struct vq_adapter ad = vq_lora_at(l, layer, number);
	int failed = 0;
	long long o;

	if (!w->w)
		return vq_fail(err, VQ_E_DATA, "adapters: want floating-point weights");
#pragma omp parallel for schedule(static)
	for (o = 0; o < w->n_out; o++) {
		float *row = out + (size_t)o * w->n_in;
		uint32_t r, i;

		if (vq_tensor_to_f32(&t, (size_t)o * w->n_in, w->n_in, row, NULL) < 0) {
#pragma omp atomic write
			failed = 1;
		}
		for (r = 0; r < l->rank; r++) {
			float b = l->scale * ad.b[(size_t)o * l->rank + r];

			for (i = 0; i < w->n_in; i++)
				row[i] += b * ad.a[(size_t)r * w->n_in + i];
		}
	}
	if (failed)
		return vq_fail(err, VQ_E_DATA, "adapters: want f32, f16 or bf16 weights, got %s",
			       vq_dtype_name(w->dtype));
	return VQ_OK;
}

int vq_lora_grad(struct vq_lora *l, uint32_t layer, uint32_t number, const float *x, const float *g,
		 uint32_t n, struct vq_err *err)
{
	const struct vq_linear *w = linear_at(l, layer, number);
	struct vq_adapter ad = vq_lora_at(l, layer, number);
	size_t at = offset(l, layer, number), i, count = (size_t)n * l->rank;
	float *xa = vq_alloc_f32(count, err), *gb = vq_alloc_f32(count, err);
	int rc = xa && gb ? VQ_OK : VQ_E_SYS;

	if (rc >= 0)
		rc = vq_gemm(x, n, ad.a, VQ_F32, l->rank, w->n_in, NULL, xa, err);
	if (rc >= 0)
		rc = vq_gemm_back(g, n, ad.b, VQ_F32, w->n_out, l->rank, gb, err);
	if (rc >= 0) {
		for (i = 0; i < count; i++) {
			xa[i] *= l->scale;
			gb[i] *= l->scale;
		}
		vq_gemm_weight_grad(gb, x, n, l->rank, w->n_in, l->grad + at);
		vq_gemm_weight_grad(g, xa, n, w->n_out, l->rank,
				    l->grad + at + (size_t)l->rank * w->n_in);
	}
	vq_free(xa);
	vq_free(gb);
	return rc;
}

void vq_lora_step(struct vq_lora *l, uint32_t t, double rate)
{
	double left1 = 1 - pow(BETA1, t), left2 = 1 - pow(BETA2, t);
	long long i;

#pragma omp parallel for schedule(static)
	for (i = 0; i < (long long)l->n; i++) {
		double g = l->grad[i], m, v, w = l->value[i];

		m = l->moment1[i] = (float)(BETA1 * l->moment1[i] + (1 - BETA1) * g);
		v = l->moment2[i] = (float)(BETA2 * l->moment2[i] + (1 - BETA2) * g * g);
		w -= rate * DECAY * w;
		l->value[i] = (float)(w - rate * (m / left1) / (sqrt(v / left2) + EPS));
		l->grad[i] = 0;
	}
}
