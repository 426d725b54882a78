/* A model from a packed file. */
#include "model/packed.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/packed_entry.h"
#include "quant/agrid.h"
#include "quant/transform_attr.h"
#include "stream/record.h"

/* --- small members --- */

json_t *vq_vqm_model_json(const struct vq_vqm *v, struct vq_err *err)
{
	return vq_packed_json(v, "model.json", err);
}

int vq_vqm_config(struct vq_config *c, const struct vq_vqm *v, struct vq_err *err)
{
	json_t *j = vq_vqm_model_json(v, err);
	int rc;

	if (!j)
		return VQ_E_DATA;
	rc = vq_config_parse(c, json_object_get(j, "config"), v->label, err);
	json_decref(j);
	return rc;
}

int vq_vqm_tokenizer(struct vq_tokenizer **t, const struct vq_vqm *v, struct vq_err *err)
{
	const struct vq_vqm_member *m = vq_vqm_find(v, "tokenizer.json");
	const struct vq_vqm_member *added = vq_vqm_find(v, "tokenizer_config.json");

	if (!m)
		m = vq_vqm_find(v, "tokenizer.model");
	if (!added)
		added = vq_vqm_find(v, "added_tokens.json");
	if (!m)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want tokenizer.json or tokenizer.model, got neither", v->label);
	return vq_tokenizer_new(t, (const char *)m->data, m->n, v->label,
				added ? (const char *)added->data : NULL, added ? added->n : 0,
				err);
}

uint64_t vq_vqm_weight_bytes(const struct vq_vqm *v)
{
	char json[VQ_NAME_MAX + 8];
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < v->n; i++) {
		snprintf(json, sizeof(json), "%.*s.json", VQ_NAME_MAX, v->members[i].name);
		if (vq_vqm_find(v, json))
			n += v->members[i].n;
	}
	return n;
}

/* --- tensors --- */

static int bind_plain(struct vq_model *m, const struct vq_packed_entry *e, struct vq_err *err)
{
	struct vq_tensor t;
	int rc = vq_packed_plain(e, &t, err);

	if (rc < 0)
		return rc;
	rc = vq_model_bind(m, e->name->name, &t, err);
	return rc < 0 ? vq_err_prefix(err, "%s", e->v->label) : VQ_OK;
}

/* Reading the grids of a mapped file would be reading all over it: that waits for the first product. */
static int check_later(struct vq_model *m, const struct vq_packed_entry *e, struct vq_linear *l,
		       struct vq_err *err)
{
	struct vq_unchecked *u = vq_calloc(1, sizeof(*u), err);
	int rc = u ? vq_model_keep(m, e->name->unit, u, err) : VQ_E_SYS;
	if (rc < 0)
		return rc;
	snprintf(u->label, sizeof(u->label), "%s", e->label);
	l->unchecked = u;
	return VQ_OK;
}

static int bind_packed(struct vq_model *m, const struct vq_packed_entry *e, struct vq_err *err)
{
	int embed = strcmp(e->name->name, "decoder.embed.weight") == 0;
	struct vq_linear *l = embed ? &m->decoder.head : vq_model_linear(m, e->name->name);
	struct vq_packed *p;
	void *own = NULL;
	int rc;

	if (!l)
		return vq_fail(err, VQ_E_DATA, "%s: is no linear layer, want layout plain",
			       e->label);
	p = vq_calloc(1, sizeof(*p), err);
	rc = p ? vq_model_keep(m, e->name->unit, p, err) : VQ_E_SYS;
	if (rc == VQ_OK)
		rc = vq_packed_linear(e, l->n_out, l->n_in, p, &own, err);
	if (rc == VQ_OK && own)
		rc = vq_model_keep(m, e->name->unit, own, err);
	if (rc == VQ_OK && e->v->whole)
		rc = vq_packed_check(p, e->label, err);
	if (rc < 0)
		return rc;
	if (embed)
		m->decoder.embed_packed = p;
	/* The embedding has the head's shape, and with tied embeddings is the head. */
	if (embed && !m->cfg.decoder.tied)
		return VQ_OK;
	l->packed = p;
	l->w = NULL;
	return e->v->whole ? VQ_OK : check_later(m, e, l, err);
}

