/* A model as the command line names it: its checkpoint, the tower that it may
 * lack, and its configuration. */
#ifndef VQ_MODEL_OPEN_H
#define VQ_MODEL_OPEN_H

#include "format/checkpoint.h"
#include "model/config.h"

struct vq_open {
	const char *model;         /* as vq_ckpt_open takes it */
	const char *vision;        /* checkpoint with the CLIP tower, or NULL: beside the model */
	const char *template_name; /* of the chat, or NULL: the model's */
	int aspect;                /* position in VQ_ASPECTS */
	int shapes_only;           /* 1: vq_ckpt_ready is left out, tensors may have no data */
};

/* A checkpoint in the layout of the LLaVA authors names its tower,
 * mm_vision_tower.  Without o->vision, and unless the tower is in the
 * checkpoint, it is looked for as a folder of that name, and of the last part
 * of the name, beside the checkpoint and in it.  None: VQ_E_DATA.  An option
 * that the model has no use for: VQ_E_USAGE.  *k is given. */
VQ_MUST_CHECK int vq_open_model(struct vq_ckpt **k, struct vq_config *c, const struct vq_open *o,
				struct vq_err *err);

/* c->preproc.aspect by o; VQ_E_USAGE for a model that reads no pictures. */
VQ_MUST_CHECK int vq_open_aspect(struct vq_config *c, int aspect, struct vq_err *err);

#endif
