/* What the vector rows of the integer product share: the activations in the order of tiles, the segments of a
 * panel, and the loop that hands panels and chunks of tokens to threads.
 *
 *   sum (u - zw)(q - za) = sum u q + zw c + su d,   c = K za - sum q,  d = -za,  su = sum u
 *
 * over the K inputs of a segment; c and d are known from the activations. */
#ifndef VQ_KERNEL_QGEMM_TILES_H
#define VQ_KERNEL_QGEMM_TILES_H

#include "kernel/cpu.h"

#define VQ_STEP 128u /* codes of a step: 32 rows, 4 inputs */

/* A row may ask for its inputs in blocks of some segments, so that what a panel has of a block stays in the first-level
 * cache while all tokens of a chunk pass over it.  The arrays hold block after block, in a block tile after tile
 * (vq_tile_acts_at); nt is the number of tokens of the tile. */
struct vq_tile_acts {
	int32_t *q; /* [steps, nt] four codes each */
	int32_t *c; /* [segments, nt]; narrow: c in the low half, d in the high */
	int32_t *d; /* [segments, nt]; NULL when narrow */
	float *s;   /* [segments, nt] */
};

/* Buffers of one thread. */
struct vq_tile_panel {
	uint8_t *bytes; /* kind->n_bytes: expanded codes */
	int32_t *corr;  /* [n_segs, 32] su, or what the row makes of it */
	int32_t *zero;  /* [block_segs, 32], of rows with blocks as all that follows */
	float *scale;   /* [block_segs, 32] */
	float *y;       /* [chunk, 32] */
	float *gate;    /* [chunk, 32] the product of the gate, where there is one */
};

struct vq_tile_plan {
	const struct vq_product *p;
	struct vq_tile_acts a;
	uint32_t tile, chunk; /* tokens; a chunk is a job and holds whole tiles */
	uint32_t n_steps, seg_steps, block_segs, n_panels, n_chunks;
	int narrow; /* c, d, su and zw fit 16 bits */
	int past;   /* y is stored past the caches, in whole lines */
	const struct vq_tile_plan
		*gate; /* the same for the gate's product, which is not stored; or NULL */
};

/* Steps of the n segments from s on. */
static inline uint32_t vq_tile_steps(const struct vq_tile_plan *pl, uint32_t s, uint32_t n)
{
	uint32_t k0 = s * pl->seg_steps, left = pl->n_steps - k0;

	return left < n * pl->seg_steps ? left : n * pl->seg_steps;
}

/* The tile from token t0 on, of the block of n segments from s on. */
static inline struct vq_tile_acts vq_tile_acts_at(const struct vq_tile_plan *pl, uint32_t s,
						  uint32_t n, uint32_t t0)
{
	size_t rows = pl->p->a->n_rows, at = s * rows + (size_t)t0 * n;

	return (struct vq_tile_acts){
		.q = pl->a.q + s * rows * pl->seg_steps + (size_t)t0 * vq_tile_steps(pl, s, n),
		.c = pl->a.c + at,
		.d = pl->narrow ? NULL : pl->a.d + at,
		.s = pl->a.s + at,
	};
}

/* One segment of one panel. */
struct vq_tile_segment {
	const uint8_t *w; /* planes, or expanded bytes */
	uint32_t n_steps;
	const int32_t *corr;   /* [32] */
	const uint8_t *zero;   /* [32] zw, or NULL: half everywhere */
	const uint16_t *scale; /* [32]; NULL with a table */
	const float *absmax;   /* [32] with a table */
	const uint8_t *byte;   /* [16] the table */
	int32_t half;
};

/* Segment s of a panel as the packed model has it. */
static inline struct vq_tile_segment vq_tile_segment_of(const struct vq_tile_plan *pl,
							uint32_t panel, uint32_t s)
{
	const struct vq_packed *w = pl->p->w;
	size_t at = ((size_t)panel * w->n_groups + s / pl->p->w_every) * VQ_PANEL;
	uint32_t k0 = s * pl->seg_steps;
	uint32_t n = pl->n_steps - k0 < pl->seg_steps ? pl->n_steps - k0 : pl->seg_steps;

	return (struct vq_tile_segment){
		.w = w->planes + ((size_t)panel * pl->n_steps + k0) * 16 * w->bits,
		.n_steps = n,
		.zero = w->zero ? w->zero + at : NULL,
		.scale = w->value ? NULL : w->scale + at,
		.absmax = w->value ? w->absmax + at : NULL,
		.byte = w->byte,
		.half = w->value ? 128 : 1 << (w->bits - 1),
	};
}

/* How a row runs. */
struct vq_tile_kind {
	uint32_t tile, chunk; /* tokens; with blocks a chunk is at most that, else just that */
	int may_narrow;       /* the row wants narrow where it is possible */
	/* Bytes of vq_tile_panel.bytes that the row needs. */
	size_t (*n_bytes)(const struct vq_tile_plan *pl);
	/* One panel times one chunk. */
	void (*job)(const struct vq_tile_plan *pl, uint32_t panel, uint32_t chunk,
		    const struct vq_tile_panel *buf);
	uint32_t block; /* inputs; 0: a panel is not cut into blocks */
	/* The sums of the codes of nt tokens, q [n_steps, nt]; NULL: no way of its own.  May read 64 bytes past q. */
	void (*sum)(const int32_t *q, uint32_t n_steps, uint32_t nt, int32_t *sum);
};

/* Products whose segments are no whole steps go to generic. */
VQ_MUST_CHECK int vq_tiles_run(const struct vq_product *p, const struct vq_tile_kind *kind,
			       struct vq_err *err);

#endif
