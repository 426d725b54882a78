/* Healing by least squares: a removed run of blocks is replaced by a linear map in the block before it.
 *
 * Let that block's output be h = r + W u, W its down projection and u that one's input, and h' what the whole model has
 * behind the run.  Two maps are fitted on rows of the samples, weighted by 1 / mean(h'^2), for the next block's norm
 * divides by that:
 *
 *   map    r + (I + X) W u ~ h'     folded as (I + X) W
 *   refit  r + (W + X) u ~ h'       more numbers to fit
 *
 * In each X is drawn to 0 (quant/refit.h) with the ridge that the held-out samples' squared error prefers.  Of X, X/2, X/4
 * and no change, in both, the one that the held-out divergence prefers goes into the model, fitted on all samples.  Runs
 * are healed from the first to the last, each with those before it healed. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "quant/refit.h"
#include "task/heal.h"

static const double ridges[] = {1e-4, 1e-3, 1e-2, 1e-1, 1, 10};
static const double shares[] = {1, 0.5, 0.25};

#define N_RIDGES (sizeof(ridges) / sizeof(ridges[0]))
#define N_SHARES (sizeof(shares) / sizeof(shares[0]))

/* A run at work: behind block `at` of what is left. */
struct fit {
	struct vq_heal *h;
	uint32_t at;
	float *cut,
		*whole; /* [rows, d] what enters block `at`; what the whole model has behind the run */
	float *w;       /* [d, inter] of the down projection */
	struct vq_refit part[2];   /* of the others, of the held-out samples */
	struct vq_refit behind[2]; /* the same of W u */
};

/* A change of W: which fit, ridge and share. */
struct choice {
	int map;
	double ridge, share, loss;
};

/* Inputs of the down projection and what is missing behind the block, for one sample, into the moments. */
static int add_sample(struct fit *f, uint32_t sample, struct vq_err *err)
{
	const struct vq_prune_samples *s = f->h->run->samples;
	uint32_t n = s->start[sample + 1] - s->start[sample], d = f->h->run->width, i, j;
	const uint32_t start[2] = {0, n};
	const struct vq_batch b = {1, start};
	const float *want = f->whole + (size_t)s->start[sample] * d;
	float *h = vq_alloc(n, d * sizeof(float), err), *weight = vq_alloc_f32(n, err);
	float *u = NULL;
	struct vq_layer_run run = {0};
	const struct vq_layer *l = &f->h->cut.decoder.layers[f->at];
	int rc = h && weight ? VQ_OK : VQ_E_SYS;

	if (rc >= 0) {
		memcpy(h, f->cut + (size_t)s->start[sample] * d, (size_t)n * d * sizeof(float));
		rc = vq_layer_begin(&run, l, h, &b, NULL, err);
	}
	while (rc >= 0 && run.slot != VQ_SLOT_DOWN)
		rc = vq_layer_next(&run, err);
	if (rc >= 0) {
		u = vq_alloc(n, run.x_width * sizeof(float), err);
		rc = u ? VQ_OK : VQ_E_SYS;
	}
	if (rc >= 0) {
		memcpy(u, run.x, (size_t)n * run.x_width * sizeof(float));
		rc = vq_layer_next(&run, err);
	}
	for (i = 0; rc >= 0 && i < n; i++) {
		double sum = 0;

		for (j = 0; j < d; j++) {
			sum += (double)want[(size_t)i * d + j] * want[(size_t)i * d + j];
			h[(size_t)i * d + j] = want[(size_t)i * d + j] - h[(size_t)i * d + j];
		}
		weight[i] = sum > 0 ? (float)(d / sum) : 0;
	}
	if (rc >= 0)
		rc = vq_refit_add(&f->part[vq_heal_is_held(sample, s->n)], u, h, weight, n, err);
	vq_layer_end(&run);
	vq_free(u);
	vq_free(weight);
	vq_free(h);
	return rc;
}

