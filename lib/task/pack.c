/* Packing: segments, side files, the members around the tensors. */
#include "task/pack_parts.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "model/packed.h"
#include "stream/history.h"

int vq_pack_bad(const struct vq_pack *k, const struct vq_record *rec, struct vq_err *err,
		const char *what)
{
	return vq_fail(err, VQ_E_DATA, "%s: %s '%s': %s", k->label, vq_kind_name(rec->kind),
		       rec->name, what);
}

/* --- META and PLAN --- */

static struct vq_pack_side *find_side(struct vq_pack *k, const char *name)
{
	size_t i;

	for (i = 0; i < k->n_sides; i++)
		if (strcmp(k->sides[i].name, name) == 0)
			return &k->sides[i];
	return NULL;
}

/* A later segment's META or PLAN. */
static int same_side(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	const struct vq_pack_side *s = find_side(k, rec->name);

	if (!s || s->kind != rec->kind || s->hash != rec->hash || s->n != rec->raw_bytes)
		return vq_pack_bad(
			k, rec, err,
			s ? "differs from that of the first segment: the pieces are not "
			    "of one run"
			  : "is not in the first segment: the pieces are not of one run");
	k->n_repeated++;
	return VQ_OK;
}

static json_t *side_json(const struct vq_pack *k, const struct vq_pack_side *s, struct vq_err *err)
{
	char where[VQ_NAME_MAX + 100];

	snprintf(where, sizeof(where), "%.80s: '%s'", k->label, s->name);
	return vq_json_parse(s->data, (size_t)s->n, where, err);
}

static int take_config(struct vq_pack *k, const struct vq_pack_side *s, struct vq_err *err)
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

