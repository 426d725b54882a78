/* Whole reads and writes, mapped files, and output that appears under its name only when it is whole. */
#ifndef VQ_BASE_IO_H
#define VQ_BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/pages.h"

/* Reads until n bytes or the end of input; returns the count in *got. */
VQ_MUST_CHECK int vq_read_upto(int fd, void *buf, size_t n, size_t *got, const char *label,
			       struct vq_err *err);

/* Writes all n bytes or fails with VQ_E_SYS. */
VQ_MUST_CHECK int vq_write_full(int fd, const void *buf, size_t n, const char *label,
				struct vq_err *err);

/* All that is left of a descriptor, a zero byte after it.  Refuses more than limit bytes (VQ_E_DATA).
 * Given: vq_free(*data). */
VQ_MUST_CHECK int vq_fd_read(int fd, size_t limit, const char *label, char **data, size_t *n,
			     struct vq_err *err);

/* Bytes never go to a terminal: VQ_E_USAGE when fd is one.  what: "a tensor stream". */
VQ_MUST_CHECK int vq_not_a_terminal(int fd, const char *what, const char *label,
				    struct vq_err *err);

/* A whole small file in memory, with a zero byte after it.  Refuses more than limit bytes.
 * status is the code for a file that cannot be opened: VQ_E_SYS when the command line named it,
 * VQ_E_DATA when another file did.  Given: vq_free(*data). */
VQ_MUST_CHECK int vq_file_read(const char *path, size_t limit, int status, char **data, size_t *n,
			       struct vq_err *err);

/* A whole file to read: mapped, or copied to memory of large pages. */
struct vq_map {
	const uint8_t *data; /* NULL for an empty file */
	size_t n;
	struct vq_pages pages; /* what holds the copy; empty: data is mapped */
};

/* A file that changes while it is mapped changes the data, and one that is cut ends the process (SIGBUS). */
VQ_MUST_CHECK int vq_map_open(struct vq_map *m, const char *path, int status, struct vq_err *err);
/* The same with a copy.  No memory: VQ_E_SYS; a file that is cut meanwhile: VQ_E_DATA. */
VQ_MUST_CHECK int vq_map_load(struct vq_map *m, const char *path, int status, struct vq_err *err);
/* Either, with `load` or without, of a plain file of n > 0 bytes that is open. */
VQ_MUST_CHECK int vq_map_fd(struct vq_map *m, int fd, size_t n, int load, const char *label,
			    struct vq_err *err);
/* Whether the system should read on after bytes [from, to) of a mapped file that are touched, as it does at first: good
 * where all is needed, bad where a little of everything is (it may read megabytes each time). */
void vq_map_read_ahead(const struct vq_map *m, size_t from, size_t to, int on);
void vq_map_close(struct vq_map *m);

/* Output: to path.part, renamed to path by commit; or to standard output when path is NULL or "-".  What is no
 * plain file (a device, a named pipe) is written as it is; a folder is refused at once (VQ_E_SYS).  abort removes nothing from a pipe and leaves path.part where it is when keep is set. */
struct vq_output {
	int fd;
	const char *label; /* path, or "stdout" */
	char *path, *part; /* NULL for standard output; part also for what is no plain file */
};

VQ_MUST_CHECK int vq_output_open(struct vq_output *o, const char *path, struct vq_err *err);
VQ_MUST_CHECK int vq_output_commit(struct vq_output *o, struct vq_err *err);
void vq_output_abort(struct vq_output *o, int keep);

/* The interrupted output may be the very file that a run which resumes it writes (resume is output + ".part"): it
 * moves to resume + ".resumed", where it stays until the new one is whole.  When such a file is there already and
 * is the longer one, a resumed run was stopped or refused before, and the work is in that.
 * *aside: where it is now, to be unlinked when all is done, given; NULL when resume is another file. */
VQ_MUST_CHECK int vq_output_aside(char **aside, const char *output, const char *resume,
				  struct vq_err *err);

/* dir + "/" + name; an absolute name is returned as it is.  Given. */
char *vq_path_join(const char *dir, const char *name, struct vq_err *err);

/* The folder of a path: "a/b" -> "a", "b" -> ".".  Given. */
char *vq_path_dir(const char *path, struct vq_err *err);

int vq_path_exists(const char *path); /* 1 or 0 */
int vq_path_is_dir(const char *path); /* 1 or 0 */

#endif
