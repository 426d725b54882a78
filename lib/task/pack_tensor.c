/* Packing: tensors. */
#include "task/pack_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "kernel/round.h"
#include "model/packed.h"
#include "quant/agrid.h"

/* The model's name for a record, counted; *name NULL for a tensor that the model does not have. */
static int identify(struct vq_pack *k, const struct vq_record *rec, const struct vq_name **name,
		    struct vq_err *err)
{
	char want[128], got[256];
	size_t i;

	*name = NULL;
	for (i = 0; i < k->n_names && strcmp(k->names[i].name, rec->name) != 0; i++)
		;
	if (i == k->n_names) {
		vq_warn("%s: tensor '%s' is not of this model and is left out", k->label,
			rec->name);
		return VQ_OK;
	}
	if (k->seen[i])
		return vq_fail(err, VQ_E_DATA,
			       "%s: unit %u comes twice, in segments %u and %u (tensor '%s'): want "
			       "each unit once",
			       k->label, k->names[i].unit, k->seen[i], k->segment, rec->name);
	if (rec->n_dims != k->names[i].n_dims ||
	    memcmp(rec->dims, k->names[i].dims, rec->n_dims * sizeof(*rec->dims)) != 0)
		return vq_fail(
			err, VQ_E_DATA, "%s: tensor '%s': want shape %s, got %s", k->label,
			rec->name,
			vq_shape_text(k->names[i].n_dims, k->names[i].dims, want, sizeof(want)),
			vq_shape_text(rec->n_dims, rec->dims, got, sizeof(got)));
	k->seen[i] = k->segment;
	*name = &k->names[i];
	return VQ_OK;
}

int vq_pack_describe(struct vq_pack *k, const char *name, json_t *j, struct vq_err *err)
{
	char json[VQ_NAME_MAX + 8];
	int rc;

	snprintf(json, sizeof(json), "%s.json", name);
	rc = j ? vq_vqm_add_json(k->out, json, j, err)
	       : vq_fail(err, VQ_E_SYS, "memory: cannot describe '%s'", name);
	json_decref(j);
	return rc;
}

static json_t *shape_json(const struct vq_record *rec)
{
	json_t *a = json_array();
	uint32_t i;

	for (i = 0; i < rec->n_dims; i++)
		json_array_append_new(a, json_integer((json_int_t)rec->dims[i]));
	return a;
}

static int is_float(enum vq_dtype t)
{
	return t == VQ_F32 || t == VQ_F16 || t == VQ_BF16;
}

int vq_pack_put(struct vq_pack *k, const struct vq_record *rec, const void *data,
		struct vq_err *err)
{
	int rc = vq_pack_describe(k, rec->name,
				  json_pack("{s:s, s:s, s:o, s:O?}", "layout", "plain", "dtype",
					    vq_dtype_name(rec->dtype), "shape", shape_json(rec),
					    "attrs", rec->attrs),
				  err);

	return rc < 0 ? rc : vq_vqm_add(k->out, rec->name, data, (size_t)rec->raw_bytes, err);
}

static int put_plain(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	struct vq_pack_size *s = &k->sizes[vq_pack_part_of(rec->name)];
	void *data = NULL;
	int rc;

	if (!is_float(rec->dtype))
		return vq_pack_bad(k, rec, err,
				   "want f32, f16 or bf16, or codes with attribute 'grid'");
	rc = vq_reader_load(k->in, &data, err);
	if (rc == VQ_OK)
		rc = vq_pack_put(k, rec, data, err);
	vq_free(data);
	s->elements += rec->raw_bytes / vq_dtype_size(rec->dtype);
	s->before += rec->raw_bytes;
	s->after += rec->raw_bytes;
	return rc;
}

void vq_pack_drop(struct vq_pack_pending *p)
{
	json_decref(p->attrs);
	vq_free(p->planes);
	vq_free(p->scale);
	vq_free(p->absmax.q);
	vq_free(p->absmax.scale);
	memset(p, 0, sizeof(*p));
}

/* A uniform grid, or *nf and the bits alone. */
static int parse_grid(struct vq_pack *k, const struct vq_record *rec, struct vq_wgrid *g,
		      uint32_t *nf, struct vq_err *err)
{
	const json_t *j = json_object_get(rec->attrs, "grid");
	char where[VQ_NAME_MAX + 100];

	snprintf(where, sizeof(where), "%.80s: '%s'", k->label, rec->name);
	if (!json_is_object(j))
		return vq_fail(err, VQ_E_DATA, "%s: codes without attribute 'grid'", where);
	if (vq_nf_grid_parse(j, nf, where, err) < 0)
		return VQ_E_DATA;
	if (*nf) {
		g->bits = *nf;
		return VQ_OK;
	}
	if (vq_json_u32(j, "bits", 0, &g->bits, where, err) < 0 ||
	    vq_json_u32(j, "group", 0, &g->group, where, err) < 0 ||
	    vq_json_bool(j, "sym", 0, &g->sym, where, err) < 0)
		return VQ_E_DATA;
	if (g->bits < 2 || g->bits > 8)
		return vq_fail(err, VQ_E_DATA, "%s: grid: want bits 2..8, got %u", where, g->bits);
	return VQ_OK;
}

