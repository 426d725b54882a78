/* Exporting: what the inputs that a folder's readers have change in what the model says. */
#include "task/export_effect.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/prompt.h"
#include "quant/stats.h"

struct effect {
	struct vq_export *x;
	struct vq_model as_is, out; /* the packed model; what the folder's readers compute */
	float (*range)[2];          /* [x->n] of inputs with one stored range */
	struct vq_tokenizer *tok;
	uint32_t vocab; /* rows of the head that are tokens */
	struct vq_dataset data;
	uint32_t *picks;  /* [o->n] items of data, ascending */
	float *logits[2]; /* [decoder.vocab] of as_is and of out */
	uint32_t linears; /* whose inputs differ, ... */
	uint32_t int8;    /* ... and are 8 bits in the folder; the others' are floating point */
	uint32_t same_top;
	double kl_sum, kl_max;
};

/* --- the model as its readers have it --- */

static int input_of(const struct vq_export *x, const struct vq_export_item *i)
{
	return i->as == VQ_AS_CODES ? vq_export_acts_of(x, i) : VQ_EXPORT_ACTS_DROP;
}

/* What engines do otherwise. */
static const char *engine(const struct vq_export *x)
{
	if (x->o->to == VQ_EXPORT_GGUF)
		return "the engine quantizes inputs to 8 bits itself, which is not in these "
		       "figures: they "
		       "are those of floating-point inputs";
	if (x->o->to == VQ_EXPORT_CT && x->o->acts == VQ_EXPORT_ACTS_DYNAMIC)
		return "a token's scale is its largest input / 127, as in vLLM's kernels; "
		       "compressed-tensors "
		       "itself divides by 127.5";
	return NULL;
}

static int stored_range(const struct effect *e, size_t at, struct vq_agrid *g, struct vq_err *err)
{
	struct vq_export_tensor t;
	float *r = e->range[at];
	int rc = vq_export_open(&t, e->x->v, e->x->items[at].name, err);

	if (rc < 0)
		return rc;
	rc = vq_export_one_range(&t, &r[0], &r[1], err);
	g->sym = t.act.sym;
	g->range = VQ_RANGE_STATIC;
	g->n_ranges = 1;
	g->lo = &r[0];
	g->hi = &r[1];
	vq_export_close(&t);
	return rc;
}

static int set_input(struct effect *e, size_t at, struct vq_linear *l, struct vq_err *err)
{
	const struct vq_export_item *i = &e->x->items[at];
	int acts = input_of(e->x, i);
	struct vq_agrid g = {.bits = VQ_ACT_FLOAT, .clip = 1};
	struct vq_err none = {0};
	int rc = VQ_OK;

	if (acts != VQ_EXPORT_ACTS_DROP) {
		g.bits = 8;
		g.sym = 1;
	}
	if (acts == VQ_EXPORT_ACTS_STATIC)
		rc = stored_range(e, at, &g, err);
	if (rc < 0)
		return rc;
	if (!vq_agrid_same(&l->act, &g)) {
		e->linears++;
		e->int8 += g.bits == 8;
	}
	l->act = g;
	/* Where there is no integer product the same values are multiplied in float. */
	if (vq_linear_is_integer(l) && vq_qgemm_check(l->packed, &g, &none) < 0)
		l->exact = 1;
	return VQ_OK;
}

static int set_inputs(struct effect *e, struct vq_err *err)
{
	struct vq_model *m = &e->out;
	size_t i;
	int rc = VQ_OK;

	for (i = 0; rc == VQ_OK && i < e->x->n; i++) {
		const char *name = e->x->names[i].name;
		struct vq_linear *l = vq_model_linear(m, name);

		if (!l && m->cfg.decoder.tied && strcmp(name, "decoder.embed.weight") == 0)
			l = &m->decoder.head;
		if (l && e->x->items[i].act.bits != VQ_ACT_FLOAT) /* a bias has no input */
			rc = set_input(e, i, l, err);
	}
	return rc;
}

