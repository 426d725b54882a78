/* PyTorch files: every byte of every tensor that is accepted can be read.  What is no ZIP is taken as a pickle. */
#include "fuzz.h"

#include "format/pickle.h"
#include "format/torch.h"

static int all_can_be_read(const struct vq_torch *t)
{
	size_t i, k, count;

	for (i = 0; i < t->n; i++) {
		const struct vq_tensor *x = &t->entries[i].t;

		if (vq_tensor_count(x, &count) < 0)
			return 0;
		for (k = 0; k < count * vq_dtype_size(x->dtype); k++)
			(void)((const volatile uint8_t *)x->data)[k]; /* a fault shows */
	}
	return 1;
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	struct vq_torch t;
	struct vq_pickled *p = NULL;
	struct vq_err err = {0};
	size_t n_p = 0;
	int rc, bad = 0;

	if (n > 0 && data[0] == 0x80 && !vq_torch_is(data, n)) {
		rc = vq_pickle_read(&p, &n_p, data, n, "fuzz", &err);
		bad = fuzz_outcome(rc, &err);
		vq_pickled_free(p, n_p);
		return bad;
	}
	rc = vq_torch_open(&t, data, n, "fuzz", &err);
	bad = fuzz_outcome(rc, &err);
	if (rc == VQ_OK) {
		bad |= !all_can_be_read(&t);
		vq_torch_close(&t);
	}
	return bad;
}
