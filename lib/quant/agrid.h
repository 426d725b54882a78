/* Activation grids as JSON attributes: {"bits", "group", "sym", "clip"}, and where ranges are stored "range", one of
 * static, channel, position.  The ranges themselves are a record beside it: f32 [2, n_ranges], lows and highs. */
#ifndef VQ_QUANT_AGRID_H
#define VQ_QUANT_AGRID_H

#include "base/json.h"
#include "kernel/qact.h"

json_t *vq_agrid_json(const struct vq_agrid *g); /* given; NULL on no memory */
/* g->lo and g->hi stay NULL, n_ranges 0: vq_agrid_set_ranges. */
VQ_MUST_CHECK int vq_agrid_parse(struct vq_agrid *g, const json_t *j, const char *label,
				 struct vq_err *err);

/* Gives g the ranges [2, n], borrowed, for rows of n_in inputs in sequences of n_positions.  VQ_E_DATA when there are
 * too few or many, or one is no range. */
VQ_MUST_CHECK int vq_agrid_set_ranges(struct vq_agrid *g, const float *ranges, size_t n,
				      uint32_t n_in, uint32_t n_positions, const char *label,
				      struct vq_err *err);

#endif
