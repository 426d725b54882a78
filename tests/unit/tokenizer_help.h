/* Opening and encoding, for the tests of tokenizers. */
#ifndef TOKENIZER_HELP_H
#define TOKENIZER_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/tokenizer.h"

#define MINI "pipelines/demo/mini-llava/"

static inline struct vq_tokenizer *open_file(const char *path, const char *side)
{
	struct vq_tokenizer *t = NULL;
	struct vq_err err = {0};
	char *data, *more = NULL;
	size_t n, n_more = 0;

	assert_int_equal(vq_file_read(path, 1 << 28, VQ_E_SYS, &data, &n, &err), VQ_OK);
	if (side)
		assert_int_equal(vq_file_read(side, 1 << 28, VQ_E_SYS, &more, &n_more, &err),
				 VQ_OK);
	if (vq_tokenizer_new(&t, data, n, path, more, n_more, &err) < 0)
		fail_msg("%s", err.text);
	vq_free(data);
	vq_free(more);
	return t;
}

static inline struct vq_tokenizer *mini_json(void)
{
	return open_file(MINI "tokenizer.json", MINI "tokenizer_config.json");
}

static inline struct vq_tokenizer *mini_model(void)
{
	return open_file(MINI "tokenizer.model", MINI "tokenizer_config.json");
}

static inline int32_t *encode(const struct vq_tokenizer *t, const char *text, size_t n, int bos,
			      size_t *k)
{
	struct vq_err err = {0};
	int32_t *ids;

	if (vq_tokenizer_encode(t, text, n, bos, &ids, k, &err) < 0)
		fail_msg("%s", err.text);
	return ids;
}

/* The ids of text must be those written as decimal words. */
static inline void expect_ids(const struct vq_tokenizer *t, const char *text, size_t n, int bos,
			      const char *want)
{
	char *end;
	size_t k, i;
	int32_t *ids = encode(t, text, n, bos, &k);

	for (i = 0;; i++) {
		long id = strtol(want, &end, 10);

		if (end == want)
			break;
		if (i >= k || ids[i] != id)
			fail_msg("'%.*s': id %zu is %d, want %ld", (int)n, text, i,
				 i < k ? ids[i] : -1, id);
		want = end;
	}
	assert_int_equal(i, k);
	vq_free(ids);
}

static inline void expect(const struct vq_tokenizer *t, const char *text, const char *want)
{
	expect_ids(t, text, strlen(text), 0, want);
}

#endif
