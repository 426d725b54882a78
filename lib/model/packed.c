/* A model from a packed file. */
#include "model/packed.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/names.h"
#include "quant/agrid.h"
#include "quant/grid.h"
#include "quant/nf_packed.h"
#include "quant/transform_attr.h"
#include "stream/record.h"

static size_t align_up(size_t n)
{
	return (n + VQ_ALIGN - 1) / VQ_ALIGN * VQ_ALIGN;
}

int vq_packed_place(struct vq_packed_parts *p, uint32_t bits, uint32_t n_out, uint32_t n_in,
		    uint32_t n_groups, int sym)
{
	size_t n = vq_packed_n_scales(n_out, n_groups);

	memset(p, 0, sizeof(*p));
	p->planes_bytes = vq_packed_plane_bytes(bits, n_out, n_in);
	/* A sixteenth of the address space is more than any member may have. */
	if (p->planes_bytes > SIZE_MAX / 16 || n > SIZE_MAX / 16)
		return VQ_E_DATA;
	p->scale_bytes = 2 * n;
	p->zero_bytes = sym ? 0 : n;
	p->scale = align_up(p->planes_bytes);
	p->zero = align_up(p->scale + p->scale_bytes);
	p->bytes = sym ? p->scale + p->scale_bytes : p->zero + p->zero_bytes;
	return VQ_OK;
}

int vq_packed_place_nf(struct vq_packed_nf_parts *p, uint32_t bits, uint32_t n_out, uint32_t n_in)
{
	memset(p, 0, sizeof(*p));
	p->planes_bytes = vq_packed_plane_bytes(bits, n_out, n_in);
	if (p->planes_bytes > SIZE_MAX / 16)
		return VQ_E_DATA;
	p->absmax_bytes = vq_nf_n_blocks(n_out, n_in);
	p->scale_bytes = vq_nf_n_scales(p->absmax_bytes) * sizeof(float);
	p->offset_bytes = sizeof(float);
	p->absmax = align_up(p->planes_bytes);
	p->scale = align_up(p->absmax + p->absmax_bytes);
	p->offset = align_up(p->scale + p->scale_bytes);
	p->bytes = p->offset + p->offset_bytes;
	return VQ_OK;
}

/* --- small members --- */

/* A member that is JSON, parsed; given. */
static json_t *member_json(const struct vq_vqm *v, const char *name, struct vq_err *err)
{
	const struct vq_vqm_member *m = vq_vqm_find(v, name);
	char label[384];

	if (!m) {
		vq_fail(err, VQ_E_DATA, "%s: there is no member '%s'", v->label, name);
		return NULL;
	}
	snprintf(label, sizeof(label), "%.250s: %.120s", v->label, name);
	return vq_json_parse((const char *)m->data, m->n, label, err);
}

