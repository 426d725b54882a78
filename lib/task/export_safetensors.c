/* Exporting: weights as safetensors, in files of bounded size, one tensor at a time. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "format/safetensors.h"
#include "format/words.h"
#include "task/export_parts.h"

#define NAME_ROOM 192u

/* A tensor of the output. */
struct piece {
	const struct vq_export_item *item; /* NULL: made up here */
	enum vq_export_part part;
	uint32_t file;
};

struct out {
	struct vq_export *x;
	struct piece *pieces;
	struct vq_st_entry *entries; /* [n], names given */
	size_t n, room;
	uint32_t n_files;
	uint64_t total, in_file; /* bytes */
};

/* --- the list --- */

static int add(struct out *o, const struct vq_export_item *item, enum vq_export_part part,
	       const char *name, enum vq_dtype type, uint32_t n_dims, const uint64_t *dims,
	       struct vq_err *err)
{
	struct vq_st_entry *e;

	if (o->n == o->room) {
		size_t room = 2 * o->room + 64;
		int rc = vq_grow((void **)&o->pieces, o->room, room, sizeof(*o->pieces), err);

		if (rc == VQ_OK)
			rc = vq_grow((void **)&o->entries, o->room, room, sizeof(*o->entries), err);
		if (rc < 0)
			return rc;
		o->room = room;
	}
	e = &o->entries[o->n];
	*e = (struct vq_st_entry){.t = {.dtype = type, .n_dims = n_dims}};
	memcpy(e->t.dims, dims, n_dims * sizeof(*dims));
	e->name = vq_strdup(name, err);
	if (!e->name)
		return VQ_E_SYS;
	o->pieces[o->n++] = (struct piece){item, part, 0};
	return VQ_OK;
}

struct shape {
	enum vq_export_part part;
	const char *suffix;
	enum vq_dtype type;
	uint64_t a, b; /* b 0: one dimension */
};

static int add_shapes(struct out *o, const struct vq_export_item *i, const char *module,
		      const struct shape *s, size_t n, struct vq_err *err)
{
	char name[NAME_ROOM];
	size_t k;
	int rc = VQ_OK;

	for (k = 0; rc == VQ_OK && k < n; k++) {
		const uint64_t dims[2] = {s[k].a, s[k].b};

		snprintf(name, sizeof(name), "%s.%s", module, s[k].suffix);
		rc = add(o, i, s[k].part, name, s[k].type, s[k].b ? 2 : 1, dims, err);
	}
	return rc;
}

static int add_nf(struct out *o, const struct vq_export_item *i, const char *module,
		  struct vq_err *err)
{
	size_t n = (size_t)i->n_out * i->n_in, blocks = vq_nf_n_blocks(i->n_out, i->n_in);
	struct vq_export_tensor t;
	int rc = vq_export_open(&t, o->x->v, i->name, err);
	char *state = rc == VQ_OK ? vq_export_nf_state(&t, err) : NULL;
	const struct shape s[] = {
		{VQ_PART_NF_CODES, "weight", VQ_U8, (n + 1) / 2, 1},
		{VQ_PART_NF_ABSMAX, "weight.absmax", VQ_U8, blocks, 0},
		{VQ_PART_NF_NESTED_ABSMAX, "weight.nested_absmax", VQ_F32, vq_nf_n_scales(blocks),
		 0},
		{VQ_PART_NF_NESTED_MAP, "weight.nested_quant_map", VQ_F32, 256, 0},
		{VQ_PART_NF_MAP, "weight.quant_map", VQ_F32, 16, 0},
		{VQ_PART_NF_STATE, "weight.quant_state.bitsandbytes__nf4", VQ_U8,
		 state ? strlen(state) : 0, 0},
	};

	if (rc < 0)
		return rc;
	rc = state ? add_shapes(o, i, module, s, sizeof(s) / sizeof(s[0]), err) : VQ_E_SYS;
	free(state);
	vq_export_close(&t);
	return rc;
}

