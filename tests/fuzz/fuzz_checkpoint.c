/* Files as checkpoints (model streams, llama2.c's export): every byte of every tensor that is accepted can be read. */
#include "fuzz.h"

#include "format/checkpoint.h"
#include "repair.h"

static int fuzz_checkpoint_once(const uint8_t *data, size_t n)
{
	struct vq_ckpt *c = NULL;
	struct vq_err err = {0};
	char path[64];
	size_t i, k, count;
	int fd = fuzz_file(data, n, path, sizeof(path)), rc, bad;

	if (fd < 0)
		return 1;
	rc = vq_ckpt_open(&c, path, &err);
	if (rc == VQ_OK)
		rc = vq_ckpt_ready(c, &err);
	bad = fuzz_outcome(rc, &err);
	for (i = 0; rc == VQ_OK && i < vq_ckpt_count(c); i++) {
		const struct vq_tensor *t = vq_ckpt_find(c, vq_ckpt_name(c, i), NULL);

		bad |= !t || vq_tensor_count(t, &count) < 0;
		for (k = 0; !bad && k < count * vq_dtype_size(t->dtype); k++)
			(void)((const volatile uint8_t *)t->data)[k]; /* a fault shows */
	}
	vq_ckpt_close(c);
	close(fd);
	return bad;
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	return fuzz_both(fuzz_checkpoint_once, fuzz_fix_stream, data, n);
}
