/* Round to nearest, a whole weight in the checkpoint's type at once. */
#ifndef VQ_QUANT_RTN_H
#define VQ_QUANT_RTN_H

#include "quant/grid.h"
#include "stream/tensor.h"

/* Fits c (allocated, [n_out, n_in]) to w of type F32, F16 or BF16, every group's range shrunk by clip
 * (1: not).  *error, when not NULL, is ||W' - W||^2 / ||W||^2 (0 for a weight of zeros).  VQ_E_DATA names the element
 * when w holds NaN or infinity.  Rows are independent, so the result does not depend on the number of threads. */
VQ_MUST_CHECK int vq_rtn_fit(struct vq_codes *c, const void *w, enum vq_dtype type, float clip,
			     double *error, struct vq_err *err);

/* VQ_E_DATA naming the first element of w [n] that is NaN or infinite; other types than F32, F16, BF16 pass. */
VQ_MUST_CHECK int vq_rtn_check_finite(const void *w, enum vq_dtype type, size_t n,
				      struct vq_err *err);

/* Rows first..first+n of c as a matrix of its own; the data are borrowed. */
struct vq_codes vq_codes_rows(const struct vq_codes *c, uint32_t first, uint32_t n);

#endif
