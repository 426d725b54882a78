/* Activation grids as JSON attributes: {"bits", "group", "sym", "clip"}. */
#ifndef VQ_QUANT_AGRID_H
#define VQ_QUANT_AGRID_H

#include "base/json.h"
#include "kernel/qact.h"

json_t *vq_agrid_json(const struct vq_agrid *g); /* given; NULL on no memory */
VQ_MUST_CHECK int vq_agrid_parse(struct vq_agrid *g, const json_t *j, const char *label,
				 struct vq_err *err);

#endif
