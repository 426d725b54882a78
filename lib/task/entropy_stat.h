/* What vqlm-entropy keeps of a segment's META and STAT records. */
#ifndef VQ_TASK_ENTROPY_STAT_H
#define VQ_TASK_ENTROPY_STAT_H

#include "stream/reader.h"
#include "task/entropy.h"

struct vq_entropy_stat {
	int have_config, have_meta;
	struct vq_config cfg;
	struct vq_calib_meta meta;
	uint32_t n_units, n_pairs;
	double *d; /* [n_units - 1] dependency; -1: no pair; NULL until the joint matrices came */
	double *h; /* [n_units] entropy of the output's levels; -1: none */
	double *error;     /* [n_units] or NULL */
	double *influence; /* [n_units] or NULL */
};

/* Takes what is needed of a record whose payload is at data (raw_bytes of rec); others are ignored. */
VQ_MUST_CHECK int vq_entropy_stat_take(struct vq_entropy_stat *s, const struct vq_entropy_opts *o,
				       const struct vq_record *rec, const void *data,
				       const char *label, struct vq_err *err);

/* What META `config` tells it, for those who have read that themselves. */
void vq_entropy_stat_config(struct vq_entropy_stat *s, const struct vq_config *c);

/* 1 when vq_entropy_stat_take wants the payload. */
int vq_entropy_stat_wants(const struct vq_entropy_opts *o, const struct vq_record *rec);

/* The proxy's values as d of a plan (given): *out NULL where META calib says that there are no statistics, or
 * where there are none and the partition needs none; VQ_E_DATA when the one that is wanted did not come. */
VQ_MUST_CHECK int vq_entropy_stat_proxy(const struct vq_entropy_stat *s,
					const struct vq_entropy_opts *o, const char *label,
					double **out, struct vq_err *err);

void vq_entropy_stat_free(struct vq_entropy_stat *s);

#endif
