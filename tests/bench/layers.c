/* layers [-g GROUP] [-s SCHEME] [-m METHOD,METHOD...] DIR: quantizers on twelve linears of a real model, one at a time: ViT-Tiny's blocks 0, 5 and 11 with
 * 2,048 rows of their inputs.  The first 1,536 rows calibrate, the last 512 judge.  DIR is vit-tiny of the public data.
 *
 * Prints, tab-separated, ||y' - y||^2 / ||y||^2 of the outputs of the judged rows in dB, for each scheme, method and
 * linear, and the mean of the dB.  A method is a transform of the input and a way to round.  -s and -m choose. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parse.h"
#include "format/safetensors.h"
#include "kernel/blas.h"
#include "kernel/gemm16.h"
#include "quant/awq.h"
#include "quant/clip.h"
#include "quant/gptq.h"
#include "quant/hadamard.h"
#include "quant/layerwise.h"
#include "quant/nf4.h"
#include "quant/rtn.h"
#include "quant/smooth.h"
#include "quant/wush.h"

#define CALIB  1536u
#define JUDGED 512u
#define SEED   0

static struct vq_err err;

static void must(int rc)
{
	if (rc >= 0)
		return;
	fflush(stdout);
	vq_warn("%s", err.text);
	exit(vq_exit_status(rc));
}

static void *got(void *p)
{
	if (!p)
		must(err.code ? err.code : VQ_E_SYS);
	return p;
}

static float *floats(size_t n)
{
	return got(vq_alloc_f32(n, &err));
}

struct scheme {
	const char *name;
	uint32_t w, a;
};

static const struct scheme schemes[] = {
	{"W4A16", 4, 16}, {"W4A8", 4, 8}, {"W4A4", 4, 4}, {"W3A16", 3, 16}};

enum { SMOOTH = 1, HADAMARD = 2, WUSH = 4 };
enum how { RTN, CLIP, AWQ, NF, GPTQ };

struct method {
	const char *name;
	unsigned transform;
	enum how how;
	int act_order;
	uint32_t polish;
	int clip; /* of weights, in gptq */
};