/* The ridge whose fit the held-out moments like best. */
static int choose_ridge(const struct vq_refit *fit, const struct vq_refit *held, double *ridge,
			double *error, struct vq_err *err)
{
	double *change = vq_alloc(fit->n_out, fit->n_in * sizeof(double), err), e;
	size_t i;
	int rc = change ? VQ_OK : VQ_E_SYS;

	*error = INFINITY;
	for (i = 0; rc >= 0 && i < N_RIDGES; i++) {
		rc = vq_refit_solve(fit, ridges[i], change, err);
		if (rc >= 0)
			rc = vq_refit_error(held, change, &e, err);
		if (rc >= 0 && e < *error) {
			*error = e;
			*ridge = ridges[i];
		}
	}
	vq_free(change);
	return rc;
}

/* The new W of a choice, by these moments.  Given. */
static float *changed(const struct fit *f, const struct vq_refit *m, const struct choice *c,
		      struct vq_err *err)
{
	uint32_t d = f->part[0].n_out, inter = f->part[0].n_in;
	size_t n = (size_t)d * inter, i;
	double *change = vq_alloc(n, sizeof(double), err), *x = NULL;
	float *w = vq_alloc_f32(n, err);
	int rc = change && w ? VQ_OK : VQ_E_SYS;

	if (rc >= 0 && c->map) {
		x = vq_alloc(d, d * sizeof(double), err);
		rc = x ? vq_refit_solve(m, c->ridge, x, err) : VQ_E_SYS;
		if (rc >= 0)
			rc = vq_refit_fold(x, f->w, d, d, inter, change, err);
	} else if (rc >= 0) {
		rc = vq_refit_solve(m, c->ridge, change, err);
	}
	for (i = 0; rc >= 0 && i < n; i++)
		w[i] = (float)(f->w[i] + c->share * change[i]);
	vq_free(x);
	vq_free(change);
	if (rc < 0) {
		vq_free(w);
		return NULL;
	}
	return w;
}

/* Mean divergence of the held-out samples, from the block on, with w (NULL: as it is) as its down projection. */
static int divergence(struct fit *f, const float *w, double *loss, struct vq_err *err)
{
	const struct vq_prune_samples *s = f->h->run->samples;
	struct vq_heal tail = *f->h;
	struct vq_heal_part held = {0};
	struct vq_linear *l = &f->h->cut.decoder.layers[f->at].lin[VQ_LIN_DOWN], was = *l;
	uint32_t i, k = 0, d = f->h->run->width;
	int rc = vq_heal_part_split(&held, f->h, 1, err);

	if (rc < 0)
		return rc;
	for (i = 0; i < s->n; i++)
		if (vq_heal_is_held(i, s->n)) {
			size_t bytes = (size_t)(s->start[i + 1] - s->start[i]) * d * sizeof(float);

			memcpy(held.h + (size_t)held.start[k++] * d,
			       f->cut + (size_t)s->start[i] * d, bytes);
		}
	tail.cut.decoder.layers += f->at;
	tail.cut.cfg.decoder.n_layers -= f->at;
	if (w) {
		l->w = w;
		l->dtype = VQ_F32;
	}
	rc = vq_heal_loss(&tail, &held, NULL, NULL, loss, err);
	*l = was;
	vq_heal_part_free(&held);
	return rc;
}

static int choose(struct fit *f, struct choice *best, struct vq_err *err)
{
	struct choice c = {.share = 0};
	double error;
	size_t i;
	int rc = divergence(f, NULL, &c.loss, err), map;

	*best = c;
	for (map = 0; map < 2 && rc >= 0; map++) {
		const struct vq_refit *m = map ? f->behind : f->part;

		c.map = map;
		rc = choose_ridge(&m[0], &m[1], &c.ridge, &error, err);
		for (i = 0; i < N_SHARES && rc >= 0; i++) {
			float *w;

			c.share = shares[i];
			w = changed(f, &m[0], &c, err);
			rc = w ? divergence(f, w, &c.loss, err) : err->code;
			vq_free(w);
			if (rc < 0)
				break;
			vq_info("linear: block %u, %s, ridge %g: held-out error %.3f, with a share "
				"of "
				"%g held-out divergence %.5f",
				f->at, map ? "map" : "refit", c.ridge, error, c.share, c.loss);
			if (c.loss < best->loss)
				*best = c;
		}
	}
	return rc;
}

