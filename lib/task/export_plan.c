/* Exporting: what becomes of each tensor, and what a format cannot hold. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "task/export_parts.h"

#define HALF_MAX 65504.0f

const char *vq_export_name(int to)
{
	static const char *const names[] = {"awq", "gptq", "compressed-tensors", "bnb", "gguf"};

	return names[to];
}

static int refuse(const struct vq_export *x, const struct vq_export_item *i, struct vq_err *err,
		  const char *what)
{
	return vq_fail(err, VQ_E_DATA, "%s: '%s': %s", x->v->label, i->name->name, what);
}

int vq_export_acts_of(const struct vq_export *x, const struct vq_export_item *i)
{
	return i->act.bits == VQ_ACT_FLOAT || x->o->acts < VQ_EXPORT_ACTS_DYNAMIC
		       ? VQ_EXPORT_ACTS_DROP
		       : x->o->acts;
}

/* --- what all formats leave out --- */

static int check_input(const struct vq_export *x, struct vq_export_item *i,
		       const struct vq_export_tensor *t, struct vq_err *err)
{
	char what[256];
	int rc = t->transform ? vq_export_fold_find(x, i, t->transform, err) : VQ_OK;

	if (rc < 0)
		return rc;
	if (t->act.bits == VQ_ACT_FLOAT)
		return VQ_OK;
	if (x->o->acts == VQ_EXPORT_ACTS_REFUSE) {
		snprintf(what, sizeof(what),
			 "its input is quantized to %u bits, which %s cannot say; --acts-as drop "
			 "leaves inputs floating point%s",
			 t->act.bits, vq_export_name(x->o->to),
			 x->o->to == VQ_EXPORT_CT ? ", --acts-as dynamic-int8 takes 8 bits" : "");
		return refuse(x, i, err, what);
	}
	if (x->o->acts == VQ_EXPORT_ACTS_STATIC && i->as == VQ_AS_CODES &&
	    t->act.range != VQ_RANGE_STATIC)
		return refuse(x, i, err,
			      "has no stored range for its input; search again with vqlm-search "
			      "--acts static, or take --acts-as dynamic-int8");
	return VQ_OK;
}

/* --- words of 32 bits: AWQ, GPTQ, compressed-tensors --- */

static int check_zeros(const struct vq_export *x, const struct vq_export_item *i,
		       const struct vq_export_tensor *t, struct vq_err *err)
{
	size_t n = (size_t)i->n_out * t->p.n_groups, j;
	uint8_t *zero;
	int rc = VQ_OK;

	if (i->sym || x->o->gptq_v2)
		return VQ_OK;
	zero = vq_alloc(n, 1, err);
	if (!zero)
		return VQ_E_SYS;
	vq_unpack_zeros(t->p.zero, i->n_out, t->p.n_groups, zero);
	for (j = 0; rc == VQ_OK && j < n; j++)
		if (zero[j] == 0)
			rc = refuse(x, i, err,
				    "has a zero point of 0, which the first GPTQ format cannot "
				    "hold; take --gptq-format v2");
	vq_free(zero);
	return rc;
}

