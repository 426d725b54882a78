/* Packing: the ranges that grids of inputs store. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "quant/agrid.h"
#include "task/pack_parts.h"

int vq_pack_note_ranges(struct vq_pack *k, const struct vq_record *rec, const struct vq_name *name,
			struct vq_err *err)
{
	const json_t *act = json_object_get(rec->attrs, "act");
	struct vq_pack_ranges *r = &k->ranges;
	char where[VQ_NAME_MAX + 100];

	if (!act)
		return VQ_OK;
	snprintf(where, sizeof(where), "%.80s: '%s'", k->label, rec->name);
	if (vq_agrid_parse(&r->act, act, where, err) < 0)
		return VQ_E_DATA;
	/* A tied embedding is the head too. */
	if (!name->linear &&
	    !(k->config.decoder.tied && strcmp(name->name, "decoder.embed.weight") == 0))
		return vq_pack_bad(k, rec, err, "has an activation grid but is no linear layer");
	if (r->act.range == VQ_RANGE_TOKEN || r->act.bits == VQ_ACT_FLOAT)
		return VQ_OK;
	if (!name->linear)
		return vq_pack_bad(k, rec, err, "stores ranges of an input but is no linear layer");
	if (r->act.range == VQ_RANGE_POSITION && strncmp(name->name, "vision.", 7) != 0)
		return vq_pack_bad(k, rec, err, "act: ranges by position outside the vision tower");
	r->linear = name;
	snprintf(r->name, sizeof(r->name), "%.*s.range",
		 (int)(strlen(name->name) - strlen(".weight")), name->name);
	return VQ_OK;
}

int vq_pack_take_ranges(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	struct vq_pack_ranges *r = &k->ranges;
	struct vq_pack_size *s = &k->sizes[vq_pack_part_of(rec->name)];
	char where[VQ_NAME_MAX + 100];
	void *data = NULL;
	int rc;

	snprintf(where, sizeof(where), "%.80s: '%s'", k->label, rec->name);
	if (strcmp(rec->name, r->name) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: want '%s' after its linear, got '%s'", k->label,
			       r->name, rec->name);
	if (rec->dtype != VQ_F32 || rec->n_dims != 2 || rec->dims[0] != 2)
		return vq_pack_bad(k, rec, err, "want f32 [2, ranges]");
	rc = vq_reader_load(k->in, &data, err);
	if (rc == VQ_OK)
		rc = vq_agrid_set_ranges(
			&r->act, data, (size_t)rec->dims[1], (uint32_t)r->linear->dims[1],
			k->config.has_vision ? vq_vision_positions(&k->config) : 0, where, err);
	if (rc == VQ_OK)
		rc = vq_pack_put(k, rec, data, err);
	vq_free(data);
	s->after += rec->raw_bytes;
	r->name[0] = '\0';
	return rc;
}
