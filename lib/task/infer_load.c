/* Opening a model in any of its forms. */
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "model/names.h"
#include "task/infer_parts.h"

/* The last part of a path; "." and "dir/" have one too. */
static json_t *name_of(const char *path)
{
	char *full = realpath(path, NULL), *slash = full ? strrchr(full, '/') : NULL;
	json_t *name = json_string(slash && slash[1] ? slash + 1 : path);

	free(full);
	return name;
}

static int weigh(struct vq_loaded *l, const struct vq_config *c, struct vq_err *err)
{
	struct vq_name *names = NULL;
	struct vq_tensor t;
	size_t n = 0, i, count;
	int rc = vq_names_list(c, &names, &n, err);

	for (i = 0; rc >= 0 && i < n; i++) {
		rc = vq_names_find(c, l->ckpt, &names[i], &t, err);
		if (rc >= 0 && vq_tensor_count(&t, &count) == VQ_OK)
			l->weight_bytes += (uint64_t)count * vq_dtype_size(t.dtype);
	}
	vq_free(names);
	return rc;
}

/* tokenizer.json, else tokenizer.model, with the added tokens of the file beside it. */
static int read_tokenizer(struct vq_loaded *l, struct vq_err *err)
{
	static const char *const files[] = {"tokenizer.json", "tokenizer.model"};
	static const char *const sides[] = {"tokenizer_config.json", "added_tokens.json"};
	char *data = NULL, *side = NULL;
	size_t n = 0, side_n = 0, i = 0;
	int rc = 0;

	for (i = 0; rc == 0 && i < 2; i++)
		rc = vq_ckpt_file(l->ckpt, files[i], &data, &n, err);
	if (rc == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want tokenizer.json or tokenizer.model",
			     vq_ckpt_path(l->ckpt));
	if (rc > 0) {
		const char *label = files[i - 1];

		for (i = 0, rc = 0; rc == 0 && i < 2; i++)
			rc = vq_ckpt_file(l->ckpt, sides[i], &side, &side_n, err);
		if (rc >= 0)
			rc = vq_tokenizer_new(&l->tok, data, n, label, side, side_n, err);
	}
	vq_free(data);
	vq_free(side);
	return rc;
}

static int open_ckpt(struct vq_loaded *l, const char *path, const char *template_name,
		     struct vq_err *err)
{
	struct vq_config c;
	char hex[VQ_SHA256_HEX];
	int rc = vq_ckpt_open(&l->ckpt, path, err);

	if (rc >= 0)
		rc = vq_config_from_ckpt(&c, l->ckpt, template_name, err);
	if (rc >= 0)
		rc = read_tokenizer(l, err);
	if (rc >= 0)
		rc = vq_ckpt_identity(l->ckpt, hex, err);
	if (rc >= 0)
		rc = weigh(l, &c, err);
	if (rc >= 0)
		rc = vq_model_from_ckpt(&l->model, &c, l->ckpt, err);
	if (rc < 0)
		return rc;
	l->identity = json_pack("{s:o, s:s, s:s, s:{s:i, s:i}}", "name", name_of(path), "sha256",
				hex, "method", "none", "bits", "w", 16, "a", 16);
	return l->identity ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot name the model");
}

int vq_loaded_open(struct vq_loaded *l, const char *path, const char *template_name,
		   struct vq_err *err)
{
	int rc;

	memset(l, 0, sizeof(*l));
	if (strcmp(path, "-") != 0 && !vq_path_exists(path))
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", path);
	else if (strcmp(path, "-") != 0 && vq_path_is_dir(path))
		rc = open_ckpt(l, path, template_name, err);
	else
		rc = vq_fail(err, VQ_E_DATA, "%s: packed models are not read yet", path);
	if (rc < 0) {
		vq_loaded_close(l);
		return rc;
	}
	l->vocab = vq_tokenizer_size(l->tok);
	if (l->vocab > l->model.cfg.decoder.vocab)
		l->vocab = l->model.cfg.decoder.vocab;
	return VQ_OK;
}

void vq_loaded_close(struct vq_loaded *l)
{
	vq_model_free(&l->model);
	vq_tokenizer_free(l->tok);
	json_decref(l->identity);
	vq_ckpt_close(l->ckpt);
	memset(l, 0, sizeof(*l));
}
