/* A folder of files that appears under its name only when all of it is there. */
#ifndef VQ_BASE_FOLDER_H
#define VQ_BASE_FOLDER_H

#include "base/err.h"

struct vq_folder {
	char *path; /* as it will be called, without slashes at the end */
	char *part; /* where files are written until then: beside it, of a name not yet taken */
};

/* Makes f->part.  Where path exists: VQ_E_SYS, unless replace is set and path is a folder that is empty or holds plain
 * files only, one of them called mark. */
VQ_MUST_CHECK int vq_folder_open(struct vq_folder *f, const char *path, int replace,
				 const char *mark, struct vq_err *err);
/* f->part + "/" + name.  Given. */
char *vq_folder_file(const struct vq_folder *f, const char *name, struct vq_err *err);
/* Gives f->part its name; what had that is removed.  After a failure nothing has changed; f is freed either way. */
VQ_MUST_CHECK int vq_folder_commit(struct vq_folder *f, struct vq_err *err);
void vq_folder_abort(struct vq_folder *f); /* removes f->part and frees; fine on zeroes */

#endif
