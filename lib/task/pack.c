/* Packing. */
#include "task/pack.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "format/vqm.h"
#include "model/names.h"
#include "model/packed.h"
#include "quant/agrid.h"
#include "quant/grid.h"
#include "stream/history.h"
#include "stream/reader.h"
#include "task/pack_card.h"

/* META and PLAN of the first segment, which every other must repeat. */
struct side {
	char name[VQ_NAME_MAX + 1];
	uint32_t kind;
	uint64_t hash, n;
	char *data; /* [n] and a zero byte; freed once written */
};

/* A quantized linear whose grids are still to come. */
struct pending {
	char stem[VQ_NAME_MAX + 1]; /* "X" of "X.weight"; empty when there is none */
	const struct vq_name *name;
	struct vq_wgrid grid;
	uint32_t n_out, n_in, n_groups;
	json_t *attrs;
	uint8_t *planes;
	uint16_t *scale; /* packed */
};

struct pack {
	const struct vq_pack_opts *o;
	struct vq_reader *in;
	const char *label;
	struct vq_vqm_writer *out;
	json_t *header; /* of the first segment, with our line of history */
	json_t *segments, *results;
	json_t *calib, *plan, *search;
	struct side *sides;
	size_t n_sides, room_sides, n_repeated;
	int config_seen, head_written;
	struct vq_config config;
	struct vq_name *names;
	size_t n_names;
	uint32_t *seen; /* [n_names] the segment that brought it, from 1 */
	uint32_t segment;
	struct pending p;
	struct vq_pack_size sizes[VQ_PACK_N_PARTS];
};

static int bad_record(const struct pack *k, const struct vq_record *rec, struct vq_err *err,
		      const char *what)
{
	return vq_fail(err, VQ_E_DATA, "%s: %s '%s': %s", k->label, vq_kind_name(rec->kind),
		       rec->name, what);
}

/* --- META and PLAN --- */

static struct side *find_side(struct pack *k, const char *name)
{
	size_t i;

	for (i = 0; i < k->n_sides; i++)
		if (strcmp(k->sides[i].name, name) == 0)
			return &k->sides[i];
	return NULL;
}

/* A later segment's META or PLAN. */
static int same_side(struct pack *k, const struct vq_record *rec, struct vq_err *err)
{
	const struct side *s = find_side(k, rec->name);

	if (!s || s->kind != rec->kind || s->hash != rec->hash || s->n != rec->raw_bytes)
		return bad_record(k, rec, err,
				  s ? "differs from that of the first segment: the pieces are not "
				      "of one run"
				    : "is not in the first segment: the pieces are not of one run");
	k->n_repeated++;
	return VQ_OK;
}

static json_t *side_json(const struct pack *k, const struct side *s, struct vq_err *err)
{
	char where[VQ_NAME_MAX + 100];

	snprintf(where, sizeof(where), "%.80s: '%s'", k->label, s->name);
	return vq_json_parse(s->data, (size_t)s->n, where, err);
}

static int take_config(struct pack *k, const struct side *s, struct vq_err *err)
{
	json_t *j = side_json(k, s, err);
	int rc = j ? vq_config_parse(&k->config, j, k->label, err) : VQ_E_DATA;

	json_decref(j);
	if (rc == VQ_OK)
		rc = vq_names_list(&k->config, &k->names, &k->n_names, err);
	if (rc < 0)
		return rc;
	k->seen = vq_calloc(k->n_names, sizeof(*k->seen), err);
	k->config_seen = 1;
	return k->seen ? VQ_OK : VQ_E_SYS;
}

static int take_side(struct pack *k, const struct vq_record *rec, struct vq_err *err)
{
	struct side *s;
	void *data = NULL;
	int rc;

	if (k->segment > 1)
		return same_side(k, rec, err);
	if (k->head_written)
		return bad_record(k, rec, err, "comes after the first weight");
	if (rec->raw_bytes > ((uint64_t)1 << 30))
		return bad_record(k, rec, err, "is over 1 GiB");
	if (k->n_sides == k->room_sides) {
		rc = vq_grow((void **)&k->sides, k->n_sides, k->room_sides + 16, sizeof(*s), err);
		if (rc < 0)
			return rc;
		k->room_sides += 16;
	}
	rc = vq_reader_load(k->in, &data, err);
	if (rc < 0)
		return rc;
	s = &k->sides[k->n_sides++];
	*s = (struct side){.kind = rec->kind, .hash = rec->hash, .n = rec->raw_bytes, .data = data};
	memcpy(s->name, rec->name, sizeof(s->name));
	if (rec->kind == VQ_KIND_PLAN && strcmp(rec->name, "plan") == 0)
		return (k->plan = side_json(k, s, err)) ? VQ_OK : VQ_E_DATA;
	if (rec->kind == VQ_KIND_META && strcmp(rec->name, "config") == 0)
		return take_config(k, s, err);
	if (rec->kind == VQ_KIND_META && strcmp(rec->name, "calib") == 0)
		return (k->calib = side_json(k, s, err)) ? VQ_OK : VQ_E_DATA;
	if (rec->kind == VQ_KIND_META && strcmp(rec->name, "search") == 0)
		return (k->search = side_json(k, s, err)) ? VQ_OK : VQ_E_DATA;
	return VQ_OK;
}