/* A code that its bits cannot hold would silently become another. */
static int check_codes(struct vq_pack *k, const struct vq_record *rec, const uint8_t *codes,
		       uint32_t bits, struct vq_err *err)
{
	return vq_round_bits(codes, (size_t)rec->raw_bytes) >> bits
		       ? vq_pack_bad(k, rec, err, "has codes of more bits than its grid says")
		       : VQ_OK;
}

/* --- codes and grids --- */

/* Codes of grid p->grid whose input is quantized too must have a product with it. */
static int check_product(const struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	const struct vq_pack_pending *p = &k->p;
	struct vq_packed w = {.n_in = p->n_in,
			      .bits = p->grid.bits,
			      .group = p->nf ? VQ_NF_BLOCK : p->grid.group,
			      .value = vq_nf_codes(p->nf),
			      .straddles = p->nf && p->n_in % VQ_NF_BLOCK != 0};

	/* vq_pack_note_ranges has parsed it. */
	if (!json_object_get(rec->attrs, "act") || !vq_agrid_is_integer(&k->ranges.act) ||
	    w.straddles || vq_qgemm_check(&w, &k->ranges.act, err) == VQ_OK)
		return VQ_OK;
	return vq_err_prefix(err, "%s: '%s'", k->label, rec->name);
}

/* X.weight as codes: packed at once, so that codes and planes are together for a moment only. */
static int start_linear(struct vq_pack *k, const struct vq_record *rec, const struct vq_name *name,
			struct vq_err *err)
{
	struct vq_pack_pending *p = &k->p;
	size_t n = strlen(rec->name), bytes;
	void *codes = NULL;
	int rc = parse_grid(k, rec, &p->grid, &p->nf, err);

	if (rc < 0)
		return rc;
	if (!name->linear)
		return vq_pack_bad(k, rec, err, "want a float tensor here, got codes");
	memcpy(p->stem, rec->name, n + 1);
	p->stem[n - strlen(".weight")] = '\0'; /* linears' names end so */
	p->name = name;
	p->n_out = (uint32_t)rec->dims[0];
	p->n_in = (uint32_t)rec->dims[1];
	p->n_groups = vq_grid_n_groups(&p->grid, p->n_in);
	p->attrs = json_incref(rec->attrs);
	bytes = vq_packed_plane_bytes(p->grid.bits, p->n_out, p->n_in);
	if (bytes == SIZE_MAX)
		return vq_pack_bad(k, rec, err, "is too large");
	rc = check_product(k, rec, err);
	if (rc == VQ_OK)
		rc = vq_pack_transform(k, rec, name, err);
	if (rc == VQ_OK)
		rc = vq_reader_load(k->in, &codes, err);
	if (rc == VQ_OK)
		rc = check_codes(k, rec, codes, p->grid.bits, err);
	if (rc == VQ_OK)
		p->planes = vq_alloc(bytes, 1, err);
	if (rc == VQ_OK && !p->planes)
		rc = VQ_E_SYS;
	if (rc == VQ_OK)
		vq_pack_codes(p->grid.bits, codes, p->n_out, p->n_in, p->planes);
	vq_free(codes);
	return rc;
}

int vq_pack_part(struct vq_pack *k, const void *data, size_t n, size_t *at, size_t next,
		 struct vq_err *err)
{
	static const uint8_t zeros[VQ_ALIGN];
	int rc = vq_vqm_data(k->out, data, n, err);

	*at += n;
	if (rc == VQ_OK && next > *at)
		rc = vq_vqm_data(k->out, zeros, next - *at, err);
	*at = next > *at ? next : *at;
	return rc;
}

void vq_pack_linear_done(struct vq_pack *k, uint64_t bytes)
{
	struct vq_pack_pending *p = &k->p;
	struct vq_pack_size *s = &k->sizes[vq_pack_part_of(p->name->name)];
	uint64_t elements = (uint64_t)p->n_out * p->n_in;

	s->elements += elements;
	s->before += 2 * elements;
	s->after += bytes;
	s->q_elements += elements;
	s->q_after += bytes;
	s->n_quantized++;
	vq_pack_drop(p);
}

