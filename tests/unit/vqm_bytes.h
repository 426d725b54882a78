/* Packed models in memory, whole and damaged. */
#ifndef VQM_BYTES_H
#define VQM_BYTES_H

#include <stdlib.h>
#include <string.h>

#include "format/vqm.h"
#include "memfile.h"

/* Opens and checks all of it; the status, which err has too. */
static inline int open_bytes(struct vq_vqm *v, const uint8_t *p, size_t n, struct vq_err *err)
{
	int fd = file_of(p, n), rc;

	*err = (struct vq_err){0};
	rc = vq_vqm_open_fd(v, fd, "x.vqm", NULL, 0, 1, err);
	close(fd);
	assert_true(rc == VQ_OK || (err->code == rc && err->text[0]));
	return rc;
}

/* A copy with one member's text changed (from, to), a float of its data changed (from NULL; the first, or the one that
 * to names after @), or the member left out (to NULL); the manifest vouches for the change. */
static inline struct bytes doctored(const struct vq_vqm *v, const char *name, const char *from,
				    const char *to)
{
	struct vq_err err = {0};
	struct vq_vqm_writer *w;
	int fd = file_new();
	size_t i, n_done = 0;

	assert_int_equal(vq_vqm_create(&w, fd, "x.vqm", &err), VQ_OK);
	for (i = 0; i + 1 < v->n; i++) {
		const struct vq_vqm_member *m = &v->members[i];
		uint8_t *copy = vq_alloc(m->n + 256, 1, &err);
		int here = strcmp(m->name, name) == 0;
		size_t n = m->n;

		n_done += here;
		memcpy(copy, m->data, n);
		copy[n] = '\0';
		if (here && from && to) {
			char *at = strstr((char *)copy, from);

			assert_non_null(at);
			memmove(at + strlen(to), at + strlen(from), strlen(at + strlen(from)) + 1);
			memcpy(at, to, strlen(to));
			n += strlen(to) - strlen(from);
		} else if (here && to) {
			char *end;
			float value = strtof(to, &end);
			size_t place = *end == '@' ? strtoul(end + 1, NULL, 10) : 0;

			assert_true((place + 1) * sizeof(value) <= n);
			memcpy(copy + place * sizeof(value), &value, sizeof(value));
		}
		if (!here || to)
			assert_int_equal(vq_vqm_add(w, m->name, copy, n, &err), VQ_OK);
		vq_free(copy);
	}
	assert_int_equal(n_done, 1);
	assert_int_equal(vq_vqm_finish(w, NULL, &err), VQ_OK);
	vq_vqm_abort(w);
	return file_bytes(fd);
}

#endif
