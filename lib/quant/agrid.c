/* Activation grids as JSON. */
#include "quant/agrid.h"

#include <string.h>

static const char *const range_names[] = {"token", "static", "channel", "position"};
#define N_RANGES (sizeof(range_names) / sizeof(range_names[0]))

json_t *vq_agrid_json(const struct vq_agrid *g)
{
	json_t *j = json_pack("{s:I, s:I, s:b, s:f}", "bits", (json_int_t)g->bits, "group",
			      (json_int_t)g->group, "sym", g->sym != 0, "clip", (double)g->clip);

	/* Where nothing is stored the attribute is that of every version. */
	if (j && g->range != VQ_RANGE_TOKEN &&
	    json_object_set_new(j, "range", json_string(range_names[g->range])) < 0) {
		json_decref(j);
		return NULL;
	}
	return j;
}

static int parse_range(struct vq_agrid *g, const json_t *j, const char *label, struct vq_err *err)
{
	const char *word = NULL;
	size_t i = 0;

	if (vq_json_str(j, "range", range_names[VQ_RANGE_TOKEN], &word, label, err) < 0)
		return VQ_E_DATA;
	while (i < N_RANGES && strcmp(word, range_names[i]) != 0)
		i++;
	if (i == N_RANGES)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: act: want range token, static, channel or position, got '%.20s'",
			label, word);
	g->range = (enum vq_act_range)i;
	if ((g->range == VQ_RANGE_CHANNEL && g->group != 1) ||
	    (g->range == VQ_RANGE_POSITION && g->group != 0))
		return vq_fail(err, VQ_E_DATA, "%s: act: ranges by %s want group %d, got %u", label,
			       word, g->range == VQ_RANGE_CHANNEL, g->group);
	if (g->range != VQ_RANGE_TOKEN && g->clip != 1)
		return vq_fail(err, VQ_E_DATA, "%s: act: stored ranges want clip 1, got %g", label,
			       (double)g->clip);
	return VQ_OK;
}

int vq_agrid_set_ranges(struct vq_agrid *g, const float *ranges, size_t n, uint32_t n_in,
			uint32_t n_positions, const char *label, struct vq_err *err)
{
	uint32_t want = vq_agrid_n_ranges(g, n_in, n_positions);

	if (n != want || n == 0)
		return vq_fail(err, VQ_E_DATA, "%s: want %u ranges, got %zu", label, want, n);
	if (vq_agrid_check_ranges(ranges, ranges + n, want, label, err) < 0)
		return VQ_E_DATA;
	g->lo = ranges;
	g->hi = ranges + n;
	g->n_ranges = want;
	return VQ_OK;
}

int vq_agrid_parse(struct vq_agrid *g, const json_t *j, const char *label, struct vq_err *err)
{
	struct vq_agrid t = {0};

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
	if (parse_range(&t, j, label, err) < 0)
		return VQ_E_DATA;
	*g = t;
	return VQ_OK;
}
