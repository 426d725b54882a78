/* What the ways to heal share. */
#include "task/heal.h"

#include <string.h>

#include "base/mem.h"
#include "base/num.h"

#define HELD 8u /* one in so many */

const struct vq_healing vq_healings[] = {
	{"linear", vq_heal_linear},
	{"lora", vq_heal_lora},
};
const size_t vq_n_healings = sizeof(vq_healings) / sizeof(vq_healings[0]);

const struct vq_healing *vq_healing_by_name(const char *name)
{
	size_t i;

	for (i = 0; i < vq_n_healings; i++)
		if (strcmp(vq_healings[i].name, name) == 0)
			return &vq_healings[i];
	return NULL;
}

/* Among few samples the last alone. */
int vq_heal_is_held(uint32_t sample, uint32_t n_samples)
{
	return sample % HELD == HELD - 1 || (n_samples < HELD && sample + 1 == n_samples);
}

int vq_heal_open(struct vq_heal *h, const struct vq_prune_opts *o, const struct vq_ckpt *k,
		 const struct vq_prune_run *run, const struct vq_blocks *kept, struct vq_err *err)
{
	size_t n = (size_t)run->rows * run->width;
	uint32_t i;
	int rc;

	*h = (struct vq_heal){.o = o, .ckpt = k, .run = run, .kept = kept};
	if (run->samples->n < 2)
		return vq_fail(err, VQ_E_USAGE,
			       "--heal wants two samples at least (--heal-samples), got %u",
			       run->samples->n);
	rc = vq_prune_cut(&h->cut, &run->model, kept, err);
	if (rc < 0)
		return rc;
	h->asked = vq_alloc(run->rows, sizeof(*h->asked), err);
	h->teacher = vq_alloc_f32(n, err);
	for (i = 0; i < kept->n; i++) {
		uint32_t n_own = vq_layer_n_linears(&h->cut.decoder.layers[i]);

		h->n_linears = n_own > h->n_linears ? n_own : h->n_linears;
	}
	h->weight = vq_calloc((size_t)kept->n * h->n_linears, sizeof(*h->weight), err);
	if (!h->asked || !h->teacher || !h->weight)
		return VQ_E_SYS;
	for (i = 0; i < run->samples->n; i++)
		vq_prune_targets(run->samples, &run->model.cfg, i,
				 h->asked + run->samples->start[i]);
	memcpy(h->teacher, run->h0, n * sizeof(float));
	for (i = 0; rc >= 0 && i < run->model.cfg.decoder.n_layers; i++)
		rc = vq_prune_run_block(run, i, h->teacher, 1, err);
	return rc;
}

void vq_heal_close(struct vq_heal *h)
{
	size_t i;

	for (i = 0; h->weight && i < (size_t)h->kept->n * h->n_linears; i++)
		vq_free(h->weight[i]);
	vq_lora_free(&h->lora);
	vq_free(h->weight);
	vq_free(h->asked);
	vq_free(h->teacher);
	vq_prune_cut_free(&h->cut);
	memset(h, 0, sizeof(*h));
}

/* --- parts --- */

static int part_room(struct vq_heal_part *p, uint32_t rows, uint32_t d, struct vq_err *err)
{
	p->asked = vq_alloc(rows, sizeof(*p->asked), err);
	p->teacher = vq_alloc(rows, d * sizeof(float), err);
	p->h = vq_alloc(rows, d * sizeof(float), err);
	return p->asked && p->teacher && p->h ? VQ_OK : VQ_E_SYS;
}

int vq_heal_part_new(struct vq_heal_part *p, const struct vq_heal *h, const uint32_t *samples,
		     uint32_t n, struct vq_err *err)
{
	const struct vq_prune_samples *s = h->run->samples;
	uint32_t i, r, d = h->run->width;
	int rc;

	memset(p, 0, sizeof(*p));
	p->start = vq_alloc((size_t)n + 1, sizeof(*p->start), err);
	if (!p->start)
		return VQ_E_SYS;
	p->n = n;
	p->start[0] = 0;
	for (i = 0; i < n; i++)
		p->start[i + 1] = p->start[i] + s->start[samples[i] + 1] - s->start[samples[i]];
	p->b = (struct vq_batch){n, p->start};
	rc = part_room(p, p->start[n], d, err);
	if (rc < 0) {
		vq_heal_part_free(p);
		return rc;
	}
	for (i = 0; i < n; i++) {
		uint32_t rows = p->start[i + 1] - p->start[i];
		size_t to = p->start[i], from = s->start[samples[i]];

		memcpy(p->h + to * d, h->run->h0 + from * d, (size_t)rows * d * sizeof(float));
		memcpy(p->teacher + to * d, h->teacher + from * d,
		       (size_t)rows * d * sizeof(float));
		memcpy(p->asked + to, h->asked + from, rows * sizeof(*p->asked));
		for (r = 0; r < rows; r++)
			p->n_asked += p->asked[to + r] != VQ_NO_TARGET;
	}
	return VQ_OK;
}