json_t *vq_vqm_model_json(const struct vq_vqm *v, struct vq_err *err)
{
	return member_json(v, "model.json", err);
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

struct entry {
	const struct vq_vqm *v;
	const struct vq_name *name;
	const struct vq_vqm_member *data;
	json_t *j;
	char label[384]; /* for messages: file and member */
};

static int parse_shape(const struct entry *e, uint32_t *n_dims, uint64_t *dims, struct vq_err *err)
{
	const json_t *shape = json_object_get(e->j, "shape");
	size_t n = json_array_size(shape), i;

	if (!json_is_array(shape) || n > VQ_MAX_DIMS)
		return vq_fail(err, VQ_E_DATA, "%s: want a shape of at most %d dimensions",
			       e->label, VQ_MAX_DIMS);
	for (i = 0; i < n; i++) {
		const json_t *d = json_array_get(shape, i);

		if (!json_is_integer(d) || json_integer_value(d) < 0)
			return vq_fail(err, VQ_E_DATA, "%s: shape: want whole numbers", e->label);
		dims[i] = (uint64_t)json_integer_value(d);
	}
	*n_dims = (uint32_t)n;
	return VQ_OK;
}

static int plain_tensor(const struct entry *e, struct vq_tensor *t, struct vq_err *err)
{
	const char *type = NULL;
	size_t n = 0, bytes;
	int rc = vq_json_str(e->j, "dtype", "", &type, e->label, err);

	*t = (struct vq_tensor){.data = e->data->data};
	if (rc == VQ_OK)
		rc = parse_shape(e, &t->n_dims, t->dims, err);
	if (rc < 0)
		return rc;
	t->dtype = VQ_BYTES;
	while (t->dtype < VQ_N_DTYPES && strcmp(vq_dtype_name(t->dtype), type) != 0)
		t->dtype++;
	if (t->dtype == VQ_N_DTYPES)
		return vq_fail(err, VQ_E_DATA, "%s: unknown dtype '%.20s'", e->label, type);
	if (vq_tensor_count(t, &n) < 0 || vq_mul_size(&bytes, n, vq_dtype_size(t->dtype)) < 0 ||
	    bytes != e->data->n)
		return vq_fail(err, VQ_E_DATA, "%s: its shape does not make %zu bytes", e->label,
			       e->data->n);
	return VQ_OK;
}

static int bind_plain(struct vq_model *m, const struct entry *e, struct vq_err *err)
{
	struct vq_tensor t;
	int rc = plain_tensor(e, &t, err);

	if (rc < 0)
		return rc;
	rc = vq_model_bind(m, e->name->name, &t, err);
	return rc < 0 ? vq_err_prefix(err, "%s", e->v->label) : VQ_OK;
}

/* One of "parts": [offset, bytes], which must have the size that the layout asks for and lie in the member. */
static int find_part(const struct entry *e, const char *key, size_t want, const uint8_t **at,
		     struct vq_err *err)
{
	const json_t *p = json_object_get(json_object_get(e->j, "parts"), key);
	json_int_t offset = json_integer_value(json_array_get(p, 0));
	json_int_t bytes = json_integer_value(json_array_get(p, 1));

	if (json_array_size(p) != 2 || offset < 0 || (uint64_t)offset > e->data->n ||
	    bytes != (json_int_t)want || want > e->data->n - (size_t)offset ||
	    offset % VQ_ALIGN != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: part '%s': want %zu bytes at a multiple of %d within %zu, got "
			       "%lld at %lld",
			       e->label, key, want, VQ_ALIGN, e->data->n, (long long)bytes,
			       (long long)offset);
	*at = e->data->data + offset;
	return VQ_OK;
}

static int parse_grid(const struct entry *e, struct vq_wgrid *g, struct vq_err *err)
{
	const json_t *grid = json_object_get(json_object_get(e->j, "attrs"), "grid");

	if (!json_is_object(grid))
		return vq_fail(err, VQ_E_DATA, "%s: want attribute 'grid'", e->label);
	if (vq_json_u32(grid, "bits", 0, &g->bits, e->label, err) < 0 ||
	    vq_json_u32(grid, "group", 0, &g->group, e->label, err) < 0 ||
	    vq_json_bool(grid, "sym", 0, &g->sym, e->label, err) < 0)
		return VQ_E_DATA;
	if (g->bits < 2 || g->bits > 8)
		return vq_fail(err, VQ_E_DATA, "%s: grid: want bits 2..8, got %u", e->label,
			       g->bits);
	return VQ_OK;
}

/* The parts of an NF weight of l's shape into p, absmax as floats. */
static int find_nf(struct vq_model *m, const struct entry *e, const struct vq_linear *l,
		   uint32_t bits, struct vq_packed *p, struct vq_err *err)
{
	struct vq_nf_absmax a = {.n = vq_nf_n_blocks(l->n_out, l->n_in)};
	const uint8_t *planes = NULL, *q = NULL, *scale = NULL, *offset = NULL;
	struct vq_packed_nf_parts parts;
	int rc;

	if (vq_packed_place_nf(&parts, bits, l->n_out, l->n_in) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: too large", e->label);
	rc = find_part(e, "planes", parts.planes_bytes, &planes, err);
	if (rc == VQ_OK)
		rc = find_part(e, "absmax", parts.absmax_bytes, &q, err);
	if (rc == VQ_OK)
		rc = find_part(e, "absmax_scale", parts.scale_bytes, &scale, err);
	if (rc == VQ_OK)
		rc = find_part(e, "absmax_offset", parts.offset_bytes, &offset, err);
	if (rc < 0)
		return rc;
	a.q = (uint8_t *)(uintptr_t)q; /* only read, and the floats aligned: find_part saw to it */
	a.scale = (float *)(uintptr_t)scale;
	a.offset = *(const float *)(const void *)offset;
	rc = vq_nf_absmax_check(&a, e->label, err);
	if (rc == VQ_OK)
		rc = vq_nf_packed(p, bits, l->n_out, l->n_in, planes, &a, err);
	if (rc == VQ_OK)
		rc = vq_model_keep(m, e->name->unit, (void *)(uintptr_t)p->absmax, err);
	return rc;
}

/* The parts of a weight on a uniform grid. */
static int find_uniform(const struct entry *e, const struct vq_linear *l, struct vq_packed *p,
			struct vq_err *err)
{
	struct vq_packed_parts parts;
	struct vq_wgrid g = {0};
	const uint8_t *at = NULL;
	int rc = parse_grid(e, &g, err);

	if (rc < 0)
		return rc;
	*p = (struct vq_packed){.n_out = l->n_out,
				.n_in = l->n_in,
				.bits = g.bits,
				.group = g.group,
				.n_groups = vq_grid_n_groups(&g, l->n_in),
				.sym = g.sym};
	if (vq_packed_place(&parts, g.bits, p->n_out, p->n_in, p->n_groups, g.sym) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: too large", e->label);
	rc = find_part(e, "planes", parts.planes_bytes, &p->planes, err);
	if (rc == VQ_OK)
		rc = find_part(e, "scale", parts.scale_bytes, &at, err);
	if (rc == VQ_OK)
		p->scale = (const uint16_t *)(const void *)at; /* aligned: find_part saw to it */
	if (rc == VQ_OK && !g.sym)
		rc = find_part(e, "zero", parts.zero_bytes, &p->zero, err);
	return rc;
}

static int bind_packed(struct vq_model *m, const struct entry *e, struct vq_err *err)
{
	const json_t *grid = json_object_get(json_object_get(e->j, "attrs"), "grid");
	int embed = strcmp(e->name->name, "decoder.embed.weight") == 0;
	struct vq_linear *l = embed ? &m->decoder.head : vq_model_linear(m, e->name->name);
	struct vq_packed *p;
	uint64_t dims[VQ_MAX_DIMS];
	uint32_t n_dims, nf = 0;
	int rc = parse_shape(e, &n_dims, dims, err);

	if (rc == VQ_OK)
		rc = vq_nf_grid_parse(grid, &nf, e->label, err);
	if (rc < 0)
		return rc;
	if (!l || n_dims != 2 || dims[0] != l->n_out || dims[1] != l->n_in)
		return vq_fail(err, VQ_E_DATA, "%s: want a linear layer of shape [%u, %u]",
			       e->label, l ? l->n_out : 0, l ? l->n_in : 0);
	p = vq_calloc(1, sizeof(*p), err);
	rc = p ? vq_model_keep(m, e->name->unit, p, err) : VQ_E_SYS;
	if (rc == VQ_OK)
		rc = nf ? find_nf(m, e, l, nf, p, err) : find_uniform(e, l, p, err);
	if (rc < 0)
		return rc;
	if (embed)
		m->decoder.embed_packed = p;
	/* The embedding has the head's shape, and with tied embeddings is the head. */
	if (!embed || m->cfg.decoder.tied) {
		l->packed = p;
		l->w = NULL;
	}
	return VQ_OK;
}

/* The ranges that the grid of an input stores: member X.range, f32 [2, n]. */
static int bind_ranges(struct vq_model *m, const struct entry *e, struct vq_linear *l,
		       struct vq_err *err)
{
	int vision = strncmp(e->name->name, "vision.", 7) == 0;
	char name[VQ_NAME_MAX + 1];
	const struct vq_vqm_member *r;

	if (l->act.bits == VQ_ACT_FLOAT || l->act.range == VQ_RANGE_TOKEN)
		return VQ_OK;
	if (l->act.range == VQ_RANGE_POSITION && !vision)
		return vq_fail(err, VQ_E_DATA,
			       "%s: act: ranges by position outside the vision tower", e->label);
	snprintf(name, sizeof(name), "%.*s.range", (int)(strlen(e->name->name) - strlen(".weight")),
		 e->name->name);
	r = vq_vqm_find(e->v, name);
	if (!r || r->n % (2 * sizeof(float)) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: want member '%s', f32 [2, ranges]", e->label,
			       name);
	return vq_agrid_set_ranges(&l->act, (const float *)(const void *)r->data,
				   r->n / (2 * sizeof(float)), l->n_in,
				   vision ? vq_vision_positions(&m->cfg) : 0, e->label, err);
}

/* Makes e the tensor of that name: its two members. */
static int open_entry(struct entry *e, const char *name, const char **layout, struct vq_err *err)
{
	char json[VQ_NAME_MAX + 40];

	snprintf(json, sizeof(json), "%.*s.json", VQ_NAME_MAX + 32, name);
	snprintf(e->label, sizeof(e->label), "%.250s: %.120s", e->v->label, json);
	e->data = vq_vqm_find(e->v, name);
	if (!e->data)
		return vq_fail(err, VQ_E_DATA, "%s: tensor '%s' is missing", e->v->label, name);
	e->j = member_json(e->v, json, err);
	return e->j ? vq_json_str(e->j, "layout", "", layout, e->label, err) : VQ_E_DATA;
}

/* --- transforms --- */

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
static int load_part(const struct entry *e, const struct vq_transform_attr *a,
		     enum vq_transform_part p, struct vq_transform *t, struct vq_err *err)
{
	struct entry part = {.v = e->v};
	const char *layout = NULL;
	char name[VQ_NAME_MAX + 32];
	struct vq_tensor v;
	int rc;

	snprintf(name, sizeof(name), "%.*s%s", VQ_NAME_MAX, a->from, vq_transform_suffix(p));
	rc = open_entry(&part, name, &layout, err);
	if (rc == VQ_OK && strcmp(layout, "plain") != 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want layout plain, got '%.20s'", part.label,
			     layout);
	if (rc == VQ_OK)
		rc = plain_tensor(&part, &v, err);
	if (rc == VQ_OK)
		rc = vq_transform_set(t, a, p, &v, part.label, err);
	json_decref(part.j);
	return rc;
}

/* The linear's own transform, which others may share. */
static int load_transform(struct loader *o, const struct entry *e,
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

static int set_transform(struct loader *o, const struct entry *e, const json_t *j,
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
static int set_input(struct loader *o, const struct entry *e, struct vq_err *err)
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
	return bind_ranges(o->m, e, l, err);
}

static int bind_entry(struct loader *o, struct entry *e, struct vq_err *err)
{
	const char *layout = NULL;
	int rc = open_entry(e, e->name->name, &layout, err);

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
		struct entry e = {.v = v, .name = &names[i]};

		rc = bind_entry(&o, &e, err);
	}
	vq_free(names);
	vq_free(o.shared);
	if (rc < 0)
		vq_model_free(m);
	return rc;
}
