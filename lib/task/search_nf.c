/* NF weights between what quantizes them and their records. */
#include "task/search_nf.h"

#include "base/mem.h"
#include "kernel/round.h"

int vq_searched_nf(struct vq_searched *q, uint32_t bits, const struct vq_tensor *w,
		   struct vq_err *err)
{
	struct vq_nf_error e;
	int rc = vq_nf_alloc(&q->nf, bits, (uint32_t)w->dims[0], (uint32_t)w->dims[1], err);

	if (rc == VQ_OK)
		rc = vq_nf_fit(&q->nf, w->data, w->dtype, &e, err);
	if (rc < 0)
		return rc;
	q->error = e.weight;
	q->error_bytes = e.bytes;
	return VQ_OK;
}

/* [n]: of blocks that run on from row to row. */
static int add_flat(struct vq_held_list *l, const struct vq_held *in, const char *suffix,
		    enum vq_dtype type, uint64_t n, void *data, struct vq_err *err)
{
	struct vq_record r = {.dtype = type, .n_dims = 1, .dims = {n}};

	return vq_held_grid(l, in, suffix, r, data, err);
}

int vq_held_put_absmax(struct vq_held_list *l, const struct vq_held *in, struct vq_nf_absmax *a,
		       struct vq_err *err)
{
	float *offset = vq_alloc_f32(1, err);
	int rc = offset ? VQ_OK : VQ_E_SYS;

	if (offset)
		*offset = a->offset;
	if (rc == VQ_OK) {
		rc = add_flat(l, in, ".absmax", VQ_U8, a->n, a->q, err);
		a->q = NULL;
	}
	if (rc == VQ_OK) {
		rc = add_flat(l, in, ".absmax_scale", VQ_F32, vq_nf_n_scales(a->n), a->scale, err);
		a->scale = NULL;
	}
	if (rc < 0) {
		vq_free(offset);
		return rc;
	}
	return add_flat(l, in, ".absmax_offset", VQ_F32, 1, offset, err);
}

/* A part of absmax, [n]. */
static int find_flat(const struct vq_held_list *l, const char *weight, const char *suffix,
		     enum vq_dtype type, size_t n, const void **data, struct vq_err *err)
{
	char name[VQ_NAME_MAX + 1];
	const struct vq_held *h;

	if (vq_held_sibling(name, weight, suffix, err) < 0)
		return VQ_E_DATA;
	h = vq_held_find(l, name);
	if (!h || h->rec.dtype != type || h->rec.n_dims != 1 || h->rec.dims[0] != n)
		return vq_fail(err, VQ_E_DATA, "'%s': want '%s', %s [%zu]", weight, name,
			       vq_dtype_name(type), n);
	*data = h->data;
	return VQ_OK;
}

int vq_held_find_nf(const struct vq_held_list *l, const struct vq_held *h, uint32_t bits,
		    struct vq_nf *f, struct vq_err *err)
{
	const char *name = h->rec.name;
	const void *q, *scale, *offset;

	f->n_out = (uint32_t)h->rec.dims[0];
	f->n_in = (uint32_t)h->rec.dims[1];
	f->absmax.n = vq_nf_n_blocks(f->n_out, f->n_in);
	if (find_flat(l, name, ".absmax", VQ_U8, f->absmax.n, &q, err) < 0 ||
	    find_flat(l, name, ".absmax_scale", VQ_F32, vq_nf_n_scales(f->absmax.n), &scale, err) <
		    0 ||
	    find_flat(l, name, ".absmax_offset", VQ_F32, 1, &offset, err) < 0)
		return VQ_E_DATA;
	f->codes = h->data;
	if (vq_round_bits(f->codes, (size_t)h->rec.raw_bytes) >> bits)
		return vq_fail(err, VQ_E_DATA, "'%s': has codes of more than %u bits", name, bits);
	f->bits = bits;
	f->absmax.q = (uint8_t *)(uintptr_t)q; /* borrowed, and only read */
	f->absmax.scale = (float *)(uintptr_t)scale;
	f->absmax.offset = *(const float *)offset;
	return vq_nf_absmax_check(&f->absmax, name, err);
}
