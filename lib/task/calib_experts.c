/* How many rows each expert got. */
#include "task/calib_experts.h"

#include <string.h>

#include "base/mem.h"

int vq_calib_experts_begin(struct vq_calib_experts *e, struct vq_model *m, struct vq_err *err)
{
	size_t n = 0, at = 0;
	uint32_t i;

	*e = (struct vq_calib_experts){m->decoder.layers, m->cfg.decoder.n_layers, NULL};
	for (i = 0; i < e->n_layers; i++)
		n += e->layers[i].n_experts;
	if (!n)
		return VQ_OK;
	e->counts = vq_calloc(n, sizeof(*e->counts), err);
	if (!e->counts)
		return VQ_E_SYS;
	for (i = 0; i < e->n_layers; i++) {
		e->layers[i].counts = e->counts + at;
		at += e->layers[i].n_experts;
	}
	return VQ_OK;
}

void vq_calib_experts_end(struct vq_calib_experts *e)
{
	uint32_t i;

	for (i = 0; i < e->n_layers; i++)
		e->layers[i].counts = NULL;
}

int vq_calib_experts_put(const struct vq_calib_experts *e, uint64_t n_rows, struct vq_writer *w,
			 struct vq_err *err)
{
	json_t *layers, *j;
	const uint64_t *at = e->counts;
	uint32_t i, k;
	int bad, rc;

	if (!e->counts)
		return VQ_OK;
	layers = json_array();
	bad = !layers;
	for (i = 0; !bad && i < e->n_layers; i++) {
		json_t *one = json_array();

		for (k = 0; k < e->layers[i].n_experts; k++)
			bad |= json_array_append_new(one, json_integer((json_int_t)*at++)) < 0;
		bad |= json_array_append_new(layers, one) < 0;
	}
	j = json_pack("{s:I, s:O}", "rows", (json_int_t)n_rows, "layers", layers);
	json_decref(layers);
	rc = bad || !j ? vq_fail(err, VQ_E_SYS, "memory: cannot write 'stat/experts'")
		       : vq_writer_put_json(w, VQ_KIND_STAT, "stat/experts", j, err);
	json_decref(j);
	return rc;
}

void vq_calib_experts_free(struct vq_calib_experts *e)
{
	vq_free(e->counts);
	memset(e, 0, sizeof(*e));
}
