/* What AWQ chose in a block, as a stream's record and as lines for people. */
#include "base/log.h"
#include "base/str.h"
#include "task/search_awq.h"
#include "task/search_sblock.h"

static const char *const slot_names[VQ_N_SLOTS] = {"qkv", "o", "up", "down"};

json_t *vq_sblock_awq_stat(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;
	json_t *j =
		json_pack("{s:[I,I],s:I,s:f,s:I,s:I}", "units", (json_int_t)b->first,
			  (json_int_t)b->last, "rows", (json_int_t)c->n_rows, "error", c->error,
			  "evaluations", (json_int_t)c->n_evals, "places", (json_int_t)c->n_places);
	json_t *ratio = json_array(), *plain = json_array(), *loss = json_array(),
	       *clip = json_array();
	uint32_t i;
	int bad = !j || !ratio || !plain || !loss || !clip;

	for (i = 0; !bad && b->awq && i < b->n_places; i++) {
		const struct vq_awq_choice *a = &b->awq[i].scale;
		int yes = vq_sblock_awq_scaled(b, &b->places[i]), q = b->places[i].w.bits != 16;

		bad = json_array_append_new(ratio, yes ? json_real((double)a->ratio / VQ_AWQ_RATIOS)
						       : json_null()) < 0 ||
		      json_array_append_new(plain, yes ? json_real(a->loss[0]) : json_null()) < 0 ||
		      json_array_append_new(loss,
					    yes ? json_real(a->loss[a->ratio]) : json_null()) < 0 ||
		      json_array_append_new(clip, q ? json_real(b->awq[i].clip) : json_null()) < 0;
	}
	bad = bad || json_object_set(j, "ratio", ratio) < 0 ||
	      json_object_set(j, "loss_0", plain) < 0 || json_object_set(j, "loss", loss) < 0 ||
	      json_object_set(j, "clip", clip) < 0;
	json_decref(ratio);
	json_decref(plain);
	json_decref(loss);
	json_decref(clip);
	if (bad)
		json_decref(j);
	return bad ? NULL : j;
}

/* A line a layer: of its places, the ratio and the losses without and with its scales, and the mean clip. */
void vq_sblock_awq_say(const struct vq_sblock *b)
{
	const struct vq_block_cost *c = &b->cost;
	uint32_t i;
	struct vq_str s = {0};

	for (i = 0; b->awq && i < b->n_places; i++) {
		const struct vq_place *p = &b->places[i];
		const struct vq_awq_choice *a = &b->awq[i].scale;

		vq_str_puts(&s, p->slot ? ", " : "");
		vq_str_puts(&s, b->projector ? "linear" : slot_names[p->slot]);
		if (!b->projector && vq_model_layer(b->full, p->unit)->n_experts &&
		    p->slot >= VQ_SLOT_UP)
			vq_str_printf(&s, " of expert %u", p->expert);
		if (vq_sblock_awq_scaled(b, p))
			vq_str_printf(&s, " ratio %g loss %.3g -> %.3g",
				      (double)a->ratio / VQ_AWQ_RATIOS, a->loss[0],
				      a->loss[a->ratio]);
		if (p->w.bits != 16)
			vq_str_printf(&s, " clip %.3f", b->awq[i].clip);
		if (i + 1 < b->n_places && p[1].unit == p->unit)
			continue;
		vq_info("unit %u: %s", p->unit, s.s ? s.s : "");
		vq_str_free(&s);
	}
	vq_info("units %u-%u: error %.4g, %u rows, %llu evaluations, %.1f s", b->first, b->last,
		c->error, c->n_rows, (unsigned long long)c->n_evals, c->seconds);
}
