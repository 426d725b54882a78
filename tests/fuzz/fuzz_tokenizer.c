/* tokenizer.json and tokenizer.model: what is accepted must encode any text, and decode it. */
#include "fuzz.h"

#include "base/mem.h"
#include "format/tokenizer.h"

int vq_fuzz(const uint8_t *data, size_t n)
{
	static const char text[] =
		"USER: <image>\nIs 1 + 1 = 2? \xc3\xa9\xff\xf0\x9f\xa6\x99 ASSISTANT:";
	struct vq_tokenizer *t = NULL;
	struct vq_err err = {0};
	int32_t *ids = NULL;
	size_t n_ids = 0, i;
	int rc = vq_tokenizer_new(&t, (const char *)data, n, "fuzz", NULL, 0, &err), bad;
	char *back;

	if (rc < 0)
		return fuzz_outcome(rc, &err);
	rc = vq_tokenizer_encode(t, text, sizeof(text) - 1, 1, &ids, &n_ids, &err);
	bad = fuzz_outcome(rc, &err);
	for (i = 0; i < n_ids; i++)
		bad |= ids[i] < 0 || (uint32_t)ids[i] >= vq_tokenizer_size(t);
	back = vq_tokenizer_decode(t, ids, n_ids, &err);
	bad |= !back;
	vq_free(back);
	vq_free(ids);
	vq_tokenizer_free(t);
	return bad;
}