/* STAT search/block/A-B: what search found, for the manifest. */
static int take_result(struct pack *k, const struct vq_record *rec, struct vq_err *err)
{
	void *data = NULL;
	json_t *j;
	int rc = vq_reader_load(k->in, &data, err);

	if (rc < 0)
		return rc;
	j = vq_json_parse(data, (size_t)rec->raw_bytes, rec->name, err);
	vq_free(data);
	if (!j)
		return VQ_E_DATA;
	if (json_object_set_new(k->results, rec->name, j) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: cannot keep '%s'", rec->name);
	return VQ_OK;
}

/* --- the members ahead of the weights --- */

static int is_reserved(const char *name)
{
	static const char *const ours[] = {"config",       "calib",   "search",
					   "model.json",   "card.md", "preprocessor.json",
					   "manifest.json"};
	size_t i;

	for (i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strcmp(name, ours[i]) == 0)
			return 1;
	return name[0] == '.' || strchr(name, '/') != NULL;
}

/* Data are aligned to 512 bytes by the archive. */
static int write_head(struct pack *k, struct vq_err *err)
{
	const struct side *config = find_side(k, "config");
	json_t *j, *pre;
	size_t i;
	int rc;

	if (!k->config_seen)
		return vq_fail(err, VQ_E_DATA,
			       "%s: a weight came before META 'config': not a model stream",
			       k->label);
	j = json_pack("{s:o, s:O?, s:O?, s:O?, s:O?, s:O?, s:O?}", "config",
		      side_json(k, config, err), "calib", k->calib, "plan", k->plan, "search",
		      k->search, "model", json_object_get(k->header, "model"), "producer",
		      json_object_get(k->header, "producer"), "history",
		      json_object_get(k->header, "history"));
	pre = vq_preproc_json(&k->config.preproc);
	rc = j && pre ? vq_vqm_add_json(k->out, "model.json", j, err)
		      : vq_fail(err, VQ_E_SYS, "memory: cannot make model.json");
	for (i = 0; rc == VQ_OK && i < k->n_sides; i++) {
		struct side *s = &k->sides[i];

		if (s->kind == VQ_KIND_META && !is_reserved(s->name))
			rc = vq_vqm_add(k->out, s->name, s->data, (size_t)s->n, err);
		vq_free(s->data);
		s->data = NULL;
	}
	if (rc == VQ_OK && k->config.has_vision)
		rc = vq_vqm_add_json(k->out, "preprocessor.json", pre, err);
	json_decref(j);
	json_decref(pre);
	k->head_written = 1;
	return rc;
}

/* --- tensors --- */

/* The model's name for a record, counted; *name NULL for a tensor that the model does not have. */
static int identify(struct pack *k, const struct vq_record *rec, const struct vq_name **name,
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

static int add_member(struct pack *k, const char *name, json_t *j, struct vq_err *err)
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

static int put_plain(struct pack *k, const struct vq_record *rec, struct vq_err *err)
{
	struct vq_pack_size *s = &k->sizes[vq_pack_part_of(rec->name)];
	void *data = NULL;
	int rc;

	if (rec->dtype != VQ_F32 && rec->dtype != VQ_F16 && rec->dtype != VQ_BF16)
		return bad_record(k, rec, err,
				  "want f32, f16 or bf16, or codes with attribute 'grid'");
	rc = add_member(k, rec->name,
			json_pack("{s:s, s:s, s:o, s:O?}", "layout", "plain", "dtype",
				  vq_dtype_name(rec->dtype), "shape", shape_json(rec), "attrs",
				  rec->attrs),
			err);
	if (rc == VQ_OK)
		rc = vq_reader_load(k->in, &data, err);
	if (rc == VQ_OK)
		rc = vq_vqm_add(k->out, rec->name, data, (size_t)rec->raw_bytes, err);
	vq_free(data);
	s->elements += rec->raw_bytes / vq_dtype_size(rec->dtype);
	s->before += rec->raw_bytes;
	s->after += rec->raw_bytes;
	return rc;
}

static void drop_pending(struct pending *p)
{
	json_decref(p->attrs);
	vq_free(p->planes);
	vq_free(p->scale);
	memset(p, 0, sizeof(*p));
}

static int parse_grid(struct pack *k, const struct vq_record *rec, struct vq_wgrid *g,
		      struct vq_err *err)
{
	const json_t *j = json_object_get(rec->attrs, "grid");
	struct vq_agrid act;
	char where[VQ_NAME_MAX + 100];

	snprintf(where, sizeof(where), "%.80s: '%s'", k->label, rec->name);
	if (json_object_get(rec->attrs, "act") &&
	    vq_agrid_parse(&act, json_object_get(rec->attrs, "act"), where, err) < 0)
		return VQ_E_DATA;
	if (!json_is_object(j))
		return vq_fail(err, VQ_E_DATA, "%s: codes without attribute 'grid'", where);
	if (vq_json_u32(j, "bits", 0, &g->bits, where, err) < 0 ||
	    vq_json_u32(j, "group", 0, &g->group, where, err) < 0 ||
	    vq_json_bool(j, "sym", 0, &g->sym, where, err) < 0)
		return VQ_E_DATA;
	if (g->bits < 2 || g->bits > 8)
		return vq_fail(err, VQ_E_DATA, "%s: grid: want bits 2..8, got %u", where, g->bits);
	return VQ_OK;
}

/* A code that its bits cannot hold would silently become another. */
static int check_codes(struct pack *k, const struct vq_record *rec, const uint8_t *codes,
		       uint32_t bits, struct vq_err *err)
{
	size_t n = (size_t)rec->raw_bytes, i;
	unsigned all = 0;

	for (i = 0; i < n; i++)
		all |= codes[i];
	return all >> bits ? bad_record(k, rec, err, "has codes of more bits than its grid says")
			   : VQ_OK;
}

/* X.weight as codes: packed at once, so that codes and planes are together for a moment only. */
static int start_linear(struct pack *k, const struct vq_record *rec, const struct vq_name *name,
			struct vq_err *err)
{
	struct pending *p = &k->p;
	size_t n = strlen(rec->name), bytes;
	void *codes = NULL;
	int rc = parse_grid(k, rec, &p->grid, err);

	if (rc < 0)
		return rc;
	if (!name->linear)
		return bad_record(k, rec, err, "want a float tensor here, got codes");
	memcpy(p->stem, rec->name, n + 1);
	p->stem[n - strlen(".weight")] = '\0'; /* linears' names end so */
	p->name = name;
	p->n_out = (uint32_t)rec->dims[0];
	p->n_in = (uint32_t)rec->dims[1];
	p->n_groups = vq_grid_n_groups(&p->grid, p->n_in);
	p->attrs = json_incref(rec->attrs);
	bytes = vq_packed_plane_bytes(p->grid.bits, p->n_out, p->n_in);
	if (bytes == SIZE_MAX)
		return bad_record(k, rec, err, "is too large");
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

/* A part of the member and what fills up to the next. */
static int put_part(struct pack *k, const void *data, size_t n, size_t *at, size_t next,
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

static int finish_linear(struct pack *k, const uint8_t *zero, struct vq_err *err)
{
	struct pending *p = &k->p;
	struct vq_pack_size *s = &k->sizes[vq_pack_part_of(p->name->name)];
	uint64_t elements = (uint64_t)p->n_out * p->n_in;
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
	rc = add_member(k, p->name->name,
			json_pack("{s:s, s:[I,I], s:o, s:O?}", "layout", VQ_LAYOUT, "shape",
				  (json_int_t)p->n_out, (json_int_t)p->n_in, "parts", parts,
				  "attrs", p->attrs),
			err);
	if (rc == VQ_OK)
		rc = vq_vqm_begin(k->out, p->name->name, a.bytes, err);
	if (rc == VQ_OK)
		rc = put_part(k, p->planes, a.planes_bytes, &at, a.scale, err);
	if (rc == VQ_OK)
		rc = put_part(k, p->scale, a.scale_bytes, &at, zero ? a.zero : 0, err);
	if (rc == VQ_OK && zero)
		rc = put_part(k, zero, a.zero_bytes, &at, 0, err);
	s->elements += elements;
	s->before += 2 * elements;
	s->after += a.bytes;
	s->q_elements += elements;
	s->q_after += a.bytes;
	s->n_quantized++;
	drop_pending(p);
	return rc;
}

static int take_scale(struct pack *k, const struct vq_record *rec, const uint16_t *scale,
		      struct vq_err *err)
{
	struct pending *p = &k->p;
	size_t n = (size_t)p->n_out * p->n_groups, i;

	for (i = 0; i < n; i++)
		if (!(isfinite(vq_f16_to_f32(scale[i])) && vq_f16_to_f32(scale[i]) >= 0))
			return bad_record(k, rec, err,
					  "has a scale that is no number of 0 or more");
	p->scale = vq_alloc(vq_packed_n_scales(p->n_out, p->n_groups), sizeof(*p->scale), err);
	if (!p->scale)
		return VQ_E_SYS;
	vq_pack_scales(scale, p->n_out, p->n_groups, p->scale);
	return p->grid.sym ? finish_linear(k, NULL, err) : VQ_OK;
}

static int take_zero(struct pack *k, const struct vq_record *rec, const uint8_t *zero,
		     struct vq_err *err)
{
	struct pending *p = &k->p;
	int rc = check_codes(k, rec, zero, p->grid.bits, err);
	uint8_t *packed = NULL;

	if (rc == VQ_OK) {
		packed = vq_alloc(vq_packed_n_scales(p->n_out, p->n_groups), 1, err);
		rc = packed ? VQ_OK : VQ_E_SYS;
	}
	if (rc == VQ_OK) {
		vq_pack_zeros(zero, p->n_out, p->n_groups, packed);
		rc = finish_linear(k, packed, err);
	}
	vq_free(packed);
	return rc;
}

/* X.scale or X.zero, the one that the linear before wants. */
static int take_grid(struct pack *k, const struct vq_record *rec, struct vq_err *err)
{
	struct pending *p = &k->p;
	int zero = p->scale != NULL;
	char want[VQ_NAME_MAX + 16];
	void *data = NULL;
	int rc;

	if (!p->stem[0])
		return bad_record(k, rec, err, "there are no codes before it that want it");
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

static int take_tensor(struct pack *k, const struct vq_record *rec, struct vq_err *err)
{
	const struct vq_name *name;
	int rc = identify(k, rec, &name, err);

	if (rc < 0 || !name)
		return rc;
	return rec->dtype == VQ_U8 ? start_linear(k, rec, name, err) : put_plain(k, rec, err);
}

static int one_record(struct pack *k, const struct vq_record *rec, struct vq_err *err)
{
	int rc = VQ_OK, weight = rec->kind == VQ_KIND_TENSOR || rec->kind == VQ_KIND_GRID;

	if (weight && !k->head_written)
		rc = write_head(k, err);
	if (rc == VQ_OK && k->p.stem[0] && rec->kind != VQ_KIND_GRID)
		rc = vq_fail(err, VQ_E_DATA, "%s: want the grids of '%s.weight' after it, got '%s'",
			     k->label, k->p.stem, rec->name);
	if (rc < 0)
		return rc;
	if (rec->kind == VQ_KIND_META || rec->kind == VQ_KIND_PLAN)
		return take_side(k, rec, err);
	if (rec->kind == VQ_KIND_TENSOR)
		return take_tensor(k, rec, err);
	if (rec->kind == VQ_KIND_GRID)
		return take_grid(k, rec, err);
	if (rec->kind == VQ_KIND_STAT && strncmp(rec->name, "search/", 7) == 0)
		return take_result(k, rec, err);
	vq_info("%s: %s '%s' is not packed", k->label, vq_kind_name(rec->kind), rec->name);
	return VQ_OK;
}

/* --- segments --- */

static int start_segment(struct pack *k, struct vq_err *err)
{
	const json_t *h = vq_reader_header(k->in);
	json_t *params;

	k->segment++;
	k->n_repeated = 0;
	if (json_array_append_new(k->segments, json_deep_copy(h)) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: cannot keep a header");
	if (k->segment > 1)
		return VQ_OK;
	params = json_pack("{s:s}", "layout", VQ_LAYOUT);
	k->header = vq_header_derive(h, "vqlm-pack", params, NULL, NULL, err);
	json_decref(params);
	return k->header ? VQ_OK : err->code;
}

static int end_segment(struct pack *k, struct vq_err *err)
{
	if (k->p.stem[0])
		return vq_fail(err, VQ_E_DATA, "%s: the grids of '%s.weight' are missing", k->label,
			       k->p.stem);
	if (k->segment > 1 && k->n_repeated != k->n_sides)
		return vq_fail(err, VQ_E_DATA,
			       "%s: segment %u has %zu of the %zu META and PLAN records of the "
			       "first: the pieces are not of one run",
			       k->label, k->segment, k->n_repeated, k->n_sides);
	return VQ_OK;
}

/* Every unit, whole.  Gaps are named by unit, since that is what a job of an array was given. */
static int check_complete(const struct pack *k, struct vq_err *err)
{
	char list[160] = "";
	const char *first = NULL;
	uint32_t last = UINT32_MAX;
	size_t i, at = 0;

	for (i = 0; i < k->n_names; i++) {
		if (k->seen[i])
			continue;
		if (!first)
			first = k->names[i].name;
		if (k->names[i].unit != last && at < sizeof(list) - 16)
			at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%u", at ? ", " : "",
					       k->names[i].unit);
		last = k->names[i].unit;
	}
	if (!k->head_written)
		return vq_fail(err, VQ_E_DATA, "%s: there are no weights in it", k->label);
	if (first)
		return vq_fail(err, VQ_E_DATA,
			       "%s: units %s are missing or not whole (the first missing tensor is "
			       "'%s')",
			       k->label, list, first);
	return VQ_OK;
}

static int put_card(struct pack *k, struct vq_err *err)
{
	const char *model =
		json_string_value(json_object_get(json_object_get(k->header, "model"), "name"));
	struct vq_pack_facts f = {.config = &k->config,
				  .header = k->header,
				  .calib = k->calib,
				  .plan = k->plan,
				  .base_model = k->o->base_model ? k->o->base_model
						: model          ? model
								 : "unknown",
				  .license = k->o->license ? k->o->license : "unknown",
				  .sizes = k->sizes};
	struct vq_str b = {0};
	int rc;

	vq_pack_card(&b, &f);
	rc = b.failed ? vq_fail(err, VQ_E_SYS, "memory: cannot write the card")
		      : vq_vqm_add(k->out, "card.md", b.s, b.n, err);
	vq_str_free(&b);
	return rc;
}

static void report(const struct pack *k)
{
	struct vq_pack_size t = vq_pack_total(k->sizes), q = {0};

	q.elements = t.q_elements;
	q.after = t.q_after;
	vq_info("%llu weights: %.1f MB before, %.1f MB packed, %.2f bits a weight; %u quantized "
		"linears at %.2f bits",
		(unsigned long long)t.elements, 1e-6 * (double)t.before, 1e-6 * (double)t.after,
		vq_pack_bits(&t), t.n_quantized, vq_pack_bits(&q));
}

static int finish(struct pack *k, struct vq_err *err)
{
	json_t *extra;
	int rc = check_complete(k, err);

	if (rc == VQ_OK)
		rc = put_card(k, err);
	if (rc < 0)
		return rc;
	extra = json_pack("{s:O, s:O, s:O}", "history", json_object_get(k->header, "history"),
			  "segments", k->segments, "search", k->results);
	rc = extra ? vq_vqm_finish(k->out, extra, err)
		   : vq_fail(err, VQ_E_SYS, "memory: cannot make the manifest");
	json_decref(extra);
	if (rc == VQ_OK)
		report(k);
	return rc;
}

static int walk(struct pack *k, struct vq_err *err)
{
	struct vq_record rec;
	int rc;

	while ((rc = vq_reader_segment(k->in, err)) > 0) {
		rc = start_segment(k, err);
		while (rc == VQ_OK && (rc = vq_reader_next(k->in, &rec, err)) > 0)
			rc = one_record(k, &rec, err);
		if (rc == VQ_OK)
			rc = end_segment(k, err);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : finish(k, err);
}

static void release(struct pack *k)
{
	size_t i;

	for (i = 0; i < k->n_sides; i++)
		vq_free(k->sides[i].data);
	vq_free(k->sides);
	vq_free(k->names);
	vq_free(k->seen);
	drop_pending(&k->p);
	json_decref(k->header);
	json_decref(k->segments);
	json_decref(k->results);
	json_decref(k->calib);
	json_decref(k->plan);
	json_decref(k->search);
	vq_vqm_abort(k->out);
	vq_reader_close(k->in);
}

int vq_pack_run(const struct vq_pack_opts *o, int in_fd, const char *in_label, int out_fd,
		const char *out_label, struct vq_err *err)
{
	struct pack k = {.o = o, .label = in_label};
	int rc;

	k.segments = json_array();
	k.results = json_object();
	rc = k.segments && k.results ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot start");
	if (rc == VQ_OK)
		rc = vq_vqm_create(&k.out, out_fd, out_label, err);
	if (rc == VQ_OK)
		rc = vq_reader_open(&k.in, in_fd, in_label, err);
	if (rc == VQ_OK)
		rc = walk(&k, err);
	release(&k);
	return rc;
}
