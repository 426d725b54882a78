/* Archives of a model's folder (tar, ZIP, compressed tar): every byte of every member can be read, and so can the
 * weights in it. */
#include "fuzz.h"

#include "base/mem.h"
#include "format/tree.h"
#include "repair.h"

static int members_can_be_read(const struct vq_tree *t)
{
	size_t i, k;

	for (i = 0; i < t->members.n; i++) {
		const struct vq_member *m = &t->members.v[i];

		if (m->packed) /* a packed one was to be unpacked */
			return 0;
		for (k = 0; k < m->n; k++)
			(void)((const volatile uint8_t *)t->data)[m->at + k]; /* a fault shows */
	}
	return 1;
}

static int fuzz_tree_once(const uint8_t *data, size_t n)
{
	struct vq_tree t = {0};
	struct vq_err err = {0};
	char path[64], *text = NULL;
	size_t n_text, n_head = n < VQ_TREE_HEAD ? n : VQ_TREE_HEAD;
	int fd, rc, bad;

	if (!vq_tree_is_archive(data, n_head))
		return 0;
	fd = fuzz_file(data, n, path, sizeof(path));
	if (fd < 0 || lseek(fd, (off_t)n_head, SEEK_SET) < 0)
		return 1;
	rc = vq_tree_open_archive(&t, fd, data, n_head, "fuzz", &err);
	bad = fuzz_outcome(rc, &err);
	if (rc == VQ_OK) {
		bad |= !members_can_be_read(&t);
		/* What find_root found is there. */
		rc = vq_tree_read(&t, "config.json", SIZE_MAX - 1, &text, &n_text, &err);
		bad |= rc != 1 || text[n_text];
		vq_free(text);
	}
	vq_tree_close(&t);
	close(fd);
	return bad;
}

static void fuzz_fix_archive(uint8_t *p, size_t n)
{
	fuzz_fix_tar(p, n, NULL, 0);
}

int vq_fuzz(const uint8_t *data, size_t n)
{
	return fuzz_both(fuzz_tree_once, fuzz_fix_archive, data, n);
}
