/* Packed linears: where their parts lie, and the weights that products read. */
#include <string.h>

#include "base/mem.h"
#include "model/packed.h"
#include "model/packed_entry.h"
#include "quant/grid.h"
#include "quant/nf_packed.h"

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

/* One of "parts": [offset, bytes], which must be where the layout has it. */
static int find_part(const struct vq_packed_entry *e, const char *key, size_t at, size_t bytes,
		     const uint8_t **data, struct vq_err *err)
{
	const json_t *p = json_object_get(json_object_get(e->j, "parts"), key);
	const json_t *j_at = json_array_get(p, 0), *j_bytes = json_array_get(p, 1);
	json_int_t got_at = json_integer_value(j_at), got = json_integer_value(j_bytes);

	if (json_array_size(p) != 2 || !json_is_integer(j_at) || !json_is_integer(j_bytes) ||
	    got_at < 0 || (uint64_t)got_at != at || got < 0 || (uint64_t)got != bytes)
		return vq_fail(err, VQ_E_DATA, "%s: part '%s': want [%zu, %zu], got [%lld, %lld]",
			       e->label, key, at, bytes, (long long)got_at, (long long)got);
	if (at > e->data->n || bytes > e->data->n - at)
		return vq_fail(err, VQ_E_DATA, "%s: part '%s': %zu bytes at %zu are not within %zu",
			       e->label, key, bytes, at, e->data->n);
	*data = e->data->data + at;
	return VQ_OK;
}

/* The parts are all that the member has: more would be there for another grid. */
static int check_size(const struct vq_packed_entry *e, size_t want, struct vq_err *err)
{
	return e->data->n == want ? VQ_OK
				  : vq_fail(err, VQ_E_DATA, "%s: its grid wants %zu bytes, got %zu",
					    e->label, want, e->data->n);
}

static int parse_grid(const struct vq_packed_entry *e, struct vq_wgrid *g, struct vq_err *err)
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

/* The parts of an NF weight; *own: its absmax as floats. */
static int find_nf(const struct vq_packed_entry *e, uint32_t n_out, uint32_t n_in, uint32_t bits,
		   struct vq_packed *p, void **own, struct vq_err *err)
{
	struct vq_nf_absmax a = {.n = vq_nf_n_blocks(n_out, n_in)};
	const uint8_t *planes = NULL, *q = NULL, *scale = NULL, *offset = NULL;
	struct vq_packed_nf_parts at;
	int rc;

	if (vq_packed_place_nf(&at, bits, n_out, n_in) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: too large", e->label);
	rc = find_part(e, "planes", 0, at.planes_bytes, &planes, err);
	if (rc == VQ_OK)
		rc = find_part(e, "absmax", at.absmax, at.absmax_bytes, &q, err);
	if (rc == VQ_OK)
		rc = find_part(e, "absmax_scale", at.scale, at.scale_bytes, &scale, err);
	if (rc == VQ_OK)
		rc = find_part(e, "absmax_offset", at.offset, at.offset_bytes, &offset, err);
	if (rc == VQ_OK)
		rc = check_size(e, at.bytes, err);
	if (rc < 0)
		return rc;
	a.q = (uint8_t *)(uintptr_t)q; /* only read, and the floats lie at multiples of VQ_ALIGN */
	a.scale = (float *)(uintptr_t)scale;
	a.offset = *(const float *)(const void *)offset;
	rc = vq_nf_absmax_check(&a, e->label, err);
	if (rc == VQ_OK)
		rc = vq_nf_packed(p, bits, n_out, n_in, planes, &a, err);
	if (rc == VQ_OK)
		*own = (void *)(uintptr_t)p->absmax;
	return rc;
}

/* The parts of a weight on a uniform grid. */
static int find_uniform(const struct vq_packed_entry *e, uint32_t n_out, uint32_t n_in,
			struct vq_packed *p, struct vq_err *err)
{
	struct vq_packed_parts at;
	struct vq_wgrid g = {0};
	const uint8_t *scale = NULL;
	int rc = parse_grid(e, &g, err);

	if (rc < 0)
		return rc;
	*p = (struct vq_packed){.n_out = n_out,
				.n_in = n_in,
				.bits = g.bits,
				.group = g.group,
				.n_groups = vq_grid_n_groups(&g, n_in),
				.sym = g.sym};
	if (vq_packed_place(&at, g.bits, n_out, n_in, p->n_groups, g.sym) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: too large", e->label);
	rc = find_part(e, "planes", 0, at.planes_bytes, &p->planes, err);
	if (rc == VQ_OK)
		rc = find_part(e, "scale", at.scale, at.scale_bytes, &scale, err);
	if (rc == VQ_OK && !g.sym)
		rc = find_part(e, "zero", at.zero, at.zero_bytes, &p->zero, err);
	if (rc == VQ_OK)
		rc = check_size(e, at.bytes, err);
	if (rc < 0)
		return rc;
	p->scale = (const uint16_t *)(const void *)scale; /* at a multiple of VQ_ALIGN */
	return VQ_OK;
}

int vq_packed_linear(const struct vq_packed_entry *e, uint32_t n_out, uint32_t n_in,
		     struct vq_packed *p, void **own, struct vq_err *err)
{
	const json_t *grid = json_object_get(json_object_get(e->j, "attrs"), "grid");
	uint64_t dims[VQ_MAX_DIMS];
	uint32_t n_dims, nf = 0;
	int rc = vq_packed_shape(e, &n_dims, dims, err);

	*own = NULL;
	if (rc == VQ_OK)
		rc = vq_nf_grid_parse(grid, &nf, e->label, err);
	if (rc < 0)
		return rc;
	if (n_dims != 2 || dims[0] != n_out || dims[1] != n_in)
		return vq_fail(err, VQ_E_DATA, "%s: want a linear layer of shape [%u, %u]",
			       e->label, n_out, n_in);
	return nf ? find_nf(e, n_out, n_in, nf, p, own, err) : find_uniform(e, n_out, n_in, p, err);
}
