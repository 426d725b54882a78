/* Activation schemes: which grid the input of a linear gets. */
#ifndef VQ_TASK_SEARCH_SCHEME_H
#define VQ_TASK_SEARCH_SCHEME_H

#include "task/search.h"

/* The grid of the linear `name` [.., n_in]: bits 16 where its part is left alone.  Ranges that it stores are counted
 * (n_ranges) but not there yet. */
struct vq_agrid vq_scheme_grid(const struct vq_search_opts *o, const struct vq_config *c,
			       const char *name, uint32_t n_in);

/* 1 when grids store ranges, which are found on calibration inputs. */
int vq_scheme_stores(const struct vq_search_opts *o);

/* The word of the scheme, or NULL where no activation is quantized. */
const char *vq_scheme_name(const struct vq_search_opts *o);

/* VQ_E_USAGE where options contradict the scheme. */
VQ_MUST_CHECK int vq_scheme_check(const struct vq_search_opts *o, struct vq_err *err);

#endif
