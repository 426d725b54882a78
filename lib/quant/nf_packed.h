/* NF weights in the form that products read (kernel/qgemm.h). */
#ifndef VQ_QUANT_NF_PACKED_H
#define VQ_QUANT_NF_PACKED_H

#include "kernel/qgemm.h"
#include "quant/nf4.h"

/* *p: the weight [n_out, n_in] whose codes lie in planes (borrowed) and whose absmax is a.  The floats of absmax are
 * made here, p->absmax, and given.  Rows of no whole blocks straddle. */
VQ_MUST_CHECK int vq_nf_packed(struct vq_packed *p, uint32_t bits, uint32_t n_out, uint32_t n_in,
			       const uint8_t *planes, const struct vq_nf_absmax *a,
			       struct vq_err *err);

#endif