/* --- inputs --- */

/* The ranges that the grid of an input stores: the plain tensor X.range, f32 [2, n]. */
static int bind_ranges(struct vq_model *m, const struct vq_packed_entry *e, struct vq_linear *l,
		       struct vq_err *err)
{
	int vision = strncmp(e->name->name, "vision.", 7) == 0;
	struct vq_packed_entry r = {.v = e->v};
	char stem[VQ_NAME_MAX + 1];
	struct vq_tensor t;
	int rc;

	if (l->act.bits == VQ_ACT_FLOAT || l->act.range == VQ_RANGE_TOKEN)
		return VQ_OK;
	if (l->act.range == VQ_RANGE_POSITION && !vision)
		return vq_fail(err, VQ_E_DATA,
			       "%s: act: ranges by position outside the vision tower", e->label);
	snprintf(stem, sizeof(stem), "%.*s", (int)(strlen(e->name->name) - strlen(".weight")),
		 e->name->name);
	rc = vq_packed_beside(&r, stem, ".range", &t, err);
	if (rc == VQ_OK && (t.dtype != VQ_F32 || t.n_dims != 2 || t.dims[0] != 2))
		rc = vq_fail(err, VQ_E_DATA, "%s: want f32 [2, ranges]", r.label);
	if (rc == VQ_OK)
		rc = vq_agrid_set_ranges(&l->act, t.data, (size_t)t.dims[1], l->n_in,
					 vision ? vq_vision_positions(&m->cfg) : 0, r.label, err);
	json_decref(r.j);
	return rc;
}

/* What the layers before have brought: linears that share an input point to one. */
struct loader {
	struct vq_model *m;
	struct shared {
		char from[VQ_NAME_MAX + 1];
		uint32_t unit;
		enum vq_transform_kind kind;
		struct vq_transform *t; /* the model's */
	} * shared;
	size_t n_shared, room;
};

/* A part of a transform from the member of its name. */
static int load_part(const struct vq_packed_entry *e, const struct vq_transform_attr *a,
		     enum vq_transform_part p, struct vq_transform *t, struct vq_err *err)
{
	struct vq_packed_entry part = {.v = e->v};
	struct vq_tensor v;
	int rc = vq_packed_beside(&part, a->from, vq_transform_suffix(p), &v, err);

	if (rc == VQ_OK)
		rc = vq_transform_set(t, a, p, &v, part.label, err);
	json_decref(part.j);
	return rc;
}

/* The linear's own transform, which others may share. */
static int load_transform(struct loader *o, const struct vq_packed_entry *e,
			  const struct vq_transform_attr *a, struct vq_err *err)
{
	struct vq_transform *t;
	struct shared *s;
	uint32_t p;
	int rc = VQ_OK;

	if (o->n_shared == o->room) {
		rc = vq_grow((void **)&o->shared, o->room, 2 * o->room + 64, sizeof(*s), err);
		if (rc < 0)
			return rc;
		o->room = 2 * o->room + 64;
	}
	t = vq_calloc(1, sizeof(*t), err);
	if (!t)
		return VQ_E_SYS;
	rc = vq_model_keep(o->m, e->name->unit, t, err);
	for (p = 0; rc == VQ_OK && p < a->n_parts; p++)
		rc = load_part(e, a, p, t, err);
	if (rc < 0)
		return rc;
	s = &o->shared[o->n_shared++];
	*s = (struct shared){.unit = e->name->unit, .kind = a->kind, .t = t};
	snprintf(s->from, sizeof(s->from), "%s", a->from);
	return VQ_OK;
}

static int set_transform(struct loader *o, const struct vq_packed_entry *e, const json_t *j,
			 struct vq_err *err)
{
	struct vq_linear *l = vq_model_linear(o->m, e->name->name);
	struct vq_transform_attr a;
	size_t i;
	int rc;

