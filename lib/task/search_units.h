/* layerwise and qvlm: weights are collected block by block; each block is searched (or taken from an interrupted run),
 * written, and both streams of activations go through it. */
#ifndef VQ_TASK_SEARCH_UNITS_H
#define VQ_TASK_SEARCH_UNITS_H

#include "model/names.h"
#include "task/plan.h"
#include "task/search_acts.h"
#include "task/search_block.h"
#include "task/search_resume.h"

struct vq_units {
	const struct vq_search_opts *o;
	struct vq_writer *out;
	struct vq_resume *resume; /* NULL: none */
	const char *label;        /* of the input */
	struct vq_plan plan;
	int have_plan;
	struct vq_calib_meta meta;
	int have_meta;
	struct vq_acts acts;
	struct vq_model full, quant;
	struct vq_held_list pending; /* tensors of the block at hand */
	int have_block;
	struct vq_block block;
	uint64_t n_evals;  /* totals */
	double n_forwards; /* of layers */
	uint32_t n_layers;
	uint32_t n_few, n_raised; /* places where gptq raised its damping */
	double seconds;
};

/* The head of the stream is complete: plan and inputs fit the options. */
VQ_MUST_CHECK int vq_units_begin(struct vq_units *u, const struct vq_config *c, struct vq_err *err);

/* A tensor with its payload (taken over): of the model (name), or not (NULL). */
VQ_MUST_CHECK int vq_units_tensor(struct vq_units *u, struct vq_held *h, const struct vq_name *name,
				  struct vq_err *err);

/* After the last tensor. */
VQ_MUST_CHECK int vq_units_end(struct vq_units *u, struct vq_err *err);
void vq_units_free(struct vq_units *u); /* fine on zeroes */

#endif
