/* What the benches on real models share: from tensors under canonical names to a model that runs, and to the model
 * stream that vqlm-search reads.  A bench has nobody to hand an error to: it says it and ends. */
#ifndef BENCH_REAL_H
#define BENCH_REAL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/names.h"
#include "model/packed.h"
#include "stream/history.h"
#include "stream/writer.h"
#include "task/plan.h"

static struct vq_err err;

static void must(int rc)
{
	if (rc >= 0)
		return;
	fflush(stdout);
	vq_warn("%s", err.text);
	exit(vq_exit_status(rc));
}

static void *got(void *p)
{
	if (!p)
		must(err.code ? err.code : VQ_E_SYS);
	return p;
}

static void bad(const char *file, const char *what)
{
	must(vq_fail(&err, VQ_E_DATA, "%s: %s", file, what));
}

/* --- weights: every tensor of a configuration, float32, owned --- */

struct real {
	struct vq_config cfg;
	struct vq_name *names;
	struct vq_tensor *t; /* [n] */
	size_t n;
};

static void real_new(struct real *r, const struct vq_config *c)
{
	size_t i, count;

	r->cfg = *c;
	must(vq_config_check(c, "bench", &err));
	must(vq_names_list(c, &r->names, &r->n, &err));
	r->t = got(vq_calloc(r->n, sizeof(*r->t), &err));
	for (i = 0; i < r->n; i++) {
		struct vq_tensor *t = &r->t[i];

		t->dtype = VQ_F32;
		t->n_dims = r->names[i].n_dims;
		memcpy(t->dims, r->names[i].dims, sizeof(r->names[i].dims));
		must(vq_tensor_count(t, &count));
		t->data = got(vq_calloc(count, sizeof(float), &err));
	}
}

/* The elements of a tensor, zeros until they are written, and their number. */
static float *real_at(const struct real *r, const char *name, size_t *count)
{
	size_t i;

	for (i = 0; i < r->n && strcmp(r->names[i].name, name) != 0; i++)
		;
	if (i == r->n)
		bad(name, "no such tensor");
	must(vq_tensor_count(&r->t[i], count));
	return (float *)r->t[i].data;
}

static void real_free(struct real *r)
{
	size_t i;

	for (i = 0; i < r->n; i++)
		vq_free((void *)r->t[i].data);
	vq_free(r->t);
	vq_free(r->names);
}

/* --- the model: of these weights, or of a packed file --- */

struct runner {
	struct vq_model m;
	struct vq_vqm v;
	int packed;
};

static void runner_open(struct runner *x, const struct real *r, const char *vqm)
{
	size_t i;

	memset(x, 0, sizeof(*x));
	if (vqm) {
		x->packed = 1;
		must(vq_vqm_open(&x->v, vqm, 0, &err));
		must(vq_model_from_vqm(&x->m, &x->v, &err));
		return;
	}
	must(vq_model_new(&x->m, &r->cfg, &err));
	for (i = 0; i < r->n; i++)
		must(vq_model_bind(&x->m, r->names[i].name, &r->t[i], &err));
}

static void runner_close(struct runner *x)
{
	vq_model_free(&x->m);
	if (x->packed)
		vq_vqm_close(&x->v);
}

/* --- the stream, as vqlm-calib would write it --- */

static struct vq_writer *stream_open(const char *tool, const char *name, const char *source)
{
	char sha[VQ_SHA256_HEX];
	struct vq_writer *w;
	json_t *model, *head;

	must(vq_sha256_file(source, VQ_E_SYS, sha, &err));
	model = got(json_pack("{s:s, s:s}", "name", name, "sha256", sha));
	head = got(vq_header_new(tool, model, &err));
	must(vq_writer_open(&w, STDOUT_FILENO, "stdout", VQ_LEVEL_AUTO, &err));
	must(vq_writer_begin(w, head, &err));
	json_decref(head);
	json_decref(model);
	return w;
}

/* META config and calib: n samples of n_tokens together, hashed to sum. */
static void stream_meta(struct vq_writer *w, const struct vq_config *c, uint32_t n,
			uint64_t n_tokens, struct sha256_ctx *sum)
{
	struct vq_calib_meta m = {.n = n, .n_tokens = n_tokens};
	json_t *j = got(vq_config_json(c, &err));
	uint32_t i;
	char id[16];

	must(vq_writer_put_json(w, VQ_KIND_META, "config", j, &err));
	json_decref(j);
	vq_sha256_hex(sum, m.data_sha256);
	m.ids = got(vq_calloc(n, sizeof(*m.ids), &err));
	for (i = 0; i < n; i++) {
		snprintf(id, sizeof(id), "%u", i);
		m.ids[i] = got(vq_strdup(id, &err));
	}
	j = got(vq_calib_meta_json(&m, &err));
	must(vq_writer_put_json(w, VQ_KIND_META, "calib", j, &err));
	json_decref(j);
	vq_calib_meta_free(&m);
}

static void stream_input(struct vq_writer *w, uint32_t i, const char *what,
			 const struct vq_tensor *t)
{
	char name[64];

	snprintf(name, sizeof(name), "input/%u/%s", i, what);
	must(vq_writer_put_tensor(w, VQ_KIND_INPUT, name, t, NULL, &err));
}

/* The weights, and the end. */
static void stream_close(struct vq_writer *w, const struct real *r)
{
	size_t i;

	for (i = 0; i < r->n; i++) {
		json_t *a = got(json_pack("{s:I, s:b}", "unit", (json_int_t)r->names[i].unit,
					  "linear", r->names[i].linear));

		must(vq_writer_put_tensor(w, VQ_KIND_TENSOR, r->names[i].name, &r->t[i], a, &err));
		json_decref(a);
	}
	must(vq_writer_end(w, &err));
	vq_writer_close(w);
}

#endif