	if (!e->name->linear || !l)
		return vq_fail(err, VQ_E_DATA, "%s: has a transform but is no linear layer",
			       e->label);
	rc = vq_transform_attr_parse(&a, j, l->n_in, e->label, err);
	if (rc == VQ_OK && vq_transform_is_own(&a, e->name->name))
		rc = load_transform(o, e, &a, err);
	if (rc < 0)
		return rc;
	for (i = o->n_shared; i-- > 0;) {
		const struct shared *s = &o->shared[i];

		if (s->unit == e->name->unit && s->kind == a.kind && s->t->n == a.n &&
		    s->t->block == a.block && strcmp(s->from, a.from) == 0) {
			l->transform = s->t;
			return VQ_OK;
		}
	}
	return vq_fail(err, VQ_E_DATA,
		       "%s: its transform is that of '%.100s', which has none such ahead of it in "
		       "unit %u",
		       e->label, a.from, e->name->unit);
}

/* Grid and transform of the input. */
static int set_input(struct loader *o, const struct vq_packed_entry *e, struct vq_err *err)
{
	const json_t *attrs = json_object_get(e->j, "attrs");
	const json_t *act = json_object_get(attrs, "act");
	const json_t *transform = json_object_get(attrs, "transform");
	struct vq_linear *l = vq_model_linear(o->m, e->name->name);
	int rc = transform ? set_transform(o, e, transform, err) : VQ_OK;

	if (!l && o->m->cfg.decoder.tied && strcmp(e->name->name, "decoder.embed.weight") == 0)
		l = &o->m->decoder.head;
	if (rc < 0 || !act)
		return rc;
	if (!l)
		return vq_fail(err, VQ_E_DATA, "%s: has an activation grid but is no linear layer",
			       e->label);
	if (vq_agrid_parse(&l->act, act, e->label, err) < 0)
		return VQ_E_DATA;
	rc = bind_ranges(o->m, e, l, err);
	if (rc == VQ_OK && vq_linear_is_integer(l) && vq_qgemm_check(l->packed, &l->act, err) < 0)
		rc = vq_err_prefix(err, "%s", e->label);
	return rc;
}

static int bind_entry(struct loader *o, struct vq_packed_entry *e, struct vq_err *err)
{
	const char *layout = NULL;
	int rc = vq_packed_open(e, e->name->name, &layout, err);

	if (rc == VQ_OK && strcmp(layout, "plain") == 0)
		rc = bind_plain(o->m, e, err);
	else if (rc == VQ_OK && strcmp(layout, VQ_LAYOUT) == 0)
		rc = bind_packed(o->m, e, err);
	else if (rc == VQ_OK)
		rc = vq_fail(err, VQ_E_DATA, "%s: want layout plain or %s, got '%.20s'", e->label,
			     VQ_LAYOUT, layout);
	if (rc == VQ_OK)
		rc = set_input(o, e, err);
	json_decref(e->j);
	e->j = NULL;
	return rc;
}

int vq_model_from_vqm(struct vq_model *m, const struct vq_vqm *v, struct vq_err *err)
{
	struct vq_name *names = NULL;
	struct loader o = {.m = m};
	struct vq_config c;
	size_t n = 0, i;
	int rc = vq_vqm_config(&c, v, err);

	memset(m, 0, sizeof(*m));
	if (rc == VQ_OK)
		rc = vq_model_new(m, &c, err);
	if (rc < 0)
		return rc;
	rc = vq_names_list(&c, &names, &n, err);
	for (i = 0; rc == VQ_OK && i < n; i++) {
		struct vq_packed_entry e = {.v = v, .name = &names[i]};

		rc = bind_entry(&o, &e, err);
	}
	vq_vqm_read_ahead(v, c.decoder.tied ? NULL : "decoder.embed.weight");
	vq_free(names);
	vq_free(o.shared);
	if (rc < 0)
		vq_model_free(m);
	return rc;
}
