/* Packing: linears in NF4 or NF3 (quant/nf4.h), whose absmax comes in three records. */
#include "task/pack_parts.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/packed.h"

static int finish(struct vq_pack *k, struct vq_err *err)
{
	struct vq_pack_pending *p = &k->p;
	struct vq_packed_nf_parts a;
	size_t at = 0;
	int rc = vq_packed_place_nf(&a, p->nf, p->n_out, p->n_in);

	if (rc < 0)
		return vq_fail(err, rc, "%s: '%s' is too large", k->label, p->name->name);
	rc = vq_pack_describe(
		k, p->name->name,
		json_pack("{s:s, s:[I,I], s:{s:[I,I], s:[I,I], s:[I,I], s:[I,I]}, s:O?}", "layout",
			  VQ_LAYOUT, "shape", (json_int_t)p->n_out, (json_int_t)p->n_in, "parts",
			  "planes", (json_int_t)a.planes, (json_int_t)a.planes_bytes, "absmax",
			  (json_int_t)a.absmax, (json_int_t)a.absmax_bytes, "absmax_scale",
			  (json_int_t)a.scale, (json_int_t)a.scale_bytes, "absmax_offset",
			  (json_int_t)a.offset, (json_int_t)a.offset_bytes, "attrs", p->attrs),
		err);
	if (rc == VQ_OK)
		rc = vq_vqm_begin(k->out, p->name->name, a.bytes, err);
	if (rc == VQ_OK)
		rc = vq_pack_part(k, p->planes, a.planes_bytes, &at, a.absmax, err);
	if (rc == VQ_OK)
		rc = vq_pack_part(k, p->absmax.q, a.absmax_bytes, &at, a.scale, err);
	if (rc == VQ_OK)
		rc = vq_pack_part(k, p->absmax.scale, a.scale_bytes, &at, a.offset, err);
	if (rc == VQ_OK)
		rc = vq_pack_part(k, &p->absmax.offset, a.offset_bytes, &at, 0, err);
	vq_pack_linear_done(k, a.bytes);
	return rc;
}

int vq_pack_nf(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err)
{
	static const char *const names[] = {"absmax", "absmax_scale", "absmax_offset"};
	struct vq_pack_pending *p = &k->p;
	size_t n_blocks = vq_nf_n_blocks(p->n_out, p->n_in);
	size_t n[] = {n_blocks, vq_nf_n_scales(n_blocks), 1};
	enum vq_dtype type = p->n_nf == 0 ? VQ_U8 : VQ_F32;
	char want[VQ_NAME_MAX + 16];
	void *data = NULL;
	int rc;

	snprintf(want, sizeof(want), "%s.%s", p->stem, names[p->n_nf]);
	if (strcmp(rec->name, want) != 0)
		return vq_fail(err, VQ_E_DATA, "%s: want '%s' after the codes, got '%s'", k->label,
			       want, rec->name);
	if (rec->dtype != type || rec->n_dims != 1 || rec->dims[0] != n[p->n_nf])
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want %s of shape [%zu]", k->label,
			       rec->name, vq_dtype_name(type), n[p->n_nf]);
	rc = vq_reader_load(k->in, &data, err);
	if (rc < 0)
		return rc;
	switch (p->n_nf++) {
	case 0: p->absmax.q = data; return VQ_OK;
	case 1: p->absmax.scale = data; return VQ_OK;
	default: break;
	}
	p->absmax.offset = *(const float *)data;
	p->absmax.n = n_blocks;
	vq_free(data);
	rc = vq_nf_absmax_check(&p->absmax, p->name->name, err);
	if (rc < 0)
		return vq_err_prefix(err, "%s", k->label);
	return finish(k, err);
}
