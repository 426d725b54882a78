/* Packing: the token embedding and the head, quantized here. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/qgemm.h"
#include "quant/agrid.h"
#include "task/pack_parts.h"

#define HEAD_ROWS 256u /* turned into floats at a time; any number gives the same codes */

static const struct vq_wgrid head_grid = {.bits = 8, .group = 128, .sym = 1};
static const struct vq_agrid head_act = {.bits = 8, .group = 128, .sym = 0, .clip = 1};

int vq_pack_wants_head8(const struct vq_pack *k, const char *name)
{
	return k->o->head8 && (strcmp(name, "decoder.embed.weight") == 0 ||
			       strcmp(name, "decoder.head.weight") == 0);
}

static json_t *head_attrs(const struct vq_pack *k, const struct vq_record *rec)
{
	json_t *a = rec->attrs ? json_deep_copy(rec->attrs) : json_object();

	if (json_object_set_new(a, "grid",
				json_pack("{s:i, s:i, s:b}", "bits", (int)head_grid.bits, "group",
					  (int)head_grid.group, "sym", head_grid.sym)) < 0) {
		json_decref(a);
		return NULL;
	}
	/* A tied embedding is the head too, and its input is quantized as a head's is. */
	if (k->config.decoder.tied || strcmp(rec->name, "decoder.head.weight") == 0)
		json_object_set_new(a, "act", vq_agrid_json(&head_act));
	return a;
}

/* Rounds t [n_out, n_in] to nearest, some rows at a time. */
static int round_rows(struct vq_pack *k, const struct vq_record *rec, const struct vq_tensor *t,
		      struct vq_codes *c, struct vq_err *err)
{
	size_t n_in = c->n_in, n, i;
	float *w = vq_alloc_f32(HEAD_ROWS * n_in, err);
	uint32_t r, rows;
	int rc = w ? VQ_OK : VQ_E_SYS;

	for (r = 0; rc == VQ_OK && r < c->n_out; r += rows) {
		struct vq_codes part = *c;

		rows = c->n_out - r < HEAD_ROWS ? c->n_out - r : HEAD_ROWS;
		n = rows * n_in;
		rc = vq_tensor_to_f32(t, r * n_in, n, w, err);
		for (i = 0; rc == VQ_OK && i < n; i++)
			if (!isfinite(w[i]))
				rc = vq_pack_bad(k, rec, err, "has a weight that is no number");
		part.n_out = rows;
		part.codes += r * n_in;
		part.scale += (size_t)r * vq_grid_n_groups(&c->grid, c->n_in);
		if (rc == VQ_OK)
			vq_grid_fit(&part, w, 1);
	}
	vq_free(w);
	return rc;
}

int vq_pack_head8(struct vq_pack *k, const struct vq_record *rec, const struct vq_name *name,
		  struct vq_err *err)
{
	struct vq_pack_pending *p = &k->p;
	struct vq_tensor t = {.dtype = rec->dtype, .n_dims = 2};
	struct vq_codes c = {0};
	void *data = NULL;
	int rc;

	memcpy(t.dims, rec->dims, sizeof(t.dims));
	*p = (struct vq_pack_pending){.name = name,
				      .grid = head_grid,
				      .n_out = (uint32_t)rec->dims[0],
				      .n_in = (uint32_t)rec->dims[1]};
	p->n_groups = vq_grid_n_groups(&p->grid, p->n_in);
	p->attrs = head_attrs(k, rec);
	rc = p->attrs ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot describe the head");
	if (rc == VQ_OK)
		rc = vq_codes_alloc(&c, &p->grid, p->n_out, p->n_in, err);
	if (rc == VQ_OK)
		rc = vq_reader_load(k->in, &data, err);
	t.data = data;
	if (rc == VQ_OK)
		rc = round_rows(k, rec, &t, &c, err);
	vq_free(data);
	if (rc == VQ_OK) {
		p->planes = vq_alloc(vq_packed_plane_bytes(8, p->n_out, p->n_in), 1, err);
		p->scale = vq_alloc(vq_packed_n_scales(p->n_out, p->n_groups), 2, err);
		rc = p->planes && p->scale ? VQ_OK : VQ_E_SYS;
	}
	if (rc == VQ_OK) {
		vq_pack_codes(8, c.codes, p->n_out, p->n_in, p->planes);
		vq_pack_scales(c.scale, p->n_out, p->n_groups, p->scale);
	}
	vq_codes_free(&c);
	return rc < 0 ? rc : vq_pack_uniform(k, NULL, err);
}
