/* What the search of a block says of itself. */
#include <stdio.h>

#include "base/log.h"
#include "base/str.h"
#include "task/search_sblock.h"
#include "task/search_transform.h"

const struct vq_block_cost *vq_sblock_cost(const struct vq_sblock *b)
{
	return &b->cost;
}

void vq_sblock_name(uint32_t first, uint32_t last, char name[64])
{
	snprintf(name, 64, "search/block/%u-%u", first, last);
}

/* What a value of a choice stands for. */
typedef double value_of(uint8_t v);

static double percentile(uint8_t v)
{
	return vq_clip_percentiles[v];
}

static double exponent(uint8_t v)
{
	return (double)vq_smooth_exponents[v];
}

static json_t *choices(const struct vq_sblock *b, uint32_t which, value_of *value)
{
	json_t *a = json_array();
	uint32_t i;

	for (i = 0; a && i < b->n_places; i++)
		json_array_append_new(a, json_real(value(b->choice[2 * i + which])));
	return a;
}

/* What was chosen by errors. */
static int add_choices(json_t *j, const struct vq_sblock *b)
{
	int bad = 0;

	if (vq_search_clips_inputs(b->o))
		bad = bad || json_object_set_new(j, "p_act", choices(b, 0, percentile)) < 0;
	if (vq_search_clips_weights(b->o))
		bad = bad || json_object_set_new(j, "p_weight", choices(b, 1, percentile)) < 0;
	if (b->o->smooth == VQ_SMOOTH_SEARCH)
		bad = bad || json_object_set_new(j, "smooth", choices(b, 1, exponent)) < 0;
	if (b->o->method != VQ_METHOD_AWQ && (!vq_search_is_gptq(b->o) || vq_search_descends(b->o)))
		bad = bad || json_object_set_new(j, "error_plain", json_real(b->cost.plain)) < 0 ||
		      json_object_set_new(j, "error_layerwise", json_real(b->cost.layerwise)) < 0;
	return bad ? -1 : 0;
}

static json_t *gptq_stat(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;
	json_t *j = json_pack("{s:[I,I],s:I,s:f,s:f,s:f,s:I,s:I}", "units", (json_int_t)b->first,
			      (json_int_t)b->last, "rows", (json_int_t)c->n_rows, "error", c->error,
			      "loss", c->gptq.loss, "damp", c->gptq.damp, "evaluations",
			      (json_int_t)c->n_evals, "places", (json_int_t)c->n_places);

	if (j && b->o->gptaq > 0 &&
	    json_object_set_new(j, "cross", json_real(c->gptq.cross / b->n_places)) < 0) {
		json_decref(j);
		return NULL;
	}
	return j;
}

static json_t *clip_stat(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;

	return json_pack("{s:[I,I],s:I,s:b,s:f,s:I,s:I}", "units", (json_int_t)b->first,
			 (json_int_t)b->last, "rows", (json_int_t)c->n_rows, "veo", c->veo, "error",
			 c->error, "evaluations", (json_int_t)c->n_evals, "places",
			 (json_int_t)c->n_places);
}

/* Of the rows of layers with experts, the share that the quantized stream would have sent elsewhere. */
static int add_rerouted(json_t *j, const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;

	return c->n_routed
		       ? json_object_set_new(j, "rerouted",
					     json_real((double)c->n_rerouted / (double)c->n_routed))
		       : 0;
}

json_t *vq_sblock_stat(const struct vq_sblock *b, struct vq_err *err)
{
	json_t *j = vq_search_is_gptq(b->o)         ? gptq_stat(b)
		    : b->o->method == VQ_METHOD_AWQ ? vq_sblock_awq_stat(b)
						    : clip_stat(b);

	if (!j || add_choices(j, b) < 0 || add_rerouted(j, b) < 0) {
		json_decref(j);
		vq_fail(err, VQ_E_SYS, "memory: cannot make the statistics of a block");
		return NULL;
	}
	return j;
}

static void put_choices(struct vq_str *s, const struct vq_sblock *b, const char *title,
			uint32_t which, value_of *value)
{
	uint32_t i;

	vq_str_puts(s, title);
	for (i = 0; i < b->n_places; i++)
		vq_str_printf(s, "%s%g", b->places[i].slot || i == 0 ? " " : " | ",
			      value(b->choice[2 * i + which]));
}

void vq_sblock_say(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;
	struct vq_str s = {0};

	if (!vq_search_calibrates(b->o))
		return; /* nothing was measured */
	if (b->o->method == VQ_METHOD_AWQ) {
		vq_sblock_awq_say(b);
		return;
	}
	if (vq_search_clips_inputs(b->o))
		put_choices(&s, b, "; clips a", 0, percentile);
	if (vq_search_clips_weights(b->o))
		put_choices(&s, b, "; w", 1, percentile);
	if (b->o->smooth == VQ_SMOOTH_SEARCH)
		put_choices(&s, b, "; smooth", 1, exponent);
	if (vq_search_is_gptq(b->o))
		vq_info("units %u-%u: error %.4g, loss %.4g, damping %g, %u rows, %.1f s%s",
			b->first, b->last, c->error, c->gptq.loss, c->gptq.damp, c->n_rows,
			c->seconds, s.s ? s.s : "");
	else
		vq_info("units %u-%u: error %.4g -> %.4g (layerwise %.4g)%s, %u rows, "
			"%llu evaluations, %.1f s%s",
			b->first, b->last, c->plain, c->error, c->layerwise,
			c->veo ? " with effect on the final output" : "", c->n_rows,
			(unsigned long long)c->n_evals, c->seconds, s.s ? s.s : "");
	vq_str_free(&s);
}
