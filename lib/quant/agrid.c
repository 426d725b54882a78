/* Activation grids as JSON. */
#include "quant/agrid.h"

json_t *vq_agrid_json(const struct vq_agrid *g)
{
	return json_pack("{s:I, s:I, s:b, s:f}", "bits", (json_int_t)g->bits, "group",
			 (json_int_t)g->group, "sym", g->sym != 0, "clip", (double)g->clip);
}

int vq_agrid_parse(struct vq_agrid *g, const json_t *j, const char *label, struct vq_err *err)
{
	struct vq_agrid t;

	if (!json_is_object(j))
		return vq_fail(err, VQ_E_DATA, "%s: act: want an object", label);
	if (vq_json_u32(j, "bits", VQ_ACT_FLOAT, &t.bits, label, err) < 0 ||
	    vq_json_u32(j, "group", 0, &t.group, label, err) < 0 ||
	    vq_json_bool(j, "sym", 0, &t.sym, label, err) < 0 ||
	    vq_json_f32(j, "clip", 1, &t.clip, label, err) < 0)
		return VQ_E_DATA;
	if ((t.bits < 2 || t.bits > 8) && t.bits != VQ_ACT_FLOAT)
		return vq_fail(err, VQ_E_DATA, "%s: act: want bits 2..8 or 16, got %u", label,
			       t.bits);
	if (!(t.clip > 0 && t.clip <= 1))
		return vq_fail(err, VQ_E_DATA, "%s: act: want clip in (0, 1], got %g", label,
			       (double)t.clip);
	*g = t;
	return VQ_OK;
}