static int open_models(struct effect *e, struct vq_err *err)
{
	const struct vq_export *x = e->x;
	int rc = vq_model_from_vqm(&e->as_is, x->v, err);

	if (rc == VQ_OK)
		rc = vq_model_from_vqm(&e->out, x->v, err);
	if (rc == VQ_OK)
		rc = vq_vqm_tokenizer(&e->tok, x->v, err);
	if (rc < 0)
		return rc;
	e->vocab = vq_tokenizer_size(e->tok);
	if (e->vocab > x->config.decoder.vocab)
		e->vocab = x->config.decoder.vocab;
	e->range = vq_calloc(x->n, sizeof(*e->range), err);
	e->logits[0] = vq_alloc_f32(x->config.decoder.vocab, err);
	e->logits[1] = vq_alloc_f32(x->config.decoder.vocab, err);
	if (!e->range || !e->logits[0] || !e->logits[1])
		return VQ_E_SYS;
	return set_inputs(e, err);
}

/* --- prompts --- */

static int open_data(struct effect *e, struct vq_err *err)
{
	const struct vq_export_opts *o = e->x->o;
	int rc = vq_dataset_open(&e->data, o->data, o->images, err);

	if (rc == VQ_OK && o->n > e->data.n)
		rc = vq_fail(err, VQ_E_DATA, "%s: want %u samples (-n), the file holds %u", o->data,
			     o->n, e->data.n);
	if (rc < 0)
		return rc;
	e->picks = vq_alloc(o->n, sizeof(*e->picks), err);
	if (!e->picks)
		return VQ_E_SYS;
	return vq_rng_choose(vq_rng_new(o->seed, "export"), e->data.n, o->n, e->picks, err);
}

/* The logits that follow a prompt. */
static int run(const struct vq_model *m, const struct vq_prompt *p, float *logits,
	       struct vq_err *err)
{
	const struct vq_config *c = &m->cfg;
	const uint32_t start[2] = {0, p->n_tokens}, first = 0;
	const struct vq_batch b = {1, start};
	size_t d = c->decoder.layer.hidden, rows = 0;
	float *h = vq_alloc(p->n_tokens, d * sizeof(float), err), *image = NULL;
	float *last = vq_alloc_f32(d, err);
	int rc = h && last ? VQ_OK : VQ_E_SYS;

	if (rc == VQ_OK && p->n_images) {
		rows = (size_t)p->n_images * c->n_image_tokens;
		image = vq_alloc(rows, c->projector.out * sizeof(float), err);
		rc = image ? vq_vision_encode(m, p->pixels, p->n_images, image, err) : VQ_E_SYS;
	}
	if (rc == VQ_OK)
		rc = vq_decoder_embed(m, p->tokens, p->n_tokens, image, rows, h, err);
	if (rc == VQ_OK)
		rc = vq_decoder_last(m, h, &b, NULL, last, err);
	if (rc == VQ_OK)
		rc = vq_decoder_logits(m, last, &first, 1, logits, err);
	vq_free(last);
	vq_free(image);
	vq_free(h);
	return rc;
}

static int compare(struct effect *e, struct vq_err *err)
{
	double kl = vq_kl_logits(e->logits[0], e->logits[1], e->vocab);

	if (!isfinite(kl))
		return vq_fail(err, VQ_E_DATA, "its logits are not finite");
	kl = fmax(kl, 0); /* a rounding below it */
	e->kl_sum += kl;
	e->kl_max = fmax(e->kl_max, kl);
	e->same_top +=
		vq_argmax_f32(e->logits[0], e->vocab) == vq_argmax_f32(e->logits[1], e->vocab);
	return VQ_OK;
}

static int one_prompt(struct effect *e, const struct vq_item *it, struct vq_err *err)
{
	struct vq_prompt p = {0};
	struct vq_err sub = {0};
	char *image = vq_dataset_image(&e->data, it, &sub);
	int rc = sub.code;

	if (rc >= 0)
		rc = vq_prompt_build(&p, &e->out.cfg, e->tok, it->text, image, &sub);
	if (rc >= 0)
		rc = run(&e->as_is, &p, e->logits[0], &sub);
	if (rc >= 0)
		rc = run(&e->out, &p, e->logits[1], &sub);
	if (rc >= 0)
		rc = compare(e, &sub);
	vq_prompt_free(&p);
	vq_free(image);
	return rc < 0 ? vq_fail(err, rc, "%s: sample '%s': %s", e->x->o->data, it->id, sub.text)
		      : VQ_OK;
}