void vq_heal_part_free(struct vq_heal_part *p)
{
	vq_free(p->start);
	vq_free(p->asked);
	vq_free(p->teacher);
	vq_free(p->h);
	memset(p, 0, sizeof(*p));
}

int vq_heal_part_split(struct vq_heal_part *p, const struct vq_heal *h, int held,
		       struct vq_err *err)
{
	uint32_t all = h->run->samples->n, n = 0, i;
	uint32_t *pick = vq_alloc(all, sizeof(*pick), err);
	int rc;

	if (!pick)
		return VQ_E_SYS;
	for (i = 0; i < all; i++)
		if (vq_heal_is_held(i, all) == held)
			pick[n++] = i;
	rc = vq_heal_part_new(p, h, pick, n, err);
	vq_free(pick);
	return rc;
}

int vq_heal_loss(const struct vq_heal *h, struct vq_heal_part *p,
		 int (*enter)(void *ctx, uint32_t layer, struct vq_layer *l, struct vq_err *err),
		 void *ctx, double *loss, struct vq_err *err)
{
	double *sums = vq_alloc(p->n, sizeof(*sums), err), sum = 0;
	struct vq_gradient q = {.m = &h->cut,
				.b = &p->b,
				.loss = {p->asked, p->teacher},
				.ctx = ctx,
				.enter = enter};
	uint32_t i;
	int rc = sums ? vq_decoder_losses(&q, p->h, sums, err) : VQ_E_SYS;

	for (i = 0; rc >= 0 && i < p->n; i++)
		sum += sums[i];
	if (rc >= 0)
		*loss = sum / p->n_asked;
	vq_free(sums);
	return rc;
}

/* --- new weights --- */

void vq_heal_set(struct vq_heal *h, uint32_t layer, uint32_t number, float *w)
{
	float **at = &h->weight[(size_t)layer * h->n_linears + number];
	struct vq_linear *l = vq_layer_linear_at(&h->cut.decoder.layers[layer], number);

	vq_free(*at);
	*at = w;
	l->w = w;
	l->dtype = VQ_F32;
}

/* The new numbers of a linear of the block, if there are some. */
static int new_weight(const struct vq_heal *h, uint32_t layer, uint32_t number, float **out,
		      struct vq_err *err)
{
	const struct vq_linear *l = vq_layer_linear_at(&h->cut.decoder.layers[layer], number);
	const float *w = h->weight[(size_t)layer * h->n_linears + number];
	size_t bytes = (size_t)l->n_out * l->n_in * sizeof(float);

	if (!w && !h->lora.n)
		return VQ_OK;
	*out = vq_alloc(bytes, 1, err);
	if (!*out)
		return VQ_E_SYS;
	if (!w)
		return vq_lora_merge(&h->lora, layer, number, *out, err);
	memcpy(*out, w, bytes);
	return VQ_OK;
}

static int edited(void *ctx, const char *name, float **out, struct vq_err *err)
{
	struct vq_heal *h = ctx;
	const char *leaf = strrchr(name, '.');
	/* Biases stay as they are. */
	const struct vq_linear *l =
		leaf && strcmp(leaf, ".weight") == 0 ? vq_model_linear(&h->cut, name) : NULL;
	uint32_t i, k;
	int rc;

	*out = NULL;
	for (i = 0; l && i < h->kept->n; i++)
		for (k = 0; k < vq_layer_n_linears(&h->cut.decoder.layers[i]); k++) {
			if (l != vq_layer_linear_at(&h->cut.decoder.layers[i], k))
				continue;
			rc = new_weight(h, i, k, out, err);
			if (rc < 0) {
				vq_free(*out);
				*out = NULL;
			}
			return rc;
		}
	return VQ_OK;
}

struct vq_weight_edit vq_heal_edit(struct vq_heal *h)
{
	return (struct vq_weight_edit){edited, h};
}