static const struct method methods[] = {
	{"rtn", 0, RTN, 0, 0, 0},
	{"clip", 0, CLIP, 0, 0, 0},
	{"nf", 0, NF, 0, 0, 0},
	{"awq", 0, AWQ, 0, 0, 0},
	{"gptq", 0, GPTQ, 0, 0, 0},
	{"gptq+order", 0, GPTQ, 1, 0, 0},
	{"gptq+order+polish", 0, GPTQ, 1, 3, 0},
	{"smooth", SMOOTH, RTN, 0, 0, 0},
	{"hadamard", HADAMARD, RTN, 0, 0, 0},
	{"smooth+hadamard", SMOOTH | HADAMARD, RTN, 0, 0, 0},
	{"wush", WUSH, RTN, 0, 0, 0},
	{"gptq+order+polish+clip", 0, GPTQ, 1, 3, 1},
	{"smooth+hadamard+gptq", SMOOTH | HADAMARD, GPTQ, 1, 3, 1},
	{"wush+gptq", WUSH, GPTQ, 1, 3, 1},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct linear {
	char name[32];
	uint32_t n_out, n_in;
	float *w;                    /* [n_out, n_in] */
	float *x, *y;                /* [CALIB + JUDGED, n_in], [.., n_out] */
	struct vq_wgrid wg;          /* of the scheme at hand */
	struct vq_agrid ag;          /* clip: what was chosen */
	struct vq_transform t, dual; /* n 0: none */
	float *wt, *xt; /* w and the calibrating x as transformed; or w and x themselves */
};

/* --- judging --- */

/* ||Q(T x) w'^T - y||^2 / ||y||^2 over rows first.. of x; w' in the space of T. */
static double error_of(const struct linear *l, const struct vq_transform *t,
		       const struct vq_agrid *ag, const float *w, uint32_t first, uint32_t n)
{
	float *x = floats((size_t)n * l->n_in), *y = floats((size_t)n * l->n_out);
	const float *want = l->y + (size_t)first * l->n_out;
	double e;

	if (t->n)
		vq_transform_rows(t, l->x + (size_t)first * l->n_in, n, x);
	else
		memcpy(x, l->x + (size_t)first * l->n_in, (size_t)n * l->n_in * sizeof(float));
	vq_act_fake(ag, x, n, l->n_in, x);
	must(vq_gemm(x, n, w, VQ_F32, l->n_out, l->n_in, NULL, y, &err));
	e = vq_sum_error2(y, want, n, l->n_out) / vq_sum_squares(want, n, l->n_out);
	vq_free(x);
	vq_free(y);
	return e;
}

static double calib_error(const struct linear *l, const struct vq_agrid *ag, const float *w)
{
	return error_of(l, &l->t, ag, w, 0, CALIB);
}

/* --- rounding: w' [n_out, n_in] for l->wt --- */

static void round_rtn(const struct linear *l, float clip, float *w)
{
	struct vq_codes c;

	must(vq_codes_alloc(&c, &l->wg, l->n_out, l->n_in, &err));
	must(vq_rtn_fit(&c, l->wt, VQ_F32, clip, NULL, &err));
	vq_grid_dequant(&c, w);
	vq_codes_free(&c);
}

/* Layer-wise: the pair of clips with the smallest error on the calibrating rows. */
static void round_clip(struct linear *l, float *w)
{
	static struct vq_clip_hist hx, hw;
	double e[VQ_N_PERCENTILES * VQ_N_PERCENTILES];
	uint32_t a, b, n_a = l->ag.bits == VQ_ACT_FLOAT ? 1 : VQ_N_PERCENTILES;
	struct vq_agrid ag = l->ag;

	vq_clip_init(&hx, l->ag.group, l->ag.sym);
	vq_clip_add(&hx, l->xt, CALIB, l->n_in);
	vq_clip_init(&hw, l->wg.group, l->wg.sym);
	vq_clip_add(&hw, l->wt, l->n_out, l->n_in);
	for (b = 0; b < VQ_N_PERCENTILES; b++) {
		round_rtn(l, vq_clip_ratio(&hw, vq_clip_percentiles[b]), w);
		for (a = 0; a < n_a; a++) {
			ag.clip = vq_clip_ratio(&hx, vq_clip_percentiles[a]);
			e[a * VQ_N_PERCENTILES + b] = calib_error(l, &ag, w);
		}
	}
	vq_layerwise_pick(e, n_a, VQ_N_PERCENTILES, &a, &b);
	l->ag.clip = vq_clip_ratio(&hx, vq_clip_percentiles[a]);
	round_rtn(l, vq_clip_ratio(&hw, vq_clip_percentiles[b]), w);
}

static void round_nf(const struct linear *l, float *w)
{
	struct vq_nf f;
	struct vq_nf_error e;
	size_t blocks = vq_nf_n_blocks(l->n_out, l->n_in);
	float *absmax = floats(blocks);

	must(vq_nf_alloc(&f, l->wg.bits, l->n_out, l->n_in, &err));
	must(vq_nf_fit(&f, l->wt, VQ_F32, &e, &err));
	vq_nf_absmax_dequantize(&f.absmax, absmax);
	vq_nf_dequantize(l->wg.bits, f.codes, absmax, 0, (size_t)l->n_out * l->n_in, w);
	vq_nf_free(&f);
	vq_free(absmax);
}

static struct vq_awq_weight awq_weight(const struct linear *l, const float *in)
{
	return (struct vq_awq_weight){l->w, VQ_F32, l->n_out, l->n_in, in, NULL};
}

static void to_scales(const struct linear *l, const double *s, float *in, float *out)
{
	uint32_t i;

	for (i = 0; i < l->n_in; i++) {
		in[i] = (float)s[i];
		out[i] = 1 / in[i];
	}
}

/* The output error with the input quantized as it will be: methods.md calls it the joint loss. */
static int awq_loss(void *ctx, const double *s, double *loss, struct vq_err *e)
{
	const struct linear *l = ctx;
	float *in = floats(l->n_in), *out = floats(l->n_in),
	      *q = floats((size_t)l->n_out * l->n_in);
	const struct vq_awq_opts o = {l->wg, VQ_AWQ_STREAM};
	struct vq_awq_weight w = awq_weight(l, in);
	struct vq_transform t = {l->n_in, 0, out, NULL};
	int rc;

	to_scales(l, s, in, out);
	rc = vq_awq_fake(&o, &w, q, e);
	*loss = error_of(l, &t, &l->ag, q, 0, CALIB);
	vq_free(in);
	vq_free(out);
	vq_free(q);
	return rc;
}

/* Scales, which become the transform, then clips. */
static void round_awq(struct linear *l, float *w)
{
	double *xm = got(vq_alloc(l->n_in, sizeof(double), &err)), error, clip, *tokens;
	double *s = got(vq_alloc(l->n_in, sizeof(double), &err));
	float *in = floats(l->n_in), *out = floats(l->n_in);
	struct vq_awq_choice choice;
	struct vq_awq_weight weight = awq_weight(l, in);
	struct vq_codes c;
	uint32_t n_tokens;

	vq_awq_input_mean(l->x, CALIB, l->n_in, xm);
	must(vq_awq_search(xm, NULL, l->n_in, awq_loss, l, s, &choice, &err));
	to_scales(l, s, in, out);
	tokens = got(vq_awq_tokens(l->x, CALIB, l->n_in, in, &n_tokens, &err));
	must(vq_codes_alloc(&c, &l->wg, l->n_out, l->n_in, &err));
	must(vq_awq_fit(&c, &weight, tokens, n_tokens, &error, &clip, &err));
	vq_grid_dequant(&c, w);
	l->t = (struct vq_transform){l->n_in, 0, out, NULL};
	vq_codes_free(&c);
	vq_free(tokens);
	vq_free(in);
	vq_free(xm);
	vq_free(s);
}

static void round_gptq(const struct linear *l, const struct method *m, float *w)
{
	/* As task/search_gptq.c damps. */
	struct vq_gptq_opts o = {.grid = l->wg,
				 .rule = VQ_GPTQ_STREAM,
				 .damp = CALIB < 8 * l->n_in ? .1 : .01,
				 .block = 128,
				 .act_order = m->act_order,
				 .clip = m->clip,
				 .polish = m->polish};
	float *x = floats((size_t)CALIB * l->n_in);
	struct vq_hessian h;
	struct vq_gptq g;
	struct vq_codes c;
	double loss = 0, error;

	vq_act_fake(&l->ag, l->xt, CALIB, l->n_in, x);
	must(vq_hessian_new(&h, l->n_in, 0, &err));
	must(vq_hessian_add(&h, x, NULL, CALIB, &err));
	must(vq_gptq_prepare(&g, &h, &o, &err));
	must(vq_codes_alloc(&c, &l->wg, l->n_out, l->n_in, &err));
	must(vq_gptq_fit(&c, l->wt, VQ_F32, &g, &o, &loss, &error, &err));
	vq_grid_dequant(&c, w);
	vq_codes_free(&c);
	vq_gptq_free(&g);
	vq_hessian_free(&h);
	vq_free(x);
}

/* --- transforms --- */

static void transform_free(struct linear *l)
{
	vq_free((void *)l->t.scale);
	vq_free((void *)l->t.matrix);
	vq_transform_free(&l->dual);
	if (l->wt != l->w)
		vq_free(l->wt);
	if (l->xt != l->x)
		vq_free(l->xt);
	memset(&l->t, 0, sizeof(l->t));
	memset(&l->dual, 0, sizeof(l->dual));
	l->wt = l->w;
	l->xt = l->x;
}

static void transform_use(struct linear *l)
{
	must(vq_transform_dual(&l->dual, &l->t, &err));
	l->wt = floats((size_t)l->n_out * l->n_in);
	l->xt = floats((size_t)CALIB * l->n_in);
	vq_transform_rows(&l->dual, l->w, l->n_out, l->wt);
	vq_transform_rows(&l->t, l->x, CALIB, l->xt);
}

static void use_wush(struct linear *l)
{
	uint32_t block = vq_hadamard_block(l->n_in), i;
	size_t n = (size_t)l->n_in * block;
	double *hx = got(vq_calloc(n, sizeof(double), &err));
	double *hw = got(vq_calloc(n, sizeof(double), &err));
	float *matrix = floats(n);

	must(vq_block_moments(hx, l->x, CALIB, l->n_in, block, &err));
	must(vq_block_moments(hw, l->w, l->n_out, l->n_in, block, &err));
	for (i = 0; i < n; i++) {
		hx[i] /= CALIB;
		hw[i] /= l->n_out;
	}
	must(vq_wush_fit(l->n_in, block, hx, hw, .01, matrix, &err));
	l->t = (struct vq_transform){l->n_in, block, NULL, matrix};
	transform_use(l);
	vq_free(hx);
	vq_free(hw);
}

/* Smoothing with the exponent a < 0: none; with or without a Hadamard behind it. */
static void use_scale(struct linear *l, unsigned transform, double a)
{
	float *x_max = got(vq_calloc(l->n_in, sizeof(float), &err));
	float *w_max = got(vq_calloc(l->n_in, sizeof(float), &err));
	float *sign = floats(l->n_in), *scale = floats(l->n_in);
	int hadamard = (transform & HADAMARD) != 0;

	vq_sign_fill(sign, l->n_in, SEED);
	vq_column_max(l->x, CALIB, l->n_in, x_max);
	vq_column_max(l->w, l->n_out, l->n_in, w_max);
	if (transform & SMOOTH)
		vq_smooth_scale(x_max, w_max, hadamard ? sign : NULL, l->n_in, a, scale);
	else
		memcpy(scale, sign, l->n_in * sizeof(float));
	l->t = (struct vq_transform){l->n_in, hadamard ? vq_hadamard_block(l->n_in) : 0, scale,
				     NULL};
	transform_use(l);
	vq_free(x_max);
	vq_free(w_max);
	vq_free(sign);
}

/* The exponent by the error of rounding to nearest on the calibrating rows. */
static void choose_smooth(struct linear *l, unsigned transform, float *w)
{
	double a, best = .5, least = INFINITY, e;

	for (a = .2; a < .85; a += .1) {
		use_scale(l, transform, a);
		round_rtn(l, 1, w);
		e = calib_error(l, &l->ag, w);
		if (e < least) {
			least = e;
			best = a;
		}
		transform_free(l);
	}
	use_scale(l, transform, best);
}

/* --- all of it --- */

static double run(struct linear *l, const struct scheme *s, uint32_t group, const struct method *m)
{
	float *w = floats((size_t)l->n_out * l->n_in);
	double e;

	l->wg = (struct vq_wgrid){s->w, group, 0};
	l->ag = (struct vq_agrid){.bits = s->a, .group = group, .clip = 1};
	if (m->transform & WUSH)
		use_wush(l);
	else if (m->transform & SMOOTH)
		choose_smooth(l, m->transform, w);
	else if (m->transform & HADAMARD)
		use_scale(l, m->transform, 0);
	switch (m->how) {
	case RTN: round_rtn(l, 1, w); break;
	case CLIP: round_clip(l, w); break;
	case NF: round_nf(l, w); break;
	case AWQ: round_awq(l, w); break;
	case GPTQ: round_gptq(l, m, w); break;
	}
	e = error_of(l, &l->t, &l->ag, w, CALIB, JUDGED);
	transform_free(l);
	vq_free(w);
	return 10 * log10(e);
}

static float *read_matrix(const struct vq_st *st, const char *name, const char *suffix,
			  uint64_t dims[2])
{
	char full[128];
	const struct vq_tensor *t;
	float *to;

	snprintf(full, sizeof(full), "blocks_%s_weight%s", name, suffix);
	t = vq_st_find(st, full);
	if (!t || t->n_dims != 2)
		must(vq_fail(&err, VQ_E_DATA, "%s: want a matrix '%s'", st->path, full));
	dims[0] = t->dims[0];
	dims[1] = t->dims[1];
	to = floats((size_t)(dims[0] * dims[1]));
	must(vq_tensor_to_f32(t, 0, (size_t)(dims[0] * dims[1]), to, &err));
	return to;
}

static void read_linear(struct linear *l, const char *name, const struct vq_st *weights,
			const struct vq_st *inputs)
{
	uint64_t wd[2], xd[2];

	memset(l, 0, sizeof(*l));
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->w = l->wt = read_matrix(weights, name, "", wd);
	l->x = l->xt = read_matrix(inputs, name, ".inputs", xd);
	if (xd[0] != CALIB + JUDGED || xd[1] != wd[1])
		must(vq_fail(&err, VQ_E_DATA, "%s: '%s': want %u inputs", inputs->path, name,
			     CALIB + JUDGED));
	l->n_out = (uint32_t)wd[0];
	l->n_in = (uint32_t)wd[1];
	l->y = floats((size_t)xd[0] * l->n_out);
	must(vq_gemm(l->x, xd[0], l->w, VQ_F32, l->n_out, l->n_in, NULL, l->y, &err));
}

static void open_file(struct vq_st *st, const char *dir, const char *name)
{
	char *path = got(vq_path_join(dir, name, &err));

	must(vq_st_open(st, path, VQ_E_SYS, &err));
	vq_free(path);
}

static int usage(void)
{
	fputs("usage: layers [-g GROUP] [-s SCHEME] [-m METHOD,METHOD...] DIR\n", stderr);
	return 2;
}

/* Whether a word is in a list with commas; NULL is a list of all. */
static int listed(const char *list, const char *word)
{
	size_t n = strlen(word), k;

	for (; list && *list; list += k + (list[k] == ',')) {
		k = strcspn(list, ",");
		if (k == n && strncmp(list, word, n) == 0)
			return 1;
	}
	return !list;
}

int main(int argc, char **argv)
{
	static const char *const blocks[] = {"0", "5", "11"};
	static const char *const kinds[] = {"attn_qkv", "attn_proj", "mlp_fc1", "mlp_fc2"};
	struct linear l[12];
	struct vq_st weights, inputs;
	uint32_t group = 128, n = 0, i, k;
	size_t s, m;
	const char *only_scheme = NULL, *only_methods = NULL;
	char name[32];
	int o;

	while ((o = getopt(argc, argv, "g:s:m:")) != -1) {
		if (o == 's')
			only_scheme = optarg;
		else if (o == 'm')
			only_methods = optarg;
		else if (o != 'g' || vq_parse_u32(&group, optarg, 0, 1024) < 0)
			return usage();
	}
	if (optind != argc - 1)
		return usage();
	vq_log_setup("layers", 1);
	vq_threads_setup(0);
	open_file(&weights, argv[optind], "model.safetensors");
	open_file(&inputs, argv[optind], "linear_inputs.safetensors");
	printf("scheme\tmethod");
	for (i = 0; i < 3; i++)
		for (k = 0; k < 4; k++, n++) {
			snprintf(name, sizeof(name), "%s_%s", blocks[i], kinds[k]);
			read_linear(&l[n], name, &weights, &inputs);
			printf("\t%s", name);
		}
	printf("\tmean\n");
	for (s = 0; s < COUNT(schemes); s++)
		for (m = 0; m < COUNT(methods); m++) {
			double sum = 0, e;

			if (!listed(only_scheme, schemes[s].name) ||
			    !listed(only_methods, methods[m].name))
				continue;
			printf("%s\t%s", schemes[s].name, methods[m].name);
			for (i = 0; i < n; i++) {
				e = run(&l[i], &schemes[s], group, &methods[m]);
				sum += e;
				printf("\t%.2f", e);
			}
			printf("\t%.2f\n", sum / n);
			fflush(stdout);
		}
	for (i = 0; i < n; i++) {
		vq_free(l[i].w);
		vq_free(l[i].x);
		vq_free(l[i].y);
	}
	vq_st_close(&weights);
	vq_st_close(&inputs);
	return 0;
}
