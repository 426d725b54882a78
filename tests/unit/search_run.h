/* vqlm-search and vqlm-pack on streams in the test's folder, whose names these take. */
#ifndef SEARCH_RUN_H
#define SEARCH_RUN_H

#include <fcntl.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "folder.h"
#include "stream/reader.h"
#include "task/pack.h"
#include "task/search.h"
#include "task/search_held.h"

/* err may be NULL. */
static inline int search_files(const struct vq_search_opts *o, const char *in, const char *out,
			       struct vq_err *err)
{
	int a = open(in_folder(in), O_RDONLY), rc;
	int b = open(in_folder(out), O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (err)
		*err = (struct vq_err){0};
	assert_true(a >= 0 && b >= 0);
	rc = vq_search_run(o, a, in, b, out, 0, err);
	close(a);
	close(b);
	return rc;
}

static inline int pack_files(const struct vq_pack_opts *o, const char *in, const char *out,
			     struct vq_err *err)
{
	int a = open(in_folder(in), O_RDONLY), rc;
	int b = open(in_folder(out), O_WRONLY | O_CREAT | O_TRUNC, 0666);

	*err = (struct vq_err){0};
	assert_true(a >= 0 && b >= 0);
	rc = vq_pack_run(o, a, in, b, out, err);
	close(a);
	close(b);
	return rc;
}

/* Every record of a stream, behind those that are there. */
static inline void load_stream(const char *name, struct vq_held_list *all)
{
	int fd = open(in_folder(name), O_RDONLY), rc;
	struct vq_err err = {0};
	struct vq_record rec;
	struct vq_reader *r;

	assert_int_equal(vq_reader_open(&r, fd, name, &err), VQ_OK);
	assert_int_equal(vq_reader_segment(r, &err), 1);
	while ((rc = vq_reader_next(r, &rec, &err)) == 1)
		assert_int_equal(vq_held_load(all, r, &rec, &err), VQ_OK);
	assert_int_equal(rc, 0);
	vq_reader_close(r);
	close(fd);
}

/* The bytes of a file; vq_free. */
static inline char *bytes_of(const char *name, size_t *n)
{
	struct vq_err err = {0};
	char *p;

	assert_int_equal(vq_file_read(in_folder(name), 1 << 28, VQ_E_SYS, &p, n, &err), VQ_OK);
	return p;
}

static inline void assert_same_files(const char *a, const char *b)
{
	size_t n, m;
	char *p = bytes_of(a, &n), *q = bytes_of(b, &m);

	assert_int_equal(n, m);
	assert_memory_equal(p, q, n);
	vq_free(p);
	vq_free(q);
}

/* A group's setup: its folder, and no messages but errors. */
static inline int quiet_folder_setup(void **state)
{
	vq_log_setup("test", 0);
	return folder_setup(state);
}

#endif