static int moments(struct fit *f, struct vq_err *err)
{
	const struct vq_linear *l = &f->h->cut.decoder.layers[f->at].lin[VQ_LIN_DOWN];
	struct vq_tensor t = {l->dtype, 2, {l->n_out, l->n_in}, l->w};
	uint32_t i;
	int rc = VQ_OK;

	f->w = vq_alloc(l->n_out, l->n_in * sizeof(float), err);
	if (!f->w)
		return VQ_E_SYS;
	rc = vq_tensor_to_f32(&t, 0, (size_t)l->n_out * l->n_in, f->w, err);
	for (i = 0; i < 2 && rc >= 0; i++)
		rc = vq_refit_new(&f->part[i], l->n_in, l->n_out, err);
	for (i = 0; i < f->h->run->samples->n && rc >= 0; i++)
		rc = add_sample(f, i, err);
	for (i = 0; i < 2 && rc >= 0; i++)
		rc = vq_refit_behind(&f->behind[i], &f->part[i], f->w, l->n_out, err);
	return rc;
}

static int heal_run(struct fit *f, struct vq_err *err)
{
	struct choice c;
	struct vq_refit *m;
	float *w;
	int rc = moments(f, err);

	if (rc >= 0)
		rc = choose(f, &c, err);
	if (rc < 0)
		return rc;
	if (c.share == 0) {
		vq_info("linear: block %u stays as it is: no change helps the held-out samples",
			f->at);
		return VQ_OK;
	}
	m = c.map ? f->behind : f->part;
	vq_refit_sum(&m[0], &m[1]);
	w = changed(f, &m[0], &c, err);
	if (!w)
		return err->code;
	vq_heal_set(f->h, f->at, VQ_LIN_DOWN, w);
	vq_info("linear: block %u, %s, ridge %g, a share of %g", f->at, c.map ? "map" : "refit",
		c.ridge, c.share);
	return VQ_OK;
}

static void fit_free(struct fit *f)
{
	int i;

	for (i = 0; i < 2; i++) {
		vq_refit_free(&f->part[i]);
		vq_refit_free(&f->behind[i]);
	}
	vq_free(f->w);
	f->w = NULL;
}

/* The block of what is left through all samples. */
static int advance(const struct vq_heal *h, uint32_t at, float *rows, struct vq_err *err)
{
	struct vq_prune_run run = *h->run;

	run.model = h->cut;
	return vq_prune_run_block(&run, at, rows, 1, err);
}

int vq_heal_linear(struct vq_heal *h, struct vq_err *err)
{
	uint32_t n = h->run->model.cfg.decoder.n_layers, block = 0, at;
	size_t bytes = (size_t)h->run->rows * h->run->width * sizeof(float);
	struct fit f = {.h = h, .cut = vq_alloc(bytes, 1, err), .whole = vq_alloc(bytes, 1, err)};
	int rc = f.cut && f.whole ? VQ_OK : VQ_E_SYS;

	if (rc >= 0 && h->kept->v[0] != 0)
		rc = vq_fail(err, VQ_E_USAGE,
			     "--heal linear: block 0 goes, and no block is before it whose weights "
			     "could "
			     "take the map; keep it, or --heal lora");
	if (rc >= 0) {
		memcpy(f.cut, h->run->h0, bytes);
		memcpy(f.whole, h->run->h0, bytes);
	}
	for (at = 0; rc >= 0 && at < h->kept->n; at++) {
		uint32_t next = at + 1 < h->kept->n ? h->kept->v[at + 1] : n;

		for (f.at = at; rc >= 0 && block < next; block++)
			rc = vq_prune_run_block(h->run, block, f.whole, 1, err);
		if (rc >= 0 && next != h->kept->v[at] + 1)
			rc = heal_run(&f, err);
		fit_free(&f);
		if (rc >= 0)
			rc = advance(h, at, f.cut, err);
	}
	vq_free(f.cut);
	vq_free(f.whole);
	return rc;
}
