/* What the options of a search mean: their words, what follows from them, and what the history says of them. */
#include "task/search.h"

#include <string.h>

#include "quant/nf4.h"
#include "task/search_scheme.h"

unsigned vq_search_part_of(const char *name)
{
	if (strncmp(name, "vision.", 7) == 0)
		return VQ_PART_VISION;
	if (strncmp(name, "projector.", 10) == 0)
		return VQ_PART_PROJECTOR;
	return strncmp(name, "decoder.", 8) == 0 ? VQ_PART_LLM : 0;
}

int vq_search_parts(const char *text, unsigned *parts, struct vq_err *err)
{
	static const char *const words[] = {"llm", "vision", "projector"};
	unsigned all = 0;

	while (*text) {
		size_t n = strcspn(text, ","), i;

		for (i = 0; i < 3; i++)
			if (strlen(words[i]) == n && strncmp(text, words[i], n) == 0)
				break;
		if (i == 3)
			return vq_fail(err, VQ_E_USAGE,
				       "--parts wants words of llm,vision,projector, got '%.*s'",
				       (int)n, text);
		all |= 1u << i;
		text += n + (text[n] == ',');
	}
	if (!all)
		return vq_fail(err, VQ_E_USAGE,
			       "--parts wants words of llm,vision,projector, got nothing");
	*parts = all;
	return VQ_OK;
}

int vq_search_rounds(const struct vq_search_opts *o)
{
	return o->method == VQ_METHOD_RTN || o->method == VQ_METHOD_NF4;
}

uint32_t vq_search_nf(const struct vq_search_opts *o)
{
	return o->method == VQ_METHOD_NF4 && (o->w.bits == 3 || o->w.bits == 4) ? o->w.bits : 0;
}

int vq_search_is_gptq(const struct vq_search_opts *o)
{
	return o->method == VQ_METHOD_GPTQ || o->method == VQ_METHOD_BEST;
}

int vq_search_clips_weights(const struct vq_search_opts *o)
{
	return o->method == VQ_METHOD_LAYERWISE || o->method == VQ_METHOD_QVLM;
}

int vq_search_clips_inputs(const struct vq_search_opts *o)
{
	return vq_search_clips_weights(o) || o->clip;
}

int vq_search_chooses(const struct vq_search_opts *o)
{
	return vq_search_clips_inputs(o) || o->smooth == VQ_SMOOTH_SEARCH;
}

int vq_search_descends(const struct vq_search_opts *o)
{
	return o->sweeps &&
	       (o->method == VQ_METHOD_QVLM || (vq_search_is_gptq(o) && vq_search_chooses(o)));
}

int vq_search_calibrates(const struct vq_search_opts *o)
{
	return !vq_search_rounds(o) || o->clip || o->smooth != VQ_SMOOTH_OFF ||
	       o->rotate == VQ_ROTATE_WUSH || vq_scheme_stores(o);
}

int vq_search_by_block(const struct vq_search_opts *o)
{
	return vq_search_calibrates(o) || o->rotate != VQ_ROTATE_NONE || o->mixed > 0;
}

static json_t *transform_params(const struct vq_search_opts *o)
{
	static const char *const rotates[] = {"none", "hadamard", "wush"};
	json_t *smooth = o->smooth == VQ_SMOOTH_FIXED
				 ? json_real(o->smooth_exponent)
				 : json_string(o->smooth == VQ_SMOOTH_OFF ? "off" : "search");

	return json_pack("{s:s,s:o,s:s*}", "rotate", rotates[o->rotate], "smooth", smooth,
			 "smooth_at", o->smooth_norms ? "norms" : NULL);
}

static json_t *act_params(const struct vq_search_opts *o)
{
	json_t *a = json_pack("{s:I,s:I,s:b}", "bits", (json_int_t)o->a.bits, "group",
			      (json_int_t)o->a.group, "sym", o->a.sym);

	if (a && vq_scheme_name(o))
		json_object_set_new(a, "scheme", json_string(vq_scheme_name(o)));
	if (a && vq_scheme_stores(o))
		json_object_set_new(a, "lp", json_real(o->act_lp));
	return a;
}

