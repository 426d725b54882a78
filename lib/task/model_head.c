/* How a model stream begins. */
#include "task/model_head.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "stream/history.h"

/* The last part of a path without trailing slashes: how a folder calls its model. */
static char *model_name(const char *path, struct vq_err *err)
{
	size_t n = strlen(path), start;
	char *s;

	while (n > 1 && path[n - 1] == '/')
		n--;
	for (start = n; start > 0 && path[start - 1] != '/'; start--)
		;
	s = vq_alloc(n - start + 1, 1, err);
	if (s) {
		memcpy(s, path + start, n - start);
		s[n - start] = '\0';
	}
	return s;
}

static json_t *new_header(const struct vq_ckpt *k, const char *tool, struct vq_err *err)
{
	char sha[VQ_SHA256_HEX], *name = model_name(vq_ckpt_path(k), err);
	json_t *model = NULL, *header = NULL;

	if (name && vq_ckpt_identity(k, sha, err) >= 0) {
		model = json_pack("{s:s, s:s}", "name", name, "sha256", sha);
		if (!model)
			vq_fail(err, VQ_E_SYS, "memory: cannot have the header");
		else
			header = vq_header_new(tool, model, err);
	}
	vq_free(name);
	json_decref(model);
	return header;
}

json_t *vq_model_header(const struct vq_ckpt *k, const char *tool, json_t *params,
			const char *kernels, const char *blas, struct vq_err *err)
{
	const json_t *old = vq_ckpt_header(k);
	json_t *base = old ? NULL : new_header(k, tool, err), *header = NULL;

	if (old || base)
		header = vq_header_derive(old ? old : base, tool, params, kernels, blas, err);
	json_decref(base);
	return header;
}

static int put_json(struct vq_writer *w, const char *name, json_t *j, struct vq_err *err)
{
	int rc = j ? vq_writer_put_json(w, VQ_KIND_META, name, j, err) : VQ_E_SYS;

	json_decref(j);
	return rc;
}

int vq_model_put_meta(struct vq_writer *w, const struct vq_config *c, const struct vq_ckpt *k,
		      const struct vq_calib_meta *m, struct vq_err *err)
{
	static const char *const files[] = {"tokenizer.json", "tokenizer.model",
					    "tokenizer_config.json", "added_tokens.json"};
	size_t i;
	int rc = put_json(w, "config", vq_config_json(c, err), err);

	for (i = 0; i < sizeof(files) / sizeof(files[0]) && rc >= 0; i++) {
		char *data = NULL;
		size_t n;

		rc = vq_ckpt_file(k, files[i], &data, &n, err);
		if (rc > 0)
			rc = vq_writer_put_bytes(w, VQ_KIND_META, files[i], data, n, err);
		vq_free(data);
	}
	if (rc >= 0)
		rc = put_json(w, "calib", vq_calib_meta_json(m, err), err);
	return rc;
}

int vq_model_tokenizer(struct vq_tokenizer **out, const struct vq_config *c,
		       const struct vq_ckpt *k, struct vq_err *err)
{
	char *data = NULL, *added = NULL;
	size_t n = 0, n_added = 0;
	const char *name = "tokenizer.json";
	char label[512];
	int rc = vq_ckpt_file(k, name, &data, &n, err);

	if (rc == 0) {
		name = "tokenizer.model";
		rc = vq_ckpt_file(k, name, &data, &n, err);
	}
	if (rc == 0)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want tokenizer.json, tokenizer.model, vocab.json and merges.txt, "
			     "qwen.tiktoken or arcade100k.tiktoken, found none",
			     vq_ckpt_path(k));
	if (rc > 0)
		rc = vq_ckpt_file(k, "tokenizer_config.json", &added, &n_added, err);
	if (rc == 0)
		rc = vq_ckpt_file(k, "added_tokens.json", &added, &n_added, err);
	snprintf(label, sizeof(label), "%s/%s", vq_ckpt_path(k), name);
	if (rc >= 0)
		rc = vq_tokenizer_new(out, data, n, label, added, n_added, err);
	/* Fewer tokens than rows is common: embeddings are padded. */
	if (rc >= 0 && vq_tokenizer_size(*out) > c->decoder.vocab) {
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: has %u tokens with the added ones, but the embedding %u rows "
			     "('vocab_size' of config.json); the two are not of one model",
			     label, vq_tokenizer_size(*out), c->decoder.vocab);
		vq_tokenizer_free(*out);
		*out = NULL;
	}
	vq_free(data);
	vq_free(added);
	return rc;
}
