/* Activation schemes. */
#include "task/search_scheme.h"

#include "model/model.h"

/* Q-VLM's paper, 4.3: a range for each input in the language model, for each position in the vision tower. */
static void paper(struct vq_agrid *g, const char *name)
{
	int vision = vq_search_part_of(name) == VQ_PART_VISION;

	g->range = vision ? VQ_RANGE_POSITION : VQ_RANGE_CHANNEL;
	g->group = vision ? 0 : 1;
}

struct vq_agrid vq_scheme_grid(const struct vq_search_opts *o, const struct vq_config *c,
			       const char *name, uint32_t n_in)
{
	struct vq_agrid g = o->a;

	g.clip = 1;
	if (!(o->parts & vq_search_part_of(name)))
		g.bits = VQ_ACT_FLOAT;
	if (g.bits == VQ_ACT_FLOAT)
		return g;
	switch (o->acts) {
	case VQ_ACTS_GROUP: break;
	case VQ_ACTS_TOKEN: g.group = 0; break;
	case VQ_ACTS_STATIC: g.range = VQ_RANGE_STATIC; break;
	case VQ_ACTS_PAPER: paper(&g, name); break;
	}
	g.n_ranges = vq_agrid_n_ranges(&g, n_in, c->has_vision ? vq_vision_positions(c) : 0);
	return g;
}

int vq_scheme_stores(const struct vq_search_opts *o)
{
	return o->a.bits != VQ_ACT_FLOAT && o->acts >= VQ_ACTS_STATIC;
}

const char *vq_scheme_name(const struct vq_search_opts *o)
{
	static const char *const names[] = {"group", "token", "static", "paper"};

	return o->a.bits == VQ_ACT_FLOAT ? NULL : names[o->acts];
}

int vq_scheme_check(const struct vq_search_opts *o, struct vq_err *err)
{
	if (o->acts == VQ_ACTS_PAPER && o->a.sym)
		return vq_fail(err, VQ_E_USAGE,
			       "--acts paper is asymmetric: it goes without --a-sym");
	if (o->w.bits == 16 && (o->rotate != VQ_ROTATE_NONE || o->smooth != VQ_SMOOTH_OFF))
		return vq_fail(err, VQ_E_USAGE,
			       "-w 16 leaves weights as they are, and --rotate and --smooth change "
			       "them: give -w fewer bits, or --rotate none and --smooth off");
	if (o->awq_joint && vq_scheme_stores(o))
		return vq_fail(
			err, VQ_E_USAGE,
			"--awq-loss joint wants ranges that are found anew: --acts group or token");
	return VQ_OK;
}
