/* The activations that search carries along: hidden states of the calibration samples before the unit at hand, in
 * full precision and as the quantized predecessors give them.
 *
 * Rows: in the vision tower, positions of image after image (each image a sequence); for the projector, image tokens
 * of image after image; in the decoder, tokens of sample after sample (each sample a sequence). */
#ifndef VQ_TASK_SEARCH_ACTS_H
#define VQ_TASK_SEARCH_ACTS_H

#include "model/model.h"
#include "stream/reader.h"
#include "stream/writer.h"
#include "task/search.h"

#define VQ_ACTS_MAX_ROWS (1u << 30)

struct vq_acts_sample {
	int32_t *tokens;
	uint32_t n_tokens;
	float *pixels; /* [n_images, 3, S, S]; NULL without, and after the tower was entered */
	uint32_t n_images;
	float *sketch; /* stat/sketch/S: [n_sketch, rows, projector.in] of the features; NULL without */
	uint32_t n_sketch;
	float *entropy; /* stat/entropy_sketch/S: [rows, projector.in]; NULL without */
};

struct vq_acts_point {
	uint32_t unit;
	float *h;
	size_t n_rows, width;
};

struct vq_acts {
	const struct vq_config *cfg; /* borrowed; set by the caller before the first record */
	struct vq_acts_sample *samples;
	uint32_t n_samples, samples_room, n_images;
	struct vq_acts_point *points; /* checkpoints */
	uint32_t n_points, points_room;
	float *vision_weight; /* stat/vision_weight: [n_units]; NULL without */

	uint8_t *wide; /* --mixed: [n_units] 1: inputs keep 8 bits; NULL: none do */

	int entered; /* the streams below hold what enters `unit` */
	uint32_t unit;
	float *full, *quant; /* [n_rows, width] */
	size_t n_rows;
	uint32_t width;
	uint32_t *start; /* [n_seqs + 1] */
	uint32_t n_seqs;
};

/* 1 when search reads this INPUT or STAT record: samples, checkpoints of the units at hand, sketches where these have some
 * of the vision tower, measured token weights. */
int vq_acts_wants(const struct vq_record *rec, const struct vq_search_opts *o,
		  const struct vq_config *c);
/* Takes such a record, and passes it on to out when that is not NULL.  Everything is checked. */
VQ_MUST_CHECK int vq_acts_record(struct vq_acts *a, struct vq_reader *r,
				 const struct vq_record *rec, struct vq_writer *out,
				 struct vq_err *err);

/* Makes the streams what enters `unit`: embeds images or tokens, drops class tokens, or takes a checkpoint, to which
 * both streams are set.  m holds the embeddings of the unit.  Units come in ascending order.  VQ_E_DATA when the
 * activations cannot be known. */
VQ_MUST_CHECK int vq_acts_enter(struct vq_acts *a, uint32_t unit, const struct vq_model *m,
				struct vq_err *err);

/* Runs units first..last of m over h (full or quant) in place, some thousand rows at a time; for the projector the
 * array is replaced (its width changes). */
VQ_MUST_CHECK int vq_acts_run(const struct vq_acts *a, struct vq_model *m, uint32_t first,
			      uint32_t last, float **h, struct vq_err *err);

/* Both streams stand behind the last vision layer, whose unit m has: they become the features that the projector reads. */
VQ_MUST_CHECK int vq_acts_features(struct vq_acts *a, const struct vq_model *m, struct vq_err *err);

/* After both streams were run: they are now what leaves `last`. */
void vq_acts_left(struct vq_acts *a, uint32_t last);

/* Sequences, evenly chosen, of about n_rows rows together (0: all): their numbers, ascending.  Given. */
uint32_t *vq_acts_choose(const struct vq_acts *a, size_t n_rows, uint32_t *n, struct vq_err *err);

/* Rows of the chosen sequences of h, one after the other, and where each starts (start [n + 1]).  Given. */
float *vq_acts_gather(const struct vq_acts *a, const float *h, uint32_t width, const uint32_t *seqs,
		      uint32_t n, uint32_t *start, struct vq_err *err);

/* Frees the streams; the samples stay. */
void vq_acts_drop(struct vq_acts *a);
void vq_acts_free(struct vq_acts *a); /* fine on zeroes */

#endif
