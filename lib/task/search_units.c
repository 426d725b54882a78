/* Block after block. */
#include "task/search_units.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "quant/rtn.h"
#include "task/search_scheme.h"

/* Fewer samples than this are too few to choose clips by. */
#define FEW_SAMPLES 8u

/* Without a plan every unit is a block. */
static int plan_alone(struct vq_plan *p, uint32_t n_units, struct vq_err *err)
{
	uint32_t i;

	p->blocks = vq_alloc(n_units, sizeof(*p->blocks), err);
	if (!p->blocks)
		return VQ_E_SYS;
	for (i = 0; i < n_units; i++)
		p->blocks[i] = (struct vq_block){i, i};
	p->n_units = p->n_blocks = n_units;
	return VQ_OK;
}

static int check_range(const struct vq_units *u, struct vq_err *err)
{
	uint32_t first = u->o->first_unit, last = u->o->last_unit;
	const struct vq_block *a, *b;

	a = &u->plan.blocks[vq_plan_block_of(&u->plan, first)];
	if (a->first != first)
		return vq_fail(err, VQ_E_DATA,
			       "--blocks: unit %u is within the planned block %u-%u; begin with %u",
			       first, a->first, a->last, a->first);
	if (last >= u->plan.n_units)
		return VQ_OK;
	b = &u->plan.blocks[vq_plan_block_of(&u->plan, last)];
	if (b->last != last)
		return vq_fail(err, VQ_E_DATA,
			       "--blocks: unit %u is within the planned block %u-%u; end with %u",
			       last, b->first, b->last, b->last);
	return VQ_OK;
}

static void warn_about(const struct vq_units *u)
{
	const struct vq_search_opts *o = u->o;
	uint32_t i;
	int sketched = 0, sloped = 0;

	if (u->have_plan && o->method == VQ_METHOD_QVLM && o->a.bits != VQ_ACT_FLOAT &&
	    o->a.bits != u->plan.bits)
		vq_warn("the plan was made for %u-bit activations, this search is for %u; "
			"vqlm-entropy -a %u makes one for them",
			u->plan.bits, o->a.bits, o->a.bits);
	if (u->have_plan && vq_search_descends(o) && o->rotate != VQ_ROTATE_NONE &&
	    u->plan.space == VQ_SPACE_RAW)
		vq_warn("the plan was made for inputs as they are, this search rotates them; "
			"vqlm-entropy --space hadamard makes one for that");
	if (u->acts.n_samples < FEW_SAMPLES && (vq_search_chooses(o) || vq_scheme_stores(o)))
		vq_warn("%u calibration samples are few to choose clips by; vqlm-calib -n 64 is "
			"usual",
			u->acts.n_samples);
	for (i = 0; i < u->acts.n_samples; i++) {
		sketched = sketched || u->acts.samples[i].sketch;
		sloped = sloped || u->acts.samples[i].entropy;
	}
	if (!u->acts.cfg->has_vision || o->first_unit >= vq_config_projector_unit(u->acts.cfg))
		return;
	if (!u->acts.n_images && vq_scheme_stores(o))
		return; /* refused when it comes to them, if they are quantized */
	if (!u->acts.n_images)
		vq_warn("no calibration sample has a picture: vision tower and projector are "
			"rounded without clipping");
	else if (o->method == VQ_METHOD_QVLM && o->veo && !sketched && u->acts.n_images &&
		 (o->parts & VQ_PART_VISION))
		vq_warn("no record stat/sketch: vision clips are chosen by the vision tower's "
			"output alone");
	else if (o->method == VQ_METHOD_QVLM && o->veo && o->veo_lambda > 0 && !sloped)
		vq_warn("no record stat/entropy_sketch: --veo-lambda has no effect");
}

