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
 * and no change, in both, the one that the held-out divergence prefers goes into the model, fitted on all samples.  Where
 * the block has experts, h = r + sum_e gate_e W_e u_e, the map goes into all their down projections, (I + X) W_e, and refit is
 * not tried: its moments would be those of all experts' inputs together.  Runs are healed from the first to the last, each with those before it healed. */
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
	uint32_t n_down;            /* down projections: 1, or as many as the block has experts */
	float *w[VQ_LIMIT_EXPERTS]; /* [d, inter] of each */
	struct vq_refit part[2];    /* of the others, of the held-out samples; with experts, none */
	struct vq_refit behind[2];  /* the same of W u */
};

/* A change of W: which fit, ridge and share. */
struct choice {
	int map;
	double ridge, share, loss;
};

static struct vq_layer *block_of(const struct fit *f)
{
	return &f->h->cut.decoder.layers[f->at];
}

static struct vq_linear *down_of(const struct fit *f, uint32_t expert)
{
	return vq_layer_linear(block_of(f), VQ_LIN_DOWN, expert);
}

/* From r, the state before the experts' outputs are added, and h, that behind: what their weights added, into r. */
static void added(const struct vq_layer_run *run, const float *h, float *r)
{
	const struct vq_route *route = &run->route;
	uint32_t d = run->layer->cfg->hidden, e, k, j;
	size_t i;

	for (i = 0; i < run->n_rows * d; i++)
		r[i] = h[i] - r[i];
	for (e = 0; e < route->n_experts; e++) {
		const float *bias =
			run->layer->experts[e * VQ_EXPERT_LINEARS + VQ_LIN_DOWN - VQ_LIN_UP].bias;

		for (k = route->start[e]; bias && k < route->start[e] + route->n[e]; k++)
			for (j = 0; j < d; j++)
				r[(size_t)route->row[k] * d + j] -= route->gate[k] * bias[j];
	}
}

/* The block's run to its end from SLOT_DOWN on, and what the fit has as inputs; given. */
static float *through_down(const struct fit *f, struct vq_layer_run *run, struct vq_err *err)
{
	uint32_t d = f->h->run->width, width = f->n_down > 1 ? d : run->x_width;
	size_t bytes = run->n_rows * width * sizeof(float);
	float *u = vq_alloc(bytes, 1, err);
	int rc = u ? VQ_OK : VQ_E_SYS;

	if (u)
		memcpy(u, f->n_down > 1 ? run->h : run->x, bytes);
	while (rc >= 0 && run->slot < VQ_N_SLOTS)
		rc = vq_layer_next(run, err);
	if (rc >= 0 && f->n_down > 1)
		added(run, run->h, u);
	if (rc < 0) {
		vq_free(u);
		return NULL;
	}
	return u;
}

