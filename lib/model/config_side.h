/* What config_hf.c takes from the files beside config.json. */
#ifndef VQ_MODEL_CONFIG_SIDE_H
#define VQ_MODEL_CONFIG_SIDE_H

#include "format/checkpoint.h"
#include "model/config.h"

struct vq_side {
	const struct vq_ckpt *k;
	const json_t *config;           /* config.json */
	json_t *generation, *tokenizer; /* generation_config.json, tokenizer_config.json; or NULL */
};

const char *vq_side_str(const json_t *o, const char *key); /* NULL unless a string; borrowed */

/* *out: the object in a side file, NULL when there is no such file.  Given. */
VQ_MUST_CHECK int vq_side_json(const struct vq_ckpt *k, const char *name, json_t **out,
			       struct vq_err *err);

/* c->preproc from preprocessor_config.json, or processor_config.json; without
 * either, pictures are resized and cropped to c->vision.image_size.  aspect:
 * "pad" or "square" instead of the file's, or NULL. */
VQ_MUST_CHECK int vq_side_preproc(struct vq_config *c, const struct vq_ckpt *k, const char *aspect,
				  struct vq_err *err);

/* The id of "bos", "eos" or "pad": generation_config.json, then text (the decoder's part of config.json),
 * then the top of it, then the name of the special token, then dflt. */
VQ_MUST_CHECK int vq_side_token(const struct vq_side *s, const json_t *text, const char *what,
				int32_t dflt, int32_t *out, struct vq_err *err);

/* The id of the special token that tokenizer_config.json has under key ("eos_token"); -1 when it is not to be had. */
int32_t vq_side_named_token(const struct vq_side *s, const char *key);

/* c->chat: by name when template_name is set (s and otherwise may be NULL
 * then), else from the checkpoint's text, or the template `otherwise` where it
 * has none. */
VQ_MUST_CHECK int vq_side_chat(struct vq_config *c, const struct vq_side *s,
			       const char *template_name, const char *otherwise,
			       struct vq_err *err);

#endif
