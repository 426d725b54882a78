/* Healing by low-rank adapters (model/lora.h), after Kim et al. (arXiv 2402.02834), section 3.4: rank 8, alpha 16, all
 * seven linears (in a sparse layer, three of them of each expert); trained towards the whole model, merged at the end.
 *
 * A step takes BATCH samples, a seeded choice that depends on the step alone; the rate rises linearly over the first tenth
 * of the steps and falls linearly to 0.  The adapters of the step that the samples held out like best are kept. */
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/stop.h"
#include "model/lora.h"
#include "task/heal.h"
#include "task/heal_state.h"

#include <math.h>
#include <string.h>

#define ALPHA  16
#define BATCH  16u
#define CHECKS 20u /* times that the held-out samples are asked */

struct train {
	struct vq_heal *h;
	struct vq_lora_state state;
	uint32_t layer;
	float *merged[VQ_LIMIT_LINEARS]; /* of the block at work */
	struct vq_linear *experts;       /* its experts with them */
	uint32_t *pool, n_pool;          /* samples to train on */
	struct vq_progress bar;
};

static int on_enter(void *ctx, uint32_t layer, struct vq_layer *l, struct vq_err *err)
{
	struct train *t = ctx;
	uint32_t i;
	int rc = VQ_OK;

	t->layer = layer;
	if (l->n_experts) {
		memcpy(t->experts, l->experts,
		       (size_t)l->n_experts * VQ_EXPERT_LINEARS * sizeof(*t->experts));
		l->experts = t->experts;
	}
	for (i = 0; rc >= 0 && i < vq_layer_n_linears(l); i++) {
		struct vq_linear *w = vq_layer_linear_at(l, i);

		if (!w->n_out)
			continue;
		rc = vq_lora_merge(&t->h->lora, layer, i, t->merged[i], err);
		w->w = t->merged[i];
		w->dtype = VQ_F32;
	}
	return rc;
}

static int on_linear(void *ctx, enum vq_lin lin, uint32_t expert, const float *x, const float *g,
		     uint32_t n, struct vq_err *err)
{
	struct train *t = ctx;

	return vq_lora_grad(&t->h->lora, t->layer, vq_layer_linear_number(lin, expert), x, g, n,
			    err);
}

/* The batch of a step: *loss its mean. */
static int gradient(struct train *t, uint32_t step, double *loss, struct vq_err *err)
{
	struct vq_rng r = vq_rng_new(t->h->o->seed, "lora batches");
	uint32_t n = t->n_pool < BATCH ? t->n_pool : BATCH, pick[BATCH], i;
	struct vq_heal_part p = {0};
	float weight[BATCH];
	double sums[BATCH];
	struct vq_gradient q = {.m = &t->h->cut,
				.weight = weight,
				.ctx = t,
				.enter = on_enter,
				.sink = {on_linear, NULL, t}};
	int rc = vq_rng_choose((struct vq_rng){vq_rng_u64(r, step)}, t->n_pool, n, pick, err);

	for (i = 0; i < n; i++)
		pick[i] = t->pool[pick[i]];
	if (rc >= 0)
		rc = vq_heal_part_new(&p, t->h, pick, n, err);
	if (rc < 0)
		return rc;
	for (i = 0; i < n; i++)
		weight[i] = 1.0f / (float)p.n_asked;
	q.b = &p.b;
	q.loss = (struct vq_loss){p.asked, p.teacher};
	rc = vq_decoder_gradient(&q, p.h, sums, err);
	for (i = 0, *loss = 0; rc >= 0 && i < n; i++)
		*loss += sums[i] / p.n_asked;
	vq_heal_part_free(&p);
	return rc;
}

static double rate_at(const struct vq_prune_opts *o, uint32_t step)
{
	uint32_t warm = (o->lora_steps + 9) / 10;

	if (step < warm)
		return o->lora_rate * (step + 1) / warm;
	return o->lora_rate * (o->lora_steps - step) / (o->lora_steps - warm + 1);
}

/* Asks the held-out samples, keeps the adapters when they are the best so far. */
static int check(struct train *t, struct vq_err *err)
{
	struct vq_heal_part held = {0};
	double loss;
	int rc = vq_heal_part_split(&held, t->h, 1, err);

	if (rc >= 0)
		rc = vq_heal_loss(t->h, &held, on_enter, t, &loss, err);
	vq_heal_part_free(&held);
	if (rc < 0)
		return rc;
	vq_info("lora: step %u of %u, held-out divergence %.5f", t->state.step, t->h->o->lora_steps,
		loss);
	if (t->state.step == 0 || loss < t->state.best_loss) {
		t->state.best_loss = loss;
		t->state.best_step = t->state.step;
		memcpy(t->state.best, t->h->lora.value, t->h->lora.n * sizeof(float));
	}
	return VQ_OK;
}

