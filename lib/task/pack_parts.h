/* What the files of vqlm-pack share. */
#ifndef VQ_TASK_PACK_PARTS_H
#define VQ_TASK_PACK_PARTS_H

#include "format/vqm.h"
#include "model/names.h"
#include "quant/grid.h"
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
	struct vq_pack_size sizes[VQ_PACK_N_PARTS];
};

/* "LABEL: KIND 'NAME': what", VQ_E_DATA. */
int vq_pack_bad(const struct vq_pack *k, const struct vq_record *rec, struct vq_err *err,
		const char *what);

/* The current record, a TENSOR or a GRID, into the archive (codes wait for their grids). */
VQ_MUST_CHECK int vq_pack_tensor(struct vq_pack *k, const struct vq_record *rec,
				 struct vq_err *err);
VQ_MUST_CHECK int vq_pack_grid(struct vq_pack *k, const struct vq_record *rec, struct vq_err *err);
void vq_pack_drop(struct vq_pack_pending *p);

#endif