static int add_ct(struct out *o, const struct vq_export_item *i, const char *module, uint32_t n,
		  struct vq_err *err)
{
	uint64_t zero_words = vq_words_count(i->bits, i->n_out);
	int acts = vq_export_acts_of(o->x, i);
	const struct shape packed[] = {
		{VQ_PART_CT_PACKED, "weight_packed", VQ_I32, i->n_out,
		 vq_words_count(i->bits, i->n_in)},
		{VQ_PART_SCALE_ALONG, "weight_scale", VQ_F16, i->n_out, n},
		{VQ_PART_CT_SHAPE, "weight_shape", VQ_I64, 2, 0},
		{VQ_PART_CT_PACKED_ZERO, "weight_zero_point", VQ_I32, zero_words, n},
	};
	const struct shape bytes[] = {
		{VQ_PART_CT_INT, "weight", VQ_I8, i->n_out, i->n_in},
		{VQ_PART_SCALE_ALONG, "weight_scale", VQ_F16, i->n_out, n},
		{VQ_PART_CT_INT_ZERO, "weight_zero_point", VQ_I8, i->n_out, n},
	};
	const struct shape input[] = {
		{VQ_PART_CT_INPUT_SCALE, "input_scale", VQ_F32, 1, 0},
		{VQ_PART_CT_INPUT_ZERO, "input_zero_point", VQ_I8, 1, 0},
	};
	int rc;

	if (acts < VQ_EXPORT_ACTS_DYNAMIC)
		return add_shapes(o, i, module, packed, i->sym ? 3 : 4, err);
	rc = add_shapes(o, i, module, bytes, i->sym ? 2 : 3, err);
	if (rc == VQ_OK && acts == VQ_EXPORT_ACTS_STATIC)
		rc = add_shapes(o, i, module, input, i->act.sym ? 1 : 2, err);
	return rc;
}

static int add_codes(struct out *o, const struct vq_export_item *i, const char *module,
		     struct vq_err *err)
{
	uint64_t n_in = i->n_in, n_out = i->n_out, n = o->x->group ? n_in / o->x->group : 1;
	const struct shape awq[] = {
		{VQ_PART_AWQ_WEIGHT, "qweight", VQ_I32, n_in, n_out / 8},
		{VQ_PART_AWQ_ZERO, "qzeros", VQ_I32, n, n_out / 8},
		{VQ_PART_SCALE_DOWN, "scales", VQ_F16, n, n_out},
	};
	const struct shape gptq[] = {
		{VQ_PART_GPTQ_WEIGHT, "qweight", VQ_I32, n_in * i->bits / 32, n_out},
		{VQ_PART_GPTQ_ZERO, "qzeros", VQ_I32, n, n_out * i->bits / 32},
		{VQ_PART_SCALE_DOWN, "scales", VQ_F16, n, n_out},
		{VQ_PART_GPTQ_GROUP, "g_idx", VQ_I32, n_in, 0},
	};

	switch (o->x->o->to) {
	case VQ_EXPORT_AWQ: return add_shapes(o, i, module, awq, 3, err);
	case VQ_EXPORT_GPTQ: return add_shapes(o, i, module, gptq, 4, err);
	case VQ_EXPORT_CT: return add_ct(o, i, module, (uint32_t)n, err);
	default: return add_nf(o, i, module, err);
	}
}

static int add_item(struct out *o, const struct vq_export_item *i, struct vq_err *err)
{
	struct vq_export_tensor t;
	uint64_t dims[VQ_MAX_DIMS];
	char name[NAME_ROOM];
	enum vq_dtype type;
	int rc;

	vq_export_spell(o->x, i->name->name, name, sizeof(name));
	if (i->as == VQ_AS_CODES) {
		name[strlen(name) - strlen(".weight")] = '\0';
		return add_codes(o, i, name, err);
	}
	rc = vq_export_open_item(&t, o->x, i, err);
	if (rc < 0)
		return rc;
	type = i->as == VQ_AS_HALF ? VQ_F16 : t.t.dtype;
	vq_export_close(&t);
	memcpy(dims, i->name->dims, i->name->n_dims * sizeof(dims[0]));
	dims[0] += i->n_more;
	return add(o, i, VQ_PART_FLOATS, name, type, i->name->n_dims, dims, err);
}

