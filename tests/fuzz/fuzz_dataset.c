/* Data sets: JSON arrays of conversations, JSON Lines, question files. */
#include "fuzz.h"

#include "format/dataset.h"

int vq_fuzz(const uint8_t *data, size_t n)
{
	struct vq_dataset d;
	struct vq_err err = {0};
	char path[64];
	uint32_t i;
	int fd = fuzz_file(data, n, path, sizeof(path)), rc, bad;

	if (fd < 0)
		return 1;
	rc = vq_dataset_open(&d, path, NULL, &err);
	bad = fuzz_outcome(rc, &err);
	for (i = 0; rc == VQ_OK && i < d.n; i++)
		bad |= !d.items[i].id || !d.items[i].text;
	if (rc == VQ_OK)
		vq_dataset_close(&d);
	close(fd);
	return bad;
}