static json_t *weight_params(const struct vq_search_opts *o)
{
	if (vq_search_nf(o))
		return vq_nf_grid_json(vq_search_nf(o));
	return json_pack("{s:I,s:I,s:b}", "bits", (json_int_t)o->w.bits, "group",
			 (json_int_t)o->w.group, "sym", o->w.sym);
}

static json_t *token_weights(const struct vq_search_opts *o)
{
	if (o->token_weights == VQ_TOKENS_ATTENTION)
		return json_string("attention");
	return json_pack("{s:o}", "vision",
			 o->vision_weight < 0 ? json_string("measured")
					      : json_real(o->vision_weight));
}

json_t *vq_search_params(const struct vq_search_opts *o, struct vq_err *err)
{
	static const char *const methods[] = {"rtn", "layerwise", "qvlm", "gptq",
					      "awq", "best",      "nf4"};
	json_t *j = json_object();
	int bad = !j;

	bad = bad || json_object_set_new(j, "method", json_string(methods[o->method])) < 0;
	bad = bad || json_object_set_new(j, "w", weight_params(o)) < 0;
	bad = bad || json_object_set_new(j, "a", act_params(o)) < 0;
	bad = bad ||
	      json_object_set_new(j, "parts",
				  json_pack("{s:b,s:b,s:b}", "llm", !!(o->parts & VQ_PART_LLM),
					    "vision", !!(o->parts & VQ_PART_VISION), "projector",
					    !!(o->parts & VQ_PART_PROJECTOR))) < 0;
	bad = bad || json_object_set_new(j, "keep_inputs", json_boolean(o->keep_inputs)) < 0;
	bad = bad || json_object_set_new(j, "seed", json_integer((json_int_t)o->seed)) < 0;
	if (vq_search_calibrates(o))
		bad = bad || json_object_set_new(j, "rows", json_integer(o->rows)) < 0;
	if (vq_search_is_gptq(o))
		bad = bad ||
		      json_object_set_new(j, "gptq",
					  json_pack("{s:b,s:b,s:f,s:I}", "act_order", o->act_order,
						    "w_clip", o->w_clip, "gptaq", o->gptaq,
						    "polish", (json_int_t)o->polish)) < 0;
	if (o->method == VQ_METHOD_AWQ)
		bad = bad || json_object_set_new(j, "awq",
						 json_pack("{s:s,s:b}", "loss",
							   o->awq_joint ? "joint" : "weight-only",
							   "duo", o->awq_duo)) < 0;
	if (o->rotate != VQ_ROTATE_NONE || o->smooth != VQ_SMOOTH_OFF)
		bad = bad || json_object_set_new(j, "transform", transform_params(o)) < 0;
	if (o->mixed > 0)
		bad = bad || json_object_set_new(j, "mixed", json_real(o->mixed)) < 0;
	if (o->clip)
		bad = bad || json_object_set_new(j, "clip", json_true()) < 0;
	if (vq_search_descends(o))
		bad = bad || json_object_set_new(j, "sweeps", json_integer(o->sweeps)) < 0;
	if (o->method == VQ_METHOD_QVLM) {
		bad = bad || json_object_set_new(j, "veo", json_boolean(o->veo)) < 0;
		if (o->veo)
			bad = bad || json_object_set_new(j, "eta", json_real(o->eta)) < 0;
		if (o->veo && o->veo_lambda > 0)
			bad = bad ||
			      json_object_set_new(j, "veo_lambda", json_real(o->veo_lambda)) < 0;
	}
	if (vq_search_calibrates(o) && o->token_weights != VQ_TOKENS_NONE)
		bad = bad || json_object_set_new(j, "token_weights", token_weights(o)) < 0;
	if (bad) {
		json_decref(j);
		vq_fail(err, VQ_E_SYS, "memory: cannot make the history");
		return NULL;
	}
	return j;
}
