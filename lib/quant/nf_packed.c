/* NF weights for products. */
#include "quant/nf_packed.h"

#include "base/mem.h"

int vq_nf_packed(struct vq_packed *p, uint32_t bits, uint32_t n_out, uint32_t n_in,
		 const uint8_t *planes, const struct vq_nf_absmax *a, struct vq_err *err)
{
	struct vq_packed t = {.n_out = n_out,
			      .n_in = n_in,
			      .bits = bits,
			      .group = VQ_NF_BLOCK,
			      .sym = 1,
			      .planes = planes,
			      .value = vq_nf_codes(bits),
			      .straddles = n_in % VQ_NF_BLOCK != 0};
	float *flat, *panels = NULL;

	if (!t.value || a->n != vq_nf_n_blocks(n_out, n_in))
		return vq_fail(err, VQ_E_DATA,
			       "NF: want 3 or 4 bits and %zu blocks, got %u and %zu",
			       vq_nf_n_blocks(n_out, n_in), bits, a->n);
	vq_nf_bytes(bits, t.byte);
	flat = vq_alloc_f32(a->n, err);
	if (!flat)
		return VQ_E_SYS;
	vq_nf_absmax_dequantize(a, flat);
	t.absmax = flat;
	if (!t.straddles) {
		t.n_groups = n_in / VQ_NF_BLOCK;
		panels = vq_alloc_f32(vq_packed_n_scales(n_out, t.n_groups), err);
		if (panels)
			vq_pack_absmax(flat, n_out, t.n_groups, panels);
		vq_free(flat);
		t.absmax = panels;
		if (!panels)
			return VQ_E_SYS;
	}
	*p = t;
	return VQ_OK;
}