static int check_words(const struct vq_export *x, const struct vq_export_item *i,
		       const struct vq_export_tensor *t, struct vq_err *err)
{
	int to = x->o->to, by_out = to == VQ_EXPORT_AWQ || to == VQ_EXPORT_GPTQ || !i->sym;
	int packed = to != VQ_EXPORT_CT || x->o->acts < VQ_EXPORT_ACTS_DYNAMIC;
	uint32_t side;
	char what[256];

	if (i->nf)
		return refuse(x, i, err,
			      i->nf == 4 ? "is NF4; want --to bnb"
					 : "is NF3, which no engine reads");
	if (to == VQ_EXPORT_AWQ && i->bits != 4) {
		snprintf(what, sizeof(what),
			 "has %u bits, AWQ has 4; want --to gptq or "
			 "compressed-tensors, or vqlm-search -w 4",
			 i->bits);
		return refuse(x, i, err, what);
	}
	if (packed && i->bits != 2 && i->bits != 4 && i->bits != 8 &&
	    !(to == VQ_EXPORT_GPTQ && i->bits == 3)) {
		snprintf(what, sizeof(what), "has %u bits, %s has 2, %s4 and 8; want --to gguf",
			 i->bits, vq_export_name(to), to == VQ_EXPORT_GPTQ ? "3, " : "");
		return refuse(x, i, err, what);
	}
	side = to == VQ_EXPORT_GPTQ ? 32 : 32 / i->bits; /* AutoGPTQ's shapes are in steps of 32 */
	if (packed && (i->n_in % side || (by_out && i->n_out % side))) {
		snprintf(what, sizeof(what), "is [%u, %u]; %s wants sides that are multiples of %u",
			 i->n_out, i->n_in, vq_export_name(to), side);
		return refuse(x, i, err, what);
	}
	return to == VQ_EXPORT_GPTQ ? check_zeros(x, i, t, err) : VQ_OK;
}

/* --- blocks of 32: GGUF --- */

/* Values u - z of each row fit a signed byte, so Q8_0 holds them whatever the bits. */
static int fits_q8(const struct vq_export_item *i)
{
	return i->bits < 8 || i->sym;
}

/* Q4_1 has the product of scale and zero point in float16. */
static float largest_minimum(const struct vq_export_tensor *t)
{
	size_t n = vq_packed_n_scales(t->p.n_out, t->p.n_groups), i;
	float most = 0;

	for (i = 0; i < n; i++)
		most = fmaxf(most, vq_f16_to_f32(t->p.scale[i]) * t->p.zero[i]);
	return most;
}

static int check_blocks(const struct vq_export *x, struct vq_export_item *i,
			const struct vq_export_tensor *t, struct vq_err *err)
{
	char what[256];

	if (i->nf)
		return refuse(x, i, err,
			      "is in NF codes, which GGUF lacks; want --to bnb, or "
			      "vqlm-search --method rtn");
	if (i->n_in % VQ_GGML_BLOCK || i->group % VQ_GGML_BLOCK) {
		snprintf(what, sizeof(what),
			 "has %u inputs in groups of %u; GGUF wants multiples of %u", i->n_in,
			 i->group ? i->group : i->n_in, VQ_GGML_BLOCK);
		return refuse(x, i, err, what);
	}
	if (!fits_q8(i))
		return refuse(x, i, err,
			      "has 8 bits and zero points, which GGUF lacks; want "
			      "vqlm-search --w-sym");
	if (i->bits == 4 && !i->sym && largest_minimum(t) > HALF_MAX)
		return refuse(x, i, err, "has a minimum beyond float16");
	i->block = i->bits != 4 ? VQ_GGML_Q8_0 : i->sym ? VQ_GGML_Q4_0 : VQ_GGML_Q4_1;
	return VQ_OK;
}

/* --- items --- */

static int check_codes(const struct vq_export *x, struct vq_export_item *i,
		       const struct vq_export_tensor *t, struct vq_err *err)
{
	if (x->o->to == VQ_EXPORT_GGUF)
		return check_blocks(x, i, t, err);
	if (x->o->to != VQ_EXPORT_BNB)
		return check_words(x, i, t, err);
	return i->nf == 4
		       ? VQ_OK
		       : refuse(x, i, err,
				i->nf ? "is NF3, which no engine reads"
				      : "is on a uniform grid, bnb holds NF4; want another --to, "
					"or vqlm-search --method nf4");
}

/* The embedding and the head are matrices that no engine has in words, and that GGUF has in blocks. */
static int wants_codes(const struct vq_export *x, const struct vq_name *n)
{
	if (!n->linear)
		return x->o->to == VQ_EXPORT_GGUF;
	return (vq_search_part_of(n->name) & x->o->parts) != 0;
}

static int plan_one(struct vq_export *x, struct vq_export_item *i, const struct vq_name *n,
		    struct vq_err *err)
{
	struct vq_export_tensor t;
	uint32_t d;
	int rc = vq_export_open(&t, x->v, n, err);