static int stop(struct train *t, struct vq_err *err)
{
	int rc = vq_lora_state_write(&t->state, &t->h->lora, t->h->o->lora_state, err);

	if (rc < 0)
		return rc;
	return vq_fail(err, VQ_E_STOP,
		       "stopped after step %u of %u; the same command goes on from %s",
		       t->state.step, t->h->o->lora_steps, t->h->o->lora_state);
}

static int steps(struct train *t, struct vq_err *err)
{
	uint32_t n = t->h->o->lora_steps, every = (n + CHECKS - 1) / CHECKS;
	int rc = t->state.step == 0 ? check(t, err) : VQ_OK;
	double loss;

	while (rc >= 0 && t->state.step < n) {
		if (vq_stop_asked())
			return stop(t, err);
		rc = gradient(t, t->state.step, &loss, err);
		if (rc >= 0 && !isfinite(loss))
			rc = vq_fail(
				err, VQ_E_DATA,
				"lora: the loss of step %u is no number; a smaller --lora-rate "
				"may help",
				t->state.step + 1);
		if (rc < 0)
			break;
		vq_lora_step(&t->h->lora, t->state.step + 1, rate_at(t->h->o, t->state.step));
		t->state.step++;
		vq_progress_step(&t->bar, t->state.step);
		if (t->state.step % every && t->state.step < n)
			continue;
		vq_info("lora: step %u of %u, divergence of the batch %.5f", t->state.step, n,
			loss);
		rc = check(t, err);
		if (rc >= 0 && t->h->o->lora_state)
			rc = vq_lora_state_write(&t->state, &t->h->lora, t->h->o->lora_state, err);
	}
	return rc;
}

/* Room for what a block's linears become. */
static int merged_new(struct train *t, struct vq_err *err)
{
	const struct vq_model *m = &t->h->cut;
	uint32_t layer, i;

	t->experts = vq_alloc(t->h->n_linears, sizeof(*t->experts), err);
	if (!t->experts)
		return VQ_E_SYS;
	for (layer = 0; layer < m->cfg.decoder.n_layers; layer++)
		for (i = 0; i < vq_layer_n_linears(&m->decoder.layers[layer]); i++) {
			const struct vq_linear *l =
				vq_layer_linear_at(&m->decoder.layers[layer], i);

			if (!t->merged[i])
				t->merged[i] = vq_alloc(l->n_out, l->n_in * sizeof(float), err);
			if (!t->merged[i])
				return VQ_E_SYS;
		}
	return VQ_OK;
}

static int prepare(struct train *t, struct vq_err *err)
{
	const struct vq_model *m = &t->h->cut;
	uint32_t all = t->h->run->samples->n, i;
	int rc = vq_lora_new(&t->h->lora, m->decoder.layers, m->cfg.decoder.n_layers,
			     t->h->o->lora_rank, ALPHA, t->h->o->seed, err);

	if (rc >= 0)
		rc = vq_lora_state_new(&t->state, &t->h->lora, t->h, err);
	t->pool = vq_alloc(all, sizeof(*t->pool), err);
	if (rc < 0 || !t->pool)
		return rc < 0 ? rc : VQ_E_SYS;
	for (i = 0; i < all; i++)
		if (!vq_heal_is_held(i, all))
			t->pool[t->n_pool++] = i;
	rc = merged_new(t, err);
	if (rc >= 0 && t->h->o->lora_state)
		rc = vq_lora_state_read(&t->state, &t->h->lora, t->h->o->lora_state, err);
	return rc;
}

int vq_heal_lora(struct vq_heal *h, struct vq_err *err)
{
	struct train t = {.h = h};
	uint32_t i;
	int rc;

	if (h->o->lora_state)
		vq_stop_catch();
	rc = prepare(&t, err);
	vq_progress_start(&t.bar, "steps", h->o->lora_steps);
	if (rc >= 0)
		rc = steps(&t, err);
	vq_progress_end(&t.bar);
	if (rc >= 0) {
		vq_info("lora: the adapters of step %u are kept, held-out divergence %.5f",
			t.state.best_step, t.state.best_loss);
		memcpy(h->lora.value, t.state.best, h->lora.n * sizeof(float));
	}
	for (i = 0; i < VQ_LIMIT_LINEARS; i++)
		vq_free(t.merged[i]);
	vq_free(t.experts);
	vq_free(t.pool);
	vq_lora_state_free(&t.state);
	return rc;
}
