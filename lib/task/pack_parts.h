/* What the files of vqlm-pack share. */
#ifndef VQ_TASK_PACK_PARTS_H
#define VQ_TASK_PACK_PARTS_H

#include "format/vqm.h"
#include "kernel/qact.h"
#include "model/names.h"
#include "quant/grid.h"
#include "quant/nf4.h"
#include "quant/transform_attr.h"
#include "stream/reader.h"
#include "task/pack.h"
#include "task/pack_card.h"

/* META and PLAN of the first segment, which every other must repeat. */
struct vq_pack_side {
	char name[VQ_NAME_MAX + 1];
	uint32_t kind;
	uint64_t hash, n;
	char *data; /* [n] and a zero byte; freed once written */
};

/* A quantized linear whose grids are still to come. */
struct vq_pack_pending {
	char stem[VQ_NAME_MAX + 1]; /* "X" of "X.weight"; empty when there is none */
	const struct vq_name *name;
	struct vq_wgrid grid;
	uint32_t n_out, n_in, n_groups;
	json_t *attrs;
	uint8_t *planes;
	uint16_t *scale; /* packed */
	uint32_t nf;     /* bits of NF codes instead of that grid, or 0 */
	uint32_t n_nf;   /* parts of absmax that have come */
	struct vq_nf_absmax absmax;
};

/* A transform that came, for the linears after it that name it. */
struct vq_pack_transform {
	char from[VQ_NAME_MAX + 1];
	const struct vq_name *name; /* the weight that brought it */
	enum vq_transform_kind kind;
	uint32_t n, block;
	uint32_t n_parts, n_seen; /* records that it has, and that have come */
};

/* A linear whose input's ranges are still to come. */
struct vq_pack_ranges {
	char name[VQ_NAME_MAX + 16]; /* "X.range"; empty when there is none */
	const struct vq_name *linear;
	struct vq_agrid act;
};

struct vq_pack {
	const struct vq_pack_opts *o;
	struct vq_reader *in;
	const char *label;
	struct vq_vqm_writer *out;
	json_t *header; /* of the first segment, with our line of history */
	json_t *segments, *results;
	json_t *calib, *plan, *search;
	struct vq_pack_side *sides;
	size_t n_sides, room_sides, n_repeated;
	int config_seen, head_written;
	struct vq_config config;
	struct vq_name *names;
	size_t n_names;
	uint32_t *seen; /* [n_names] the segment that brought it, from 1 */
	uint32_t segment;
	struct vq_pack_pending p;
	struct vq_pack_transform *transforms; /* the last may still want records */
	size_t n_transforms, room_transforms;
	uint32_t n_transformed[VQ_TRANSFORM_N_KINDS]; /* linears */
	struct vq_pack_ranges ranges;
	struct vq_pack_size sizes[VQ_PACK_N_PARTS];
};

/* "LABEL: KIND 'NAME': what", VQ_E_DATA. */
int vq_pack_bad(const struct vq_pack *k, const struct vq_record *rec, struct vq_err *err,
		const char *what);

/* The current record, a TENSOR or a GRID, into the archive (codes wait for their grids). */
VQ_MUST_CHECK int vq_pack_tensor(struct vq_pack *k, const struct vq_record *rec,
				 struct vq_err *err);
VQ_MUST_CHECK int vq_pack_grid(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err);
/* Attribute 'transform' of codes: known from here on when it is their own, checked against what is known when not. */
VQ_MUST_CHECK int vq_pack_transform(struct vq_pack *k, const struct vq_record *rec,
				    const struct vq_name *name, struct vq_err *err);
/* The name of the GRID record that the last transform still wants, in buf; NULL when it is whole. */
const char *vq_pack_transform_wants(const struct vq_pack *k, char buf[VQ_NAME_MAX + 32]);
/* That record into the archive. */
VQ_MUST_CHECK int vq_pack_transform_part(struct vq_pack *k, const struct vq_record *rec,
					 struct vq_err *err);
/* A plain member: its description and what the record holds, which was loaded. */
VQ_MUST_CHECK int vq_pack_put(struct vq_pack *k, const struct vq_record *rec, const void *data,
			      struct vq_err *err);
/* What attribute "act" of a tensor says: where its ranges are stored, their record must follow; and that record. */
VQ_MUST_CHECK int vq_pack_note_ranges(struct vq_pack *k, const struct vq_record *rec,
				      const struct vq_name *name, struct vq_err *err);
VQ_MUST_CHECK int vq_pack_take_ranges(struct vq_pack *k, const struct vq_record *rec,
				      struct vq_err *err);

/* Adds NAME.json; j is taken over, NULL is a failure. */
VQ_MUST_CHECK int vq_pack_describe(struct vq_pack *k, const char *name, json_t *j,
				   struct vq_err *err);
/* The pending linear is on a uniform grid and whole: writes it, with its packed zero points (NULL: symmetric). */
VQ_MUST_CHECK int vq_pack_uniform(struct vq_pack *k, const uint8_t *zero, struct vq_err *err);
/* 1 when the float tensor of that name is to be quantized here (--head 8), and that, of two dimensions (pack_head.c). */
int vq_pack_wants_head8(const struct vq_pack *k, const char *name);
VQ_MUST_CHECK int vq_pack_head8(struct vq_pack *k, const struct vq_record *rec,
				const struct vq_name *name, struct vq_err *err);
/* The pending linear is NF4 or NF3: a part of its absmax (pack_nf.c). */
VQ_MUST_CHECK int vq_pack_nf(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err);
/* A part of the member begun, *at bytes into it, and what fills up to the next (0: none). */
VQ_MUST_CHECK int vq_pack_part(struct vq_pack *k, const void *data, size_t n, size_t *at,
			       size_t next, struct vq_err *err);
/* The pending linear has been written in so many bytes: counts and drops it. */
void vq_pack_linear_done(struct vq_pack *k, uint64_t bytes);
void vq_pack_drop(struct vq_pack_pending *p);

#endif