	if (rc < 0)
		return rc;
	*i = (struct vq_export_item){.name = n, .act = t.act, .n_in = 1};
	i->n_out = (uint32_t)n->dims[0];
	for (d = 1; d < n->n_dims; d++)
		i->n_in *= (uint32_t)n->dims[d];
	if (!t.t.data) {
		i->as = wants_codes(x, n) ? VQ_AS_CODES : VQ_AS_HALF;
		i->bits = t.p.bits;
		i->group = t.p.group;
		i->sym = t.p.sym;
		i->nf = t.nf;
	}
	rc = check_input(x, i, &t, err);
	if (rc == VQ_OK && i->as == VQ_AS_CODES)
		rc = check_codes(x, i, &t, err);
	vq_export_close(&t);
	return rc;
}

/* --- one group for the whole file --- */

/* 1 when groups of g inputs cut those of the item into whole parts. */
static int divides(const struct vq_export_item *i, uint32_t g)
{
	return i->n_in % g == 0 && (i->group == 0 || i->group >= i->n_in || i->group % g == 0);
}

/* The largest group that cuts the groups of every matrix: scales are then repeated, not changed. */
static int choose_group(struct vq_export *x, struct vq_err *err)
{
	static const uint32_t sizes[] = {128, 64, 32};
	const struct vq_export_item *bad = NULL;
	int rows = x->o->to != VQ_EXPORT_AWQ;
	size_t i, k;

	for (i = 0; i < x->n; i++)
		rows &= x->items[i].as != VQ_AS_CODES || x->items[i].group == 0;
	if (rows || x->o->to == VQ_EXPORT_BNB || x->o->to == VQ_EXPORT_GGUF)
		return VQ_OK;
	for (k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		bad = NULL;
		for (i = 0; i < x->n && !bad; i++)
			if (x->items[i].as == VQ_AS_CODES && !divides(&x->items[i], sizes[k]))
				bad = &x->items[i];
		if (!bad) {
			x->group = sizes[k];
			return VQ_OK;
		}
	}
	return vq_fail(err, VQ_E_DATA,
		       "%s: '%s': has %u inputs in groups of %u, which no groups of 32, 64 or 128 "
		       "cut evenly; want vqlm-search --group 0 and --to compressed-tensors",
		       x->v->label, bad->name->name, bad->n_in,
		       bad->group ? bad->group : bad->n_in);
}

/* AWQ and GPTQ have one number of bits for all. */
static int check_same(const struct vq_export *x, struct vq_err *err)
{
	const struct vq_export_item *first = NULL, *i;

	for (i = x->items; i < x->items + x->n; i++) {
		if (i->as != VQ_AS_CODES)
			continue;
		if (!first)
			first = i;
		if (x->o->to == VQ_EXPORT_GPTQ && i->bits != first->bits)
			return vq_fail(err, VQ_E_DATA,
				       "%s: '%s' has %u bits and '%s' %u, gptq has one for all; "
				       "want --to compressed-tensors",
				       x->v->label, first->name->name, first->bits, i->name->name,
				       i->bits);
	}
	return first ? VQ_OK
		     : vq_fail(err, VQ_E_DATA,
			       "%s: none of the parts asked for is quantized in it; see --parts",
			       x->v->label);
}

int vq_export_plan(struct vq_export *x, struct vq_err *err)
{
	size_t i;
	int rc = vq_names_list(&x->config, &x->names, &x->n, err);

	if (rc < 0)
		return rc;
	x->items = vq_calloc(x->n, sizeof(*x->items), err);
	if (!x->items)
		return VQ_E_SYS;
	for (i = 0; rc == VQ_OK && i < x->n; i++)
		rc = plan_one(x, &x->items[i], &x->names[i], err);
	if (rc == VQ_OK)
		rc = check_same(x, err);
	if (rc == VQ_OK)
		rc = vq_export_fold(x, err);
	if (rc == VQ_OK)
		rc = vq_export_image(x, err);
	return rc < 0 ? rc : choose_group(x, err);
}