static int take_side(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	struct vq_pack_side *s;
	void *data = NULL;
	int rc;

	if (k->segment > 1)
		return same_side(k, rec, err);
	if (k->head_written)
		return vq_pack_bad(k, rec, err, "comes after the first weight");
	if (rec->raw_bytes > ((uint64_t)1 << 30))
		return vq_pack_bad(k, rec, err, "is over 1 GiB");
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
	*s = (struct vq_pack_side){
		.kind = rec->kind, .hash = rec->hash, .n = rec->raw_bytes, .data = data};
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
static int take_result(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
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
static int write_head(struct vq_pack *k, struct vq_err *err)
{
	const struct vq_pack_side *config = find_side(k, "config");
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
		struct vq_pack_side *s = &k->sides[i];

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

/* All grids of the last linear have come ahead of rec, or of the end (NULL). */
static int check_grids(const struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	char want[VQ_NAME_MAX + 32];
	const char *name = k->ranges.name[0] ? k->ranges.name : vq_pack_transform_wants(k, want);

	if (k->p.stem[0] && rec)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want the grids of '%s.weight' after it, got '%s'", k->label,
			       k->p.stem, rec->name);
	if (k->p.stem[0])
		return vq_fail(err, VQ_E_DATA, "%s: the grids of '%s.weight' are missing", k->label,
			       k->p.stem);
	if (name && rec)
		return vq_fail(err, VQ_E_DATA, "%s: want GRID '%s', got %s '%s'", k->label, name,
			       vq_kind_name(rec->kind), rec->name);
	return name ? vq_fail(err, VQ_E_DATA, "%s: '%s' is missing", k->label, name) : VQ_OK;
}

static int one_record(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	int rc = VQ_OK, weight = rec->kind == VQ_KIND_TENSOR || rec->kind == VQ_KIND_GRID;

	if (weight && !k->head_written)
		rc = write_head(k, err);
	if (rc == VQ_OK && rec->kind != VQ_KIND_GRID)
		rc = check_grids(k, rec, err);
	if (rc < 0)
		return rc;
	if (rec->kind == VQ_KIND_META || rec->kind == VQ_KIND_PLAN)
		return take_side(k, rec, err);
	if (rec->kind == VQ_KIND_TENSOR)
		return vq_pack_tensor(k, rec, err);
	if (rec->kind == VQ_KIND_GRID)
		return vq_pack_grid(k, rec, err);
	if (rec->kind == VQ_KIND_STAT && strncmp(rec->name, "search/", 7) == 0)
		return take_result(k, rec, err);
	vq_info("%s: %s '%s' is not packed", k->label, vq_kind_name(rec->kind), rec->name);
	return VQ_OK;
}

/* --- segments --- */

static int start_segment(struct vq_pack *k, struct vq_err *err)
{
	const json_t *h = vq_reader_header(k->in);
	json_t *params;

	k->segment++;
	k->n_repeated = 0;
	if (json_array_append_new(k->segments, json_deep_copy(h)) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: cannot keep a header");
	if (k->segment > 1)
		return VQ_OK;
	params = json_pack("{s:s, s:i}", "layout", VQ_LAYOUT, "head", k->o->head8 ? 8 : 16);
	k->header = vq_header_derive(h, "vqlm-pack", params, NULL, NULL, err);
	json_decref(params);
	return k->header ? VQ_OK : err->code;
}

static int end_segment(struct vq_pack *k, struct vq_err *err)
{
	if (check_grids(k, NULL, err) < 0)
		return VQ_E_DATA;
	if (k->segment > 1 && k->n_repeated != k->n_sides)
		return vq_fail(err, VQ_E_DATA,
			       "%s: segment %u has %zu of the %zu META and PLAN records of the "
			       "first: the pieces are not of one run",
			       k->label, k->segment, k->n_repeated, k->n_sides);
	return VQ_OK;
}

/* Every unit, whole.  Gaps are named by unit, since that is what a job of an array was given. */
static int check_complete(const struct vq_pack *k, struct vq_err *err)
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

static int put_card(struct vq_pack *k, struct vq_err *err)
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
				  .sizes = k->sizes,
				  .n_transformed = k->n_transformed};
	struct vq_str b = {0};
	int rc;

	vq_pack_card(&b, &f);
	rc = b.failed ? vq_fail(err, VQ_E_SYS, "memory: cannot write the card")
		      : vq_vqm_add(k->out, "card.md", b.s, b.n, err);
	vq_str_free(&b);
	return rc;
}

static void report(const struct vq_pack *k)
{
	struct vq_pack_size t = vq_pack_total(k->sizes), q = {0};

	q.elements = t.q_elements;
	q.after = t.q_after;
	vq_info("%llu weights: %.1f MB before, %.1f MB packed, %.2f bits a weight; %u quantized "
		"linears at %.2f bits",
		(unsigned long long)t.elements, 1e-6 * (double)t.before, 1e-6 * (double)t.after,
		vq_pack_bits(&t), t.n_quantized, vq_pack_bits(&q));
}

static int finish(struct vq_pack *k, struct vq_err *err)
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

static int walk(struct vq_pack *k, struct vq_err *err)
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

static void release(struct vq_pack *k)
{
	size_t i;

	for (i = 0; i < k->n_sides; i++)
		vq_free(k->sides[i].data);
	vq_free(k->sides);
	vq_free(k->names);
	vq_free(k->seen);
	vq_free(k->transforms);
	vq_pack_drop(&k->p);
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
	struct vq_pack k = {.o = o, .label = in_label};
	int rc;

	k.segments = json_array();
	k.results = json_object();
	rc = k.segments && k.results ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot start");
	if (rc == VQ_OK)
		rc = vq_vqm_create(&k.out, out_fd, out_label, err);
	if (rc == VQ_OK)
		rc = vq_reader_open(&k.in, in_fd, in_label, err);
	if (rc == VQ_OK)
		rc = vq_reader_ahead(k.in, 1u << VQ_KIND_TENSOR | 1u << VQ_KIND_GRID, err);
	if (rc == VQ_OK)
		rc = walk(&k, err);
	release(&k);
	return rc;
}