int vq_pack_uniform(struct vq_pack *k, const uint8_t *zero, struct vq_err *err)
{
	struct vq_pack_pending *p = &k->p;
	struct vq_packed_parts a;
	size_t at = 0;
	json_t *parts;
	int rc = vq_packed_place(&a, p->grid.bits, p->n_out, p->n_in, p->n_groups, p->grid.sym);

	if (rc < 0)
		return vq_fail(err, rc, "%s: '%s' is too large", k->label, p->name->name);
	parts = json_pack("{s:[I,I], s:[I,I]}", "planes", (json_int_t)a.planes,
			  (json_int_t)a.planes_bytes, "scale", (json_int_t)a.scale,
			  (json_int_t)a.scale_bytes);
	if (parts && zero)
		json_object_set_new(
			parts, "zero",
			json_pack("[I,I]", (json_int_t)a.zero, (json_int_t)a.zero_bytes));
	rc = vq_pack_describe(k, p->name->name,
			      json_pack("{s:s, s:[I,I], s:o, s:O?}", "layout", VQ_LAYOUT, "shape",
					(json_int_t)p->n_out, (json_int_t)p->n_in, "parts", parts,
					"attrs", p->attrs),
			      err);
	if (rc == VQ_OK)
		rc = vq_vqm_begin(k->out, p->name->name, a.bytes, err);
	if (rc == VQ_OK)
		rc = vq_pack_part(k, p->planes, a.planes_bytes, &at, a.scale, err);
	if (rc == VQ_OK)
		rc = vq_pack_part(k, p->scale, a.scale_bytes, &at, zero ? a.zero : 0, err);
	if (rc == VQ_OK && zero)
		rc = vq_pack_part(k, zero, a.zero_bytes, &at, 0, err);
	vq_pack_linear_done(k, a.bytes);
	return rc;
}

static int take_scale(struct vq_pack *k, const struct vq_record *rec, const uint16_t *scale,
		      struct vq_err *err)
{
	struct vq_pack_pending *p = &k->p;
	size_t n = (size_t)p->n_out * p->n_groups, i;

	for (i = 0; i < n; i++)
		if (!(isfinite(vq_f16_to_f32(scale[i])) && vq_f16_to_f32(scale[i]) >= 0))
			return vq_pack_bad(k, rec, err,
					   "has a scale that is no number of 0 or more");
	p->scale = vq_alloc(vq_packed_n_scales(p->n_out, p->n_groups), sizeof(*p->scale), err);
	if (!p->scale)
		return VQ_E_SYS;
	vq_pack_scales(scale, p->n_out, p->n_groups, p->scale);
	return p->grid.sym ? vq_pack_uniform(k, NULL, err) : VQ_OK;
}

static int take_zero(struct vq_pack *k, const struct vq_record *rec, const uint8_t *zero,
		     struct vq_err *err)
{
	struct vq_pack_pending *p = &k->p;
	int rc = check_codes(k, rec, zero, p->grid.bits, err);
	uint8_t *packed = NULL;

	if (rc == VQ_OK) {
		packed = vq_alloc(vq_packed_n_scales(p->n_out, p->n_groups), 1, err);
		rc = packed ? VQ_OK : VQ_E_SYS;
	}
	if (rc == VQ_OK) {
		vq_pack_zeros(zero, p->n_out, p->n_groups, packed);
		rc = vq_pack_uniform(k, packed, err);
	}
	vq_free(packed);
	return rc;
}

/* X.scale, X.zero or X.range, the one that the linear before wants; or else a part of its transform. */
int vq_pack_grid(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	struct vq_pack_pending *p = &k->p;
	int zero = p->scale != NULL;
	char want[VQ_NAME_MAX + 16];
	void *data = NULL;
	int rc;

	if (!p->stem[0] && k->ranges.name[0])
		return vq_pack_take_ranges(k, rec, err);
	if (!p->stem[0])
		return vq_pack_transform_part(k, rec, err);
	if (p->nf)
		return vq_pack_nf(k, rec, err);
	snprintf(want, sizeof(want), "%s.%s", p->stem, zero ? "zero" : "scale");
	if (strcmp(rec->name, want) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: want '%s' after the codes, got '%s'", k->label,
			       want, rec->name);
	if (rec->dtype != (zero ? VQ_U8 : VQ_F16) || rec->n_dims != 2 || rec->dims[0] != p->n_out ||
	    rec->dims[1] != p->n_groups)
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want %s of shape [%u, %u]", k->label,
			       rec->name, zero ? "u8" : "f16", p->n_out, p->n_groups);
	rc = vq_reader_load(k->in, &data, err);
	if (rc == VQ_OK)
		rc = zero ? take_zero(k, rec, data, err) : take_scale(k, rec, data, err);
	vq_free(data);
	return rc;
}

int vq_pack_tensor(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	const struct vq_name *name;
	int rc = identify(k, rec, &name, err);

	if (rc < 0 || !name)
		return rc;
	rc = vq_pack_note_ranges(k, rec, name, err);
	if (rc < 0)
		return rc;
	if (rec->dtype == VQ_U8)
		return start_linear(k, rec, name, err);
	if (json_object_get(rec->attrs, "transform"))
		return vq_pack_bad(k, rec, err, "has a transform but no codes");
	if (vq_pack_wants_head8(k, rec->name) && rec->n_dims == 2 && is_float(rec->dtype))
		return vq_pack_head8(k, rec, name, err);
	return put_plain(k, rec, err);
}
