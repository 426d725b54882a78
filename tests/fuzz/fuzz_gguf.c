/* GGUF files: every value of every key and every byte of every tensor that is accepted can be read, blocks have values, and
 * the file as a checkpoint hands out its tensors and its tokenizer. */
#include "fuzz.h"
#include "tensors.h"

#include "base/mem.h"
#include "format/ggml_block.h"
#include "format/ggml_read.h"
#include "format/gguf_read.h"
#include "format/tokenizer.h"

static void touch_values(const struct vq_gguf_file *g)
{
	const uint8_t *p;
	const char *s;
	size_t i, n;
	uint64_t k;

	for (i = 0; i < g->n_keys; i++) {
		fuzz_touch(g->keys[i].name, g->keys[i].n_name);
		p = g->keys[i].p;
		for (k = 0; g->keys[i].item == VQ_GGUF_STRING && k < g->keys[i].n; k++) {
			s = vq_gguf_next_text(&p, &n);
			fuzz_touch(s, n);
		}
		if (g->keys[i].item != VQ_GGUF_STRING && g->keys[i].n)
			fuzz_touch(p, (size_t)g->keys[i].n);
	}
}

static int read_blocks(const struct vq_gguf_file *g)
{
	float x[VQ_GGML_SUPER];
	size_t i, b;

	for (i = 0; i < g->n_tensors; i++) {
		const struct vq_gguf_tensor_info *t = &g->tensors[i];
		const struct vq_ggml_layout *l = vq_ggml_layout(t->type);

		if (!l)
			return 1;
		fuzz_touch(t->data, t->bytes);
		for (b = 0; vq_ggml_has_values(t->type) && b < t->bytes / l->bytes; b++)
			vq_ggml_values(t->type, t->data + b * l->bytes, x);
	}
	return 0;
}

static int read_files(const struct vq_ckpt *c, struct vq_err *err)
{
	char *data = NULL, *added = NULL;
	size_t n = 0, n_added = 0;
	struct vq_tokenizer *t = NULL;
	int rc = vq_ckpt_file(c, "tokenizer.json", &data, &n, err);

	if (rc == 0)
		rc = vq_ckpt_file(c, "tokenizer.model", &data, &n, err);
	if (rc > 0)
		rc = vq_ckpt_file(c, "tokenizer_config.json", &added, &n_added, err);
	if (rc > 0)
		rc = vq_tokenizer_new(&t, data, n, "fuzz", added, n_added, err);
	vq_tokenizer_free(t);
	vq_free(data);
	vq_free(added);
	return fuzz_outcome(rc, err);
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	struct vq_gguf_file g;
	struct vq_err err = {0};
	int rc = vq_gguf_parse(&g, data, n, "fuzz", &err), bad = fuzz_outcome(rc, &err);

	if (rc == VQ_OK) {
		touch_values(&g);
		bad |= read_blocks(&g);
		vq_gguf_close(&g);
	}
	return bad || fuzz_tensors(data, n, read_files);
}
