/* Exporting: GGUF, the language model in one file, vision tower and projector in another. */
#include "task/export_gguf.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define ROWS 64u /* made at a time */

/* --- a file --- */

struct entry {
	const struct vq_export_item *item;
	char name[96];
	uint32_t heads;
};

static int make_list(const struct vq_export *x, int vision, struct entry *list, size_t *n,
		     struct vq_gguf *g, struct vq_err *err)
{
	struct vq_export_tensor t;
	size_t i;
	int rc = VQ_OK, where;

	for (i = 0, *n = 0; rc == VQ_OK && i < x->n; i++) {
		const struct vq_export_item *it = &x->items[i];
		struct entry *e = &list[*n];

		rc = vq_export_gguf_name(x, it->name->name, e->name, sizeof(e->name), &where,
					 &e->heads);
		if (rc < 0)
			return vq_fail(err, VQ_E_DATA, "%s: '%s': has no name in GGUF", x->v->label,
				       it->name->name);
		if (where != vision)
			continue;
		rc = vq_export_open_item(&t, x, it, err);
		if (rc < 0)
			return rc;
		e->item = it;
		vq_gguf_tensor(g, e->name, vq_export_rows_type(it, t.t.dtype), it->name->n_dims,
			       it->name->dims);
		vq_export_close(&t);
		++*n;
	}
	return rc;
}

static int write_rows(struct vq_gguf *g, const struct vq_export_rows *r, uint8_t *buf, float *tmp,
		      struct vq_err *err)
{
	size_t bytes = vq_ggml_bytes(r->type, r->n_cols);
	uint32_t o, k, n;
	int rc = VQ_OK;

	for (o = 0; rc == VQ_OK && o < r->n_rows; o += n) {
		n = r->n_rows - o < ROWS ? r->n_rows - o : ROWS;
		for (k = 0; rc == VQ_OK && k < n; k++)
			rc = vq_export_rows_make(r, o + k, buf + k * bytes, tmp, err);
		if (rc == VQ_OK)
			rc = vq_gguf_data(g, buf, n * bytes, err);
	}
	return rc < 0 ? rc : vq_gguf_pad(g, err);
}

static int write_tensor(struct vq_export *x, struct vq_gguf *g, const struct entry *e,
			struct vq_err *err)
{
	struct vq_export_rows r = {0};
	struct vq_export_tensor t;
	float *tmp = vq_alloc_f32(e->item->n_in, err);
	uint8_t *buf = tmp ? vq_alloc(ROWS * sizeof(float), e->item->n_in, err) : NULL;
	int rc = buf ? vq_export_go_on(x, err) : VQ_E_SYS, opened = 0;

	if (rc == VQ_OK)
		rc = vq_export_open_item(&t, x, e->item, err);
	opened = rc == VQ_OK;

	if (opened) {
		rc = vq_export_rows_open(&r, e->item, &t, e->heads, err);
		if (rc == VQ_OK)
			rc = write_rows(g, &r, buf, tmp, err);
		vq_export_rows_close(&r);
		vq_export_close(&t);
	}
	vq_free(buf);
	vq_free(tmp);
	return rc;
}

static int write_file(struct vq_export *x, int vision, struct vq_err *err)
{
	const char *name = vision ? VQ_EXPORT_GGUF_VISION : VQ_EXPORT_GGUF_TEXT;
	char *path = vq_folder_file(&x->folder, name, err);
	struct entry *list = vq_calloc(x->n, sizeof(*list), err);
	struct vq_gguf g = {0};
	struct vq_output f;
	size_t n = 0, i;
	int rc = path && list ? VQ_OK : VQ_E_SYS, opened = 0;

	if (rc == VQ_OK)
		rc = vision ? vq_export_gguf_vision(&g, x, err) : vq_export_gguf_text(&g, x, err);
	if (rc == VQ_OK)
		rc = make_list(x, vision, list, &n, &g, err);
	if (rc == VQ_OK)
		rc = vq_output_open(&f, path, err);
	opened = rc == VQ_OK;
	if (rc == VQ_OK)
		rc = vq_gguf_head(&g, f.fd, f.label, err);
	for (i = 0; rc == VQ_OK && i < n; i++)
		rc = write_tensor(x, &g, &list[i], err);
	if (rc == VQ_OK)
		rc = vq_gguf_end(&g, err);
	if (rc == VQ_OK)
		rc = vq_output_commit(&f, err);
	else if (opened)
		vq_output_abort(&f, 0);
	vq_gguf_free(&g);
	vq_free(list);
	vq_free(path);
	return rc;
}

int vq_export_gguf(struct vq_export *x, struct vq_err *err)
{
	int rc = write_file(x, 0, err);

	return rc == VQ_OK && x->config.has_vision ? write_file(x, 1, err) : rc;
}