static int all_prompts(struct effect *e, struct vq_err *err)
{
	uint32_t n = e->x->o->n, i;
	struct vq_progress bar;
	int rc = VQ_OK;

	vq_progress_start(&bar, "prompts", n);
	for (i = 0; rc == VQ_OK && i < n; i++) {
		rc = vq_export_go_on(e->x, err);
		if (rc == VQ_OK)
			rc = one_prompt(e, &e->data.items[e->picks[i]], err);
		vq_progress_step(&bar, i + 1);
	}
	vq_progress_end(&bar);
	return rc;
}

/* --- what is said of it --- */

static int tell(struct effect *e, struct vq_err *err)
{
	struct vq_export *x = e->x;
	uint32_t n = x->o->n;
	double mean = e->kl_sum / n, same = (double)e->same_top / n;

	x->effect = json_pack("{s:I, s:I, s:s, s:I, s:I, s:f, s:f, s:f, s:s?}", "linears",
			      (json_int_t)e->linears, "int8", (json_int_t)e->int8, "data_sha256",
			      e->data.sha256, "n", (json_int_t)n, "seed", (json_int_t)x->o->seed,
			      "kl_mean", mean, "kl_max", e->kl_max, "same_top", same, "engine",
			      engine(x));
	if (!x->effect)
		return vq_fail(err, VQ_E_SYS, "memory: cannot keep the effect");
	vq_export_say(
		x,
		"effect: the inputs of %u matrices change, of %u to 8 bits and of %u to "
		"floating point\n"
		"effect: %u prompts, seed %llu, of data with SHA-256 %s\n"
		"effect: KL divergence mean %.6g, largest %.6g nats; same top token %.4g %%\n",
		e->linears, e->int8, e->linears - e->int8, n, (unsigned long long)x->o->seed,
		e->data.sha256, mean, e->kl_max, 100 * same);
	if (engine(x))
		vq_export_say(x, "effect: %s\n", engine(x));
	return VQ_OK;
}

int vq_export_effect(struct vq_export *x, struct vq_err *err)
{
	struct effect e = {.x = x};
	int rc = open_data(&e, err);

	if (rc == VQ_OK)
		rc = open_models(&e, err);
	if (rc == VQ_OK)
		rc = all_prompts(&e, err);
	if (rc == VQ_OK)
		rc = tell(&e, err);
	vq_model_free(&e.as_is);
	vq_model_free(&e.out);
	vq_tokenizer_free(e.tok);
	vq_dataset_close(&e.data);
	vq_free(e.picks);
	vq_free(e.range);
	vq_free(e.logits[0]);
	vq_free(e.logits[1]);
	return rc;
}

static double number(const json_t *j, const char *key)
{
	return json_number_value(json_object_get(j, key));
}

void vq_export_effect_card(struct vq_str *b, const struct vq_export *x)
{
	const json_t *j = x->effect;
	size_t i, n[2] = {0, 0};

	for (i = 0; i < x->n; i++)
		if (x->items[i].act.bits != VQ_ACT_FLOAT)
			n[input_of(x, &x->items[i]) != VQ_EXPORT_ACTS_DROP]++;
	if (n[0] + n[1] == 0)
		return;
	vq_str_printf(b,
		      "The packed model quantizes the inputs of %zu matrices; here those of %zu "
		      "have 8 bits and of\n%zu are floating point.",
		      n[0] + n[1], n[1], n[0]);
	if (!j) {
		vq_str_puts(b, "  What that changes was not measured.\n\n");
		return;
	}
	vq_str_printf(b,
		      "  On %.0f prompts (seed %.0f, data with SHA-256\n`%s`) the next-token\n"
		      "distribution is %.6g nats (KL divergence) from the packed model's on "
		      "average, %.6g at\nmost; %.4g %% have the same top token.%s%s%s\n\n",
		      number(j, "n"), number(j, "seed"),
		      json_string_value(json_object_get(j, "data_sha256")), number(j, "kl_mean"),
		      number(j, "kl_max"), 100 * number(j, "same_top"),
		      engine(x) ? "  Note that\n" : "", engine(x) ? engine(x) : "",
		      engine(x) ? "." : "");
}
