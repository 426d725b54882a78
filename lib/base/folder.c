/* Folders that appear when they are whole. */
#include "base/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

static void forget(struct vq_folder *f)
{
	vq_free(f->path);
	vq_free(f->part);
	memset(f, 0, sizeof(*f));
}

static int is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Files and the folder; what cannot be removed stays. */
static void remove_all(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (!is_dot(e->d_name))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(path);
}

/* What --force is about to remove must look like what this program made. */
static int check_old(const char *path, const char *mark, struct vq_err *err)
{
	DIR *d = opendir(path);
	struct dirent *e;
	struct stat st;
	int n = 0, marked = 0, rc = VQ_OK;

	if (!d)
		return vq_fail_errno(err, VQ_E_SYS, "%s: want a folder to replace", path);
	while (rc == VQ_OK && (e = readdir(d))) {
		if (is_dot(e->d_name))
			continue;
		n++;
		marked |= strcmp(e->d_name, mark) == 0;
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode))
			rc = vq_fail(err, VQ_E_SYS,
				     "%s: holds '%s', which is no plain file; will not replace it",
				     path, e->d_name);
	}
	closedir(d);
	if (rc == VQ_OK && n > 0 && !marked)
		rc = vq_fail(
			err, VQ_E_SYS,
			"%s: holds files but no '%s', so it is none of ours; will not replace it",
			path, mark);
	return rc;
}

static int make_part(struct vq_folder *f, struct vq_err *err)
{
	size_t n = strlen(f->path) + sizeof(".part-XXXXXX");
	mode_t mask;

	f->part = vq_alloc(n, 1, err);
	if (!f->part)
		return VQ_E_SYS;
	snprintf(f->part, n, "%s.part-XXXXXX", f->path);
	if (!mkdtemp(f->part)) {
		vq_fail_errno(err, VQ_E_SYS, "%s: cannot create a folder", f->path);
		vq_free(f->part);
		f->part = NULL;
		return VQ_E_SYS;
	}
	mask = umask(0); /* mkdtemp's is for the owner alone */
	umask(mask);
	return chmod(f->part, 0777 & ~mask) == 0
		       ? VQ_OK
		       : vq_fail_errno(err, VQ_E_SYS, "%s: cannot set its mode", f->part);
}

int vq_folder_open(struct vq_folder *f, const char *path, int replace, const char *mark,
		   struct vq_err *err)
{
	size_t n = strlen(path);
	int rc = VQ_OK;

	memset(f, 0, sizeof(*f));
	f->path = vq_strdup(path, err);
	if (!f->path)
		return VQ_E_SYS;
	while (n > 1 && f->path[n - 1] == '/')
		f->path[--n] = '\0';
	if (vq_path_exists(f->path) && !replace)
		rc = vq_fail(err, VQ_E_SYS, "%s: is there already; --force replaces it", f->path);
	else if (vq_path_exists(f->path))
		rc = check_old(f->path, mark, err);
	if (rc == VQ_OK)
		rc = make_part(f, err);
	if (rc < 0)
		vq_folder_abort(f);
	return rc;
}

char *vq_folder_file(const struct vq_folder *f, const char *name, struct vq_err *err)
{
	return vq_path_join(f->part, name, err);
}

int vq_folder_commit(struct vq_folder *f, struct vq_err *err)
{
	size_t n = strlen(f->part) + sizeof(".old");
	char *old = vq_alloc(n, 1, err);
	int had = vq_path_exists(f->path), rc = old ? VQ_OK : VQ_E_SYS;

	if (old)
		snprintf(old, n, "%s.old", f->part);
	if (rc == VQ_OK && had && rename(f->path, old) < 0)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot be moved away", f->path);
	if (rc == VQ_OK && rename(f->part, f->path) < 0) {
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot rename to %s", f->part, f->path);
		if (had)
			(void)!rename(old, f->path); /* the first failure is the one to tell */
	}
	if (rc == VQ_OK && had)
		remove_all(old);
	vq_free(old);
	if (rc == VQ_OK)
		forget(f);
	else
		vq_folder_abort(f);
	return rc;
}

void vq_folder_abort(struct vq_folder *f)
{
	if (f->part)
		remove_all(f->part);
	forget(f);
}
