/* What the search of a block says of itself. */
#include <stdio.h>

#include "base/log.h"
#include "base/str.h"
#include "task/search_sblock.h"

const struct vq_block_cost *vq_sblock_cost(const struct vq_sblock *b)
{
	return &b->cost;
}

void vq_sblock_name(uint32_t first, uint32_t last, char name[64])
{
	snprintf(name, 64, "search/block/%u-%u", first, last);
}

static json_t *percentiles(const struct vq_sblock *b, uint32_t which)
{
	json_t *a = json_array();
	uint32_t i;

	for (i = 0; a && i < b->n_places; i++)
		json_array_append_new(a, json_real(vq_clip_percentiles[b->choice[2 * i + which]]));
	return a;
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

	return json_pack("{s:[I,I],s:I,s:b,s:f,s:f,s:f,s:I,s:I,s:o,s:o}", "units",
			 (json_int_t)b->first, (json_int_t)b->last, "rows", (json_int_t)c->n_rows,
			 "veo", c->veo, "error_plain", c->plain, "error_layerwise", c->layerwise,
			 "error", c->error, "evaluations", (json_int_t)c->n_evals, "places",
			 (json_int_t)c->n_places, "p_act", percentiles(b, 0), "p_weight",
			 percentiles(b, 1));
}

json_t *vq_sblock_stat(const struct vq_sblock *b, struct vq_err *err)
{
	json_t *j = b->o->method == VQ_METHOD_GPTQ  ? gptq_stat(b)
		    : b->o->method == VQ_METHOD_AWQ ? vq_sblock_awq_stat(b)
						    : clip_stat(b);

	if (!j)
		vq_fail(err, VQ_E_SYS, "memory: cannot make the statistics of a block");
	return j;
}

void vq_sblock_say(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;
	struct vq_str s = {0};
	uint32_t i, k;

	if (b->o->method == VQ_METHOD_AWQ) {
		vq_sblock_awq_say(b);
		return;
	}
	if (b->o->method == VQ_METHOD_GPTQ) {
		vq_info("units %u-%u: error %.4g, loss %.4g, damping %g, %u rows, %.1f s", b->first,
			b->last, c->error, c->gptq.loss, c->gptq.damp, c->n_rows, c->seconds);
		return;
	}
	for (k = 0; k < 2; k++) {
		vq_str_puts(&s, k ? "; w" : "a");
		for (i = 0; i < b->n_places; i++)
			vq_str_printf(&s, "%s%g", i % VQ_N_SLOTS || i == 0 ? " " : " | ",
				      vq_clip_percentiles[b->choice[2 * i + k]]);
	}
	vq_info("units %u-%u: error %.4g -> %.4g (layerwise %.4g)%s, %u rows, %llu evaluations, "
		"%.1f s; clips %s",
		b->first, b->last, c->plain, c->error, c->layerwise,
		c->veo ? " with effect on the final output" : "", c->n_rows,
		(unsigned long long)c->n_evals, c->seconds, s.s ? s.s : "");
	vq_str_free(&s);
}