/* The norm behind CLIP's last layer: readers that build all of CLIP want it, and no feature comes through it. */
static int add_last_norm(struct out *o, struct vq_err *err)
{
	static const char stem[] = "vision_tower.vision_model.post_layernorm";
	const uint64_t n = o->x->config.vision.layer.hidden;
	const struct shape s[] = {{VQ_PART_ONES, "weight", VQ_F16, n, 0},
				  {VQ_PART_ZEROS, "bias", VQ_F16, n, 0}};

	return add_shapes(o, NULL, stem, s, 2, err);
}

/* The pieces that came with an item stay in one file. */
static int place(struct out *o, size_t first, struct vq_err *err)
{
	uint64_t sum = 0;
	size_t i, bytes;

	for (i = first; i < o->n; i++) {
		if (vq_st_bytes(&o->entries[i].t, &bytes) < 0)
			return vq_fail(err, VQ_E_DATA, "%s: '%s': too large", o->x->v->label,
				       o->entries[i].name);
		sum += bytes;
	}
	if (o->n_files == 0 || (o->in_file && o->in_file + sum > o->x->o->shard_bytes)) {
		o->n_files++;
		o->in_file = 0;
	}
	o->in_file += sum;
	o->total += sum;
	for (i = first; i < o->n; i++)
		o->pieces[i].file = o->n_files;
	return VQ_OK;
}

static int make_list(struct out *o, struct vq_err *err)
{
	size_t i, first;
	int rc = VQ_OK;

	for (i = 0; rc == VQ_OK && i < o->x->n; i++) {
		first = o->n;
		rc = add_item(o, &o->x->items[i], err);
		if (rc == VQ_OK)
			rc = place(o, first, err);
	}
	first = o->n;
	if (rc == VQ_OK && o->x->config.has_vision && !o->x->config.vision.post_norm)
		rc = add_last_norm(o, err);
	return rc < 0 ? rc : place(o, first, err);
}

/* --- the files --- */

/* Rows 0.. n_out. */
static int write_half(struct vq_export_tensor *t, uint32_t n_out, int fd, const char *label,
		      struct vq_err *err)
{
	const struct vq_packed *p = &t->p;
	size_t n = (size_t)VQ_PANEL * p->n_in;
	float *rows = vq_alloc_f32(n, err);
	uint16_t *half = rows ? vq_alloc(n, sizeof(*half), err) : NULL;
	int rc = half ? VQ_OK : VQ_E_SYS;
	uint32_t r, k;

	for (r = 0; rc == VQ_OK && r < n_out; r += VQ_PANEL) {
		k = n_out - r < VQ_PANEL ? n_out - r : VQ_PANEL;
		vq_packed_rows(p, r, k, p->n_in, rows);
		vq_f32_to_f16_n(half, rows, (size_t)k * p->n_in);
		rc = vq_write_full(fd, half, (size_t)k * p->n_in * sizeof(*half), label, err);
	}
	vq_free(half);
	vq_free(rows);
	return rc;
}

static int write_floats(const struct vq_export_item *i, struct vq_export_tensor *t, int fd,
			const char *label, struct vq_err *err)
{
	const size_t row = i->n_in * vq_dtype_size(t->t.dtype);
	uint32_t k;
	int rc = t->t.data ? vq_write_full(fd, t->t.data, i->n_out * row, label, err)
			   : write_half(t, i->n_out, fd, label, err);

	for (k = 0; rc == VQ_OK && k < i->n_more; k++)
		rc = t->t.data ? vq_write_full(fd, t->t.data, row, label, err)
			       : write_half(t, 1, fd, label, err);
	return rc;
}

