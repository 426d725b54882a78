/* safetensors files: every byte of every tensor that is accepted can be read. */
#include "fuzz.h"

#include "format/safetensors.h"

int vq_fuzz(const uint8_t *data, size_t n)
{
	struct vq_st st;
	struct vq_err err = {0};
	char path[64];
	size_t i, k, count;
	int fd = fuzz_file(data, n, path, sizeof(path)), rc, bad;

	if (fd < 0)
		return 1;
	rc = vq_st_open(&st, path, VQ_E_SYS, &err);
	bad = fuzz_outcome(rc, &err);
	for (i = 0; rc == VQ_OK && i < st.n; i++) {
		const struct vq_tensor *t = &st.entries[i].t;

		bad |= vq_tensor_count(t, &count) < 0;
		for (k = 0; !bad && k < count * vq_dtype_size(t->dtype); k++)
			(void)((const volatile uint8_t *)t->data)[k]; /* a fault shows */
	}
	if (rc == VQ_OK)
		vq_st_close(&st);
	close(fd);
	return bad;
}