int vq_units_begin(struct vq_units *u, const struct vq_config *c, struct vq_err *err)
{
	int rc = VQ_OK;

	if (!u->have_plan && u->o->method == VQ_METHOD_QVLM)
		return vq_fail(err, VQ_E_DATA,
			       "%s: no plan ahead of the weights; put vqlm-entropy between "
			       "vqlm-calib and vqlm-search",
			       u->label);
	if (!u->have_plan)
		rc = plan_alone(&u->plan, vq_config_n_units(c), err);
	if (rc == VQ_OK)
		rc = check_range(u, err);
	if (rc == VQ_OK)
		rc = vq_model_new(&u->full, c, err);
	if (rc == VQ_OK)
		rc = vq_model_new(&u->quant, c, err);
	if (rc < 0 || !vq_search_calibrates(u->o))
		return rc;
	if (u->acts.n_samples == 0 && vq_scheme_stores(u->o))
		rc = vq_fail(
			err, VQ_E_DATA,
			"%s: no calibration inputs, and --acts %s finds its ranges on them; run "
			"vqlm-calib with -d and -n above 0, or search with --acts group",
			u->label, vq_scheme_name(u->o));
	else if (u->acts.n_samples == 0)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: no calibration inputs; run vqlm-calib with -d and -n above 0, or "
			     "search %s",
			     u->label,
			     vq_search_rounds(u->o) ? "without --clip, --smooth and --rotate wush"
						    : "with --method rtn");
	if (rc == VQ_OK)
		warn_about(u);
	return rc;
}

static int bind(struct vq_units *u, const struct vq_held *h, struct vq_err *err)
{
	struct vq_tensor t = {h->rec.dtype, h->rec.n_dims, {0}, h->data};
	int rc;

	memcpy(t.dims, h->rec.dims, sizeof(t.dims));
	rc = vq_model_bind(&u->full, h->rec.name, &t, err);
	return rc < 0 ? rc : vq_model_bind(&u->quant, h->rec.name, &t, err);
}

/* What search decided goes out, and what it leaves alone. */
static int emit(struct vq_units *u, struct vq_sblock *b, struct vq_err *err)
{
	char name[64];
	json_t *stat;
	int rc = VQ_OK;
	size_t i;

	for (i = 0; rc >= 0 && i < u->pending.n; i++) {
		const struct vq_held *h = &u->pending.items[i];
		struct vq_held_list done = {0};
		struct vq_searched q = {0};

		rc = vq_sblock_round(b, h, &q, err);
		if (rc == 1)
			rc = vq_held_linear(&done, h, &q, err);
		else if (rc == 0)
			rc = vq_sblock_rewrite(b, h, &done, err);
		if (rc >= 0)
			rc = done.n ? vq_held_put(&done, u->out, err)
				    : vq_writer_put(u->out, &h->rec, h->data, err);
		vq_held_clear(&done);
		vq_searched_free(&q);
	}
	if (rc < 0)
		return rc;
	stat = vq_sblock_stat(b, err);
	if (!stat)
		return VQ_E_SYS;
	vq_sblock_name(u->block.first, u->block.last, name);
	rc = vq_writer_put_json(u->out, VQ_KIND_STAT, name, stat, err);
	json_decref(stat);
	return rc;
}

static int search_or_copy(struct vq_units *u, struct vq_sblock *b, struct vq_err *err)
{
	const struct vq_block_cost *c = vq_sblock_cost(b);
	struct vq_held_list done = {0};
	char name[64];
	int rc, found = 0;

	vq_sblock_name(u->block.first, u->block.last, name);
	if (u->resume)
		found = vq_resume_block(u->resume, u->pending.items, u->pending.n, name, &done,
					err);
	rc = found < 0 ? found : VQ_OK;
	if (found == 1) {
		rc = vq_sblock_adopt(b, &done, err);
		if (rc == VQ_OK)
			rc = vq_held_put(&done, u->out, err);
		vq_info("units %u-%u: taken from the interrupted run", u->block.first,
			u->block.last);
	} else if (rc == VQ_OK) {
		rc = vq_sblock_search(b, err);
		if (rc == VQ_OK)
			rc = emit(u, b, err);
		if (rc == VQ_OK)
			vq_sblock_say(b);
	}
	vq_held_clear(&done);
	u->n_few += c->gptq.n_few;
	u->n_raised += c->gptq.n_raised;
	u->n_evals += c->n_evals;
	u->n_forwards += (double)c->n_places / c->per_layer;
	u->seconds += c->seconds;
	u->n_layers += u->block.last - u->block.first + 1;
	return rc;
}