static int write_piece(struct out *o, size_t at, int fd, const char *label, struct vq_err *err)
{
	const struct piece *p = &o->pieces[at];
	struct vq_export_tensor t = {0};
	void *data = NULL;
	size_t bytes;
	int rc = vq_export_go_on(o->x, err);

	if (rc == VQ_OK && p->item)
		rc = vq_export_open_item(&t, o->x, p->item, err);

	if (rc == VQ_OK)
		rc = vq_st_bytes(&o->entries[at].t, &bytes);
	if (rc == VQ_OK && p->part != VQ_PART_FLOATS) {
		rc = vq_export_fill(o->x, &t, p->part, &data, err);
		if (rc == VQ_OK)
			rc = vq_write_full(fd, data, bytes, label, err);
		vq_free(data);
	} else if (rc == VQ_OK) {
		rc = write_floats(p->item, &t, fd, label, err);
	}
	vq_export_close(&t);
	return rc;
}

static void file_name(const struct out *o, uint32_t file, char *buf, size_t room)
{
	if (o->n_files == 1)
		snprintf(buf, room, "model.safetensors");
	else
		snprintf(buf, room, "model-%05u-of-%05u.safetensors", file, o->n_files);
}

static json_t *metadata(const struct vq_export *x)
{
	const json_t *calib = json_object_get(x->model, "calib");

	return json_pack(
		"{s:s, s:s, s:s, s:s, s:s*}", "format", "pt", "producer", "vqlm-export " VQ_VERSION,
		"vqlm.format", vq_export_name(x->o->to), "vqlm.model_sha256",
		json_string_value(json_object_get(x->v->manifest, "sha256")), "vqlm.calib_sha256",
		json_string_value(json_object_get(calib, "data_sha256")));
}

/* Pieces first.. end are those of the file. */
static int write_file(struct out *o, uint32_t file, size_t first, size_t end, struct vq_err *err)
{
	const struct vq_st_entry **order = NULL;
	json_t *meta = metadata(o->x);
	struct vq_output f;
	char name[64], *path;
	size_t i;
	int rc;

	file_name(o, file, name, sizeof(name));
	path = vq_folder_file(&o->x->folder, name, err);
	rc = path && meta ? vq_output_open(&f, path, err)
			  : vq_fail(err, VQ_E_SYS, "memory: cannot write %s", name);
	vq_free(path);
	if (rc < 0) {
		json_decref(meta);
		return rc;
	}
	rc = vq_st_write_head(f.fd, f.label, o->entries + first, end - first, meta, &order, err);
	for (i = 0; rc == VQ_OK && i < end - first; i++)
		rc = write_piece(o, (size_t)(order[i] - o->entries), f.fd, f.label, err);
	if (rc == VQ_OK)
		rc = vq_output_commit(&f, err);
	else
		vq_output_abort(&f, 0);
	vq_free(order);
	json_decref(meta);
	return rc;
}

static int write_index(struct out *o, struct vq_err *err)
{
	json_t *map = json_object(), *j;
	char name[64];
	size_t i;
	int rc;

	for (i = 0; i < o->n; i++) {
		file_name(o, o->pieces[i].file, name, sizeof(name));
		(void)!json_object_set_new(map, o->entries[i].name, json_string(name)); /* below */
	}
	j = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)o->total,
		      "weight_map", map);
	rc = j && json_object_size(map) == o->n
		     ? vq_export_put_json(o->x, "model.safetensors.index.json", j, err)
		     : vq_fail(err, VQ_E_SYS, "memory: cannot index the weights");
	json_decref(j);
	return rc;
}

int vq_export_safetensors(struct vq_export *x, struct vq_err *err)
{
	struct out o = {.x = x};
	size_t first, end;
	uint32_t file;
	int rc = make_list(&o, err);

	for (file = 1, first = 0; rc == VQ_OK && file <= o.n_files; file++, first = end) {
		for (end = first; end < o.n && o.pieces[end].file == file;)
			end++;
		rc = write_file(&o, file, first, end, err);
	}
	if (rc == VQ_OK && o.n_files > 1)
		rc = write_index(&o, err);
	for (first = 0; first < o.n; first++)
		vq_free(o.entries[first].name);
	vq_free(o.entries);
	vq_free(o.pieces);
	return rc;
}