/* Inputs of the down projection, or what the experts' put out, and what is missing behind the block, for one sample, into
 * the moments. */
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
	struct vq_refit *m = f->n_down > 1 ? f->behind : f->part;
	int rc = h && weight ? VQ_OK : VQ_E_SYS;

	if (rc >= 0) {
		memcpy(h, f->cut + (size_t)s->start[sample] * d, (size_t)n * d * sizeof(float));
		rc = vq_layer_begin(&run, block_of(f), h, &b, NULL, err);
	}
	while (rc >= 0 && run.slot != VQ_SLOT_DOWN)
		rc = vq_layer_next(&run, err);
	if (rc >= 0) {
		u = through_down(f, &run, err);
		rc = u ? VQ_OK : err->code;
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
		rc = vq_refit_add(&m[vq_heal_is_held(sample, s->n)], u, h, weight, n, err);
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

/* w: the new weights of a choice, by these moments.  Given. */
static int changed(const struct fit *f, const struct vq_refit *m, const struct choice *c, float **w,
		   struct vq_err *err)
{
	uint32_t d = f->h->run->width, inter = down_of(f, 0)->n_in, e;
	size_t n = (size_t)d * inter, i;
	double *change = vq_alloc(n, sizeof(double), err), *x = NULL;
	int rc = change ? VQ_OK : VQ_E_SYS;

	if (rc >= 0 && c->map) {
		x = vq_alloc(d, d * sizeof(double), err);
		rc = x ? vq_refit_solve(m, c->ridge, x, err) : VQ_E_SYS;
	} else if (rc >= 0) {
		rc = vq_refit_solve(m, c->ridge, change, err);
	}
	for (e = 0; rc >= 0 && e < f->n_down; e++) {
		if (x)
			rc = vq_refit_fold(x, f->w[e], d, d, inter, change, err);
		w[e] = rc >= 0 ? vq_alloc_f32(n, err) : NULL;
		rc = w[e] ? VQ_OK : err->code;
		for (i = 0; rc >= 0 && i < n; i++)
			w[e][i] = (float)(f->w[e][i] + c->share * change[i]);
	}
	vq_free(x);
	vq_free(change);
	return rc;
}

static void weights_free(const struct fit *f, float **w)
{
	uint32_t e;

	for (e = 0; e < f->n_down; e++) {
		vq_free(w[e]);
		w[e] = NULL;
	}
}

/* Mean divergence of the held-out samples, from the block on, as it is. */
static int divergence(struct fit *f, double *loss, struct vq_err *err)
{
	const struct vq_prune_samples *s = f->h->run->samples;
	struct vq_heal tail = *f->h;
	struct vq_heal_part held = {0};
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
	rc = vq_heal_loss(&tail, &held, NULL, NULL, loss, err);
	vq_heal_part_free(&held);
	return rc;
}

/* The same with w as its down projections. */
static int divergence_with(struct fit *f, float *const *w, double *loss, struct vq_err *err)
{
	struct vq_linear was[VQ_LIMIT_EXPERTS];
	uint32_t e;
	int rc;

	for (e = 0; e < f->n_down; e++) {
		struct vq_linear *l = down_of(f, e);

		was[e] = *l;
		l->w = w[e];
		l->dtype = VQ_F32;
	}
	rc = divergence(f, loss, err);
	for (e = 0; e < f->n_down; e++)
		*down_of(f, e) = was[e];
	return rc;
}

/* Tries c with every share. */
static int try_shares(struct fit *f, const struct vq_refit *m, struct choice c, double error,
		      struct choice *best, struct vq_err *err)
{
	float *w[VQ_LIMIT_EXPERTS] = {NULL};
	size_t i;
	int rc = VQ_OK;

	for (i = 0; i < N_SHARES && rc >= 0; i++) {
		c.share = shares[i];
		rc = changed(f, m, &c, w, err);
		if (rc >= 0)
			rc = divergence_with(f, w, &c.loss, err);
		weights_free(f, w);
		if (rc < 0)
			break;
		vq_info("linear: block %u, %s, ridge %g: held-out error %.3f, with a share of %g "
			"held-out divergence %.5f",
			f->at, c.map ? "map" : "refit", c.ridge, error, c.share, c.loss);
		if (c.loss < best->loss)
			*best = c;
	}
	return rc;
}

static int choose(struct fit *f, struct choice *best, struct vq_err *err)
{
	struct choice c = {.share = 0};
	double error;
	int rc = divergence(f, &c.loss, err), map;

	*best = c;
	for (map = f->n_down > 1; map < 2 && rc >= 0; map++) {
		const struct vq_refit *m = map ? f->behind : f->part;

		c.map = map;
		rc = choose_ridge(&m[0], &m[1], &c.ridge, &error, err);
		if (rc >= 0)
			rc = try_shares(f, &m[0], c, error, best, err);
	}
	return rc;
}

static int moments(struct fit *f, struct vq_err *err)
{
	const struct vq_linear *l = down_of(f, 0);
	uint32_t d = l->n_out, i;
	struct vq_refit *m = f->n_down > 1 ? f->behind : f->part;
	int rc = VQ_OK;

	for (i = 0; i < f->n_down && rc >= 0; i++) {
		struct vq_tensor t = {l->dtype, 2, {d, l->n_in}, down_of(f, i)->w};

		f->w[i] = vq_alloc(d, l->n_in * sizeof(float), err);
		rc = f->w[i] ? vq_tensor_to_f32(&t, 0, (size_t)d * l->n_in, f->w[i], err)
			     : VQ_E_SYS;
	}
	for (i = 0; i < 2 && rc >= 0; i++)
		rc = vq_refit_new(&m[i], f->n_down > 1 ? d : l->n_in, d, err);
	for (i = 0; i < f->h->run->samples->n && rc >= 0; i++)
		rc = add_sample(f, i, err);
	for (i = 0; i < 2 && rc >= 0 && f->n_down == 1; i++)
		rc = vq_refit_behind(&f->behind[i], &f->part[i], f->w[0], d, err);
	return rc;
}

static int heal_run(struct fit *f, struct vq_err *err)
{
	float *w[VQ_LIMIT_EXPERTS] = {NULL};
	struct choice c;
	struct vq_refit *m;
	uint32_t e;
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
	rc = changed(f, &m[0], &c, w, err);
	if (rc < 0) {
		weights_free(f, w);
		return rc;
	}
	for (e = 0; e < f->n_down; e++)
		vq_heal_set(f->h, f->at, vq_layer_linear_number(VQ_LIN_DOWN, e), w[e]);
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
	weights_free(f, f->w);
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
		f.n_down = block_of(&f)->n_experts ? block_of(&f)->n_experts : 1;
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