/* Both streams go through the block, unless nothing follows that wants them. */
static int advance(struct vq_units *u, struct vq_err *err)
{
	uint32_t first = u->block.first, last = u->block.last;
	int rc = VQ_OK;

	if (!vq_search_calibrates(u->o))
		return VQ_OK;
	if (last < u->o->last_unit && last + 1 < u->plan.n_units) {
		rc = vq_acts_run(&u->acts, &u->full, first, last, &u->acts.full, err);
		if (rc == VQ_OK)
			rc = vq_acts_run(&u->acts, &u->quant, first, last, &u->acts.quant, err);
		if (rc == VQ_OK && u->acts.cfg->has_vision &&
		    last + 1 == vq_config_projector_unit(u->acts.cfg))
			rc = vq_acts_features(&u->acts, &u->full, err);
	}
	vq_acts_left(&u->acts, last);
	return rc;
}

static int finish_block(struct vq_units *u, struct vq_err *err)
{
	struct vq_sblock *b = NULL;
	uint32_t i;
	int rc = VQ_OK;

	for (i = u->block.first; rc == VQ_OK && i <= u->block.last; i++)
		rc = vq_model_check(&u->full, i, err);
	if (rc == VQ_OK && vq_search_calibrates(u->o))
		rc = vq_acts_enter(&u->acts, u->block.first, &u->full, err);
	if (rc == VQ_OK)
		rc = vq_sblock_open(&b, u->o, &u->acts, &u->full, &u->quant, &u->pending,
				    u->block.first, u->block.last, err);
	if (rc == VQ_OK)
		rc = search_or_copy(u, b, err);
	if (rc == VQ_OK)
		rc = advance(u, err);
	for (i = u->block.first; i <= u->block.last; i++) {
		vq_model_unbind(&u->full, i);
		vq_model_unbind(&u->quant, i);
	}
	vq_sblock_close(b);
	vq_held_clear(&u->pending);
	u->have_block = 0;
	return rc;
}

/* All elements are numbers. */
static int check_finite(const struct vq_held *h, struct vq_err *err)
{
	struct vq_tensor t = {h->rec.dtype, h->rec.n_dims, {0}, h->data};
	size_t n;

	memcpy(t.dims, h->rec.dims, sizeof(t.dims));
	if (vq_tensor_count(&t, &n) < 0)
		return vq_fail(err, VQ_E_DATA, "too large");
	return vq_rtn_check_finite(h->data, h->rec.dtype, n, err);
}

int vq_units_tensor(struct vq_units *u, struct vq_held *h, const struct vq_name *name,
		    struct vq_err *err)
{
	const struct vq_block *b;
	int rc = check_finite(h, err);

	if (rc == VQ_OK && name) {
		b = &u->plan.blocks[vq_plan_block_of(&u->plan, name->unit)];
		if (u->have_block && u->block.first != b->first)
			rc = finish_block(u, err);
		u->block = *b;
		u->have_block = 1;
	}
	if (rc < 0) {
		json_decref(h->rec.attrs);
		vq_free(h->data);
		return rc;
	}
	rc = vq_held_take(&u->pending, &h->rec, h->data, err);
	if (rc == VQ_OK && name)
		rc = bind(u, &u->pending.items[u->pending.n - 1], err);
	return rc;
}

int vq_units_end(struct vq_units *u, struct vq_err *err)
{
	int rc = u->have_block ? finish_block(u, err) : VQ_OK;

	if (rc == VQ_OK && u->n_few)
		vq_warn("at %u places there were fewer than 8 tokens per input, and damping was "
			"raised to 10 %%; more samples (vqlm-calib -n) or --rows give better codes",
			u->n_few);
	if (rc == VQ_OK && u->n_raised)
		vq_warn("at %u places the second moments could not be factored, and damping was "
			"raised until they could",
			u->n_raised);

	/* A transformer layer has four places, or more with experts; the trials of single places are counted as what they are. */
	if (rc == VQ_OK)
		vq_info("search: %llu block outputs evaluated, %.1f layer forwards for %u units, "
			"%.1f s",
			(unsigned long long)u->n_evals, u->n_forwards, u->n_layers, u->seconds);
	return rc;
}

void vq_units_free(struct vq_units *u)
{
	vq_held_clear(&u->pending);
	vq_acts_free(&u->acts);
	vq_model_free(&u->full);
	vq_model_free(&u->quant);
	vq_plan_free(&u->plan);
	vq_calib_meta_free(&u->meta);
}
