/* Packed models: the archive, its manifest, and the model in it. */
#include "fuzz.h"

#include "model/packed.h"
#include "repair.h"

static int fuzz_vqm_once(const uint8_t *data, size_t n)
{
	struct vq_err err = {0};
	struct vq_model m;
	struct vq_vqm v;
	char path[64];
	int fd = fuzz_file(data, n, path, sizeof(path)), rc, bad;

	if (fd < 0)
		return 1;
	rc = vq_vqm_open(&v, path, 0, &err);
	bad = fuzz_outcome(rc, &err);
	if (rc >= 0) {
		rc = vq_model_from_vqm(&m, &v, &err);
		bad = fuzz_outcome(rc, &err);
		if (rc >= 0)
			vq_model_free(&m);
		vq_vqm_close(&v);
	}
	close(fd);
	return bad;
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	return fuzz_both(fuzz_vqm_once, fuzz_fix_vqm, data, n);
}
