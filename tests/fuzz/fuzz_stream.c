/* Tensor streams: every segment, record and payload. */
#include "fuzz.h"

#include "base/mem.h"
#include "stream/reader.h"
#include "repair.h"

static int fuzz_stream_once(const uint8_t *data, size_t n)
{
	struct vq_reader *r = NULL;
	struct vq_record rec;
	struct vq_err err = {0};
	char path[64];
	void *payload;
	int fd = fuzz_file(data, n, path, sizeof(path)), rc, bad;

	if (fd < 0)
		return 1;
	rc = vq_reader_open(&r, fd, "fuzz", &err);
	while (rc >= 0 && (rc = vq_reader_segment(r, &err)) == 1) {
		while ((rc = vq_reader_next(r, &rec, &err)) == 1) {
			rc = vq_reader_load(r, &payload, &err);
			if (rc < 0)
				break;
			vq_free(payload);
		}
	}
	bad = fuzz_outcome(rc, &err);
	vq_reader_close(r);
	close(fd);
	return bad;
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	return fuzz_both(fuzz_stream_once, fuzz_fix_stream, data, n);
}
