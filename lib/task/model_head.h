/* How a model stream begins, whichever tool is its source. */
#ifndef VQ_TASK_MODEL_HEAD_H
#define VQ_TASK_MODEL_HEAD_H

#include "format/checkpoint.h"
#include "format/tokenizer.h"
#include "model/config.h"
#include "stream/writer.h"
#include "task/plan.h"

/* The stream's header: a new one named after the checkpoint, or that of the stream which the checkpoint came as; with a
 * line of history of the tool (vq_header_derive).  Given. */
json_t *vq_model_header(const struct vq_ckpt *k, const char *tool, json_t *params,
			const char *kernels, const char *blas, struct vq_err *err);

/* META config, the files of the tokenizer, and META calib. */
VQ_MUST_CHECK int vq_model_put_meta(struct vq_writer *w, const struct vq_config *c,
				    const struct vq_ckpt *k, const struct vq_calib_meta *m,
				    struct vq_err *err);

/* The checkpoint's tokenizer: tokenizer.json, else tokenizer.model, with the
 * added tokens of the file beside it. Neither, or more tokens than c has
 * embeddings: VQ_E_DATA. */
VQ_MUST_CHECK int vq_model_tokenizer(struct vq_tokenizer **out, const struct vq_config *c,
				     const struct vq_ckpt *k, struct vq_err *err);

#endif
