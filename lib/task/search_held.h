/* Records held in memory: the weights of a block that come in, and what goes out for them. */
#ifndef VQ_TASK_SEARCH_HELD_H
#define VQ_TASK_SEARCH_HELD_H

#include "kernel/qact.h"
#include "quant/grid.h"
#include "quant/nf4.h"
#include "quant/transform_attr.h"
#include "stream/reader.h"
#include "stream/writer.h"

struct vq_held {
	struct vq_record rec; /* attrs owned */
	void *data;           /* owned */
};

struct vq_held_list {
	struct vq_held *items;
	size_t n, room;
};

/* The reader's current record with its payload. */
VQ_MUST_CHECK int vq_held_load(struct vq_held_list *l, struct vq_reader *r,
			       const struct vq_record *rec, struct vq_err *err);
/* data and rec->attrs are taken over, also on failure. */
VQ_MUST_CHECK int vq_held_take(struct vq_held_list *l, const struct vq_record *rec, void *data,
			       struct vq_err *err);
/* Takes the items of from (which is left empty) over. */
VQ_MUST_CHECK int vq_held_move(struct vq_held_list *l, struct vq_held_list *from,
			       struct vq_err *err);
VQ_MUST_CHECK int vq_held_put(const struct vq_held_list *l, struct vq_writer *w,
			      struct vq_err *err);
void vq_held_clear(struct vq_held_list *l); /* frees everything */

/* The record of that name, or NULL. */
const struct vq_held *vq_held_find(const struct vq_held_list *l, const char *name);

/* "X.weight" -> "X" + suffix. */
VQ_MUST_CHECK int vq_held_sibling(char out[VQ_NAME_MAX + 1], const char *weight, const char *suffix,
				  struct vq_err *err);
/* Appends a GRID record of the linear `in`: r has type and dimensions, the rest is filled in.  data is taken over. */
VQ_MUST_CHECK int vq_held_grid(struct vq_held_list *l, const struct vq_held *in, const char *suffix,
			       struct vq_record r, void *data, struct vq_err *err);

/* What search decided for one linear layer. */
struct vq_searched {
	struct vq_codes codes; /* codes NULL: the weight keeps its type, or is in nf */
	struct vq_nf nf;       /* bits 0: it is not */
	struct vq_agrid act;   /* bits 16: no activation grid; ranges borrowed */
	float clip;            /* of the weight's ranges */
	double error;          /* ||W' - W||^2 / ||W||^2 */
	double error_bytes;    /* nf: what integer products add, of ||W'||^2 */
	/* Of the input, with codes only; n 0: none; its arrays are borrowed.  They go out with the weight called
	 * transform_from (borrowed), which stands before the others that share the input. */
	struct vq_transform transform;
	const char *transform_from;
};

void vq_searched_free(struct vq_searched *q); /* codes and nf */

/* Appends the records of a linear layer: codes and grids, which are taken over from q, or the weight of in itself,
 * which is copied; and stored ranges, copied too.  in is its record as it came. */
VQ_MUST_CHECK int vq_held_linear(struct vq_held_list *l, const struct vq_held *in,
				 struct vq_searched *q, struct vq_err *err);

/* Appends the record of a norm, a bias or a router with other values, float32, which are taken over, also on failure. */
VQ_MUST_CHECK int vq_held_floats(struct vq_held_list *l, const struct vq_held *in, float *v,
				 struct vq_err *err);

/* The opposite: what the records say of a linear layer X.weight.  Codes, nf and transform borrow from l.  A linear without
 * grids gives codes NULL, nf.bits 0, act.bits 16; transform_from stays NULL.  Everything is checked: records may come from a file. */
VQ_MUST_CHECK int vq_held_searched(const struct vq_held_list *l, const char *name,
				   struct vq_searched *q, struct vq_err *err);

#endif
