/* The order of a model stream, and what goes into it. */
#include "task/calib.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parse.h"
#include "format/checkpoint.h"
#include "kernel/blas.h"
#include "kernel/cpu.h"
#include "model/config.h"
#include "stream/history.h"
#include "stream/writer.h"
#include "task/calib_cost.h"
#include "task/calib_run.h"
#include "task/calib_samples.h"
#include "task/calib_weights.h"
#include "task/plan.h"

/* "4,6,8" -> ascending values of min..max. */
static int parse_list(const char *text, const char *option, uint32_t min, uint32_t max,
		      uint32_t *out, uint32_t room, uint32_t *n, struct vq_err *err)
{
	char word[16];

	*n = 0;
	while (text && *text) {
		size_t len = strcspn(text, ",");

		if (len >= sizeof(word) || *n >= room)
			goto bad;
		memcpy(word, text, len);
		word[len] = '\0';
		if (vq_parse_u32(&out[*n], word, min, max) < 0)
			goto bad;
		if (*n && out[*n] <= out[*n - 1])
			goto bad;
		++*n;
		text += len;
		if (*text == ',' && !*++text)
			goto bad;
	}
	return VQ_OK;
bad:
	return vq_fail(err, VQ_E_USAGE,
		       "--%s wants ascending numbers of %u..%u, as in 4,8; got '%s'", option, min,
		       max, text);
}

/* Checkpoints stand before a layer that is not the first: hidden states of unit 0 are the inputs themselves. */
static int parse_checkpoints(struct vq_calib *c, struct vq_err *err)
{
	uint32_t n = vq_config_n_units(&c->cfg);

	if (!c->o->checkpoints)
		return VQ_OK;
	if (c->o->n == 0)
		return vq_fail(err, VQ_E_USAGE, "--checkpoint wants samples, and -n is 0");
	if (n < 2)
		return vq_fail(err, VQ_E_USAGE, "--checkpoint: the model has one unit only");
	c->meta.checkpoints = vq_alloc(n, sizeof(uint32_t), err);
	if (!c->meta.checkpoints)
		return VQ_E_SYS;
	return parse_list(c->o->checkpoints, "checkpoint", 1, n - 1, c->meta.checkpoints, n,
			  &c->meta.n_checkpoints, err);
}

/* The last part of a path without trailing slashes: how a folder calls its model. */
static char *model_name(const char *path, struct vq_err *err)
{
	size_t n = strlen(path), start;
	char *s;

	while (n > 1 && path[n - 1] == '/')
		n--;
	for (start = n; start > 0 && path[start - 1] != '/'; start--)
		;
	s = vq_alloc(n - start + 1, 1, err);
	if (s) {
		memcpy(s, path + start, n - start);
		s[n - start] = '\0';
	}
	return s;
}

static json_t *make_header(struct vq_calib *c, struct vq_err *err)
{
	char sha[65], *name = model_name(vq_ckpt_path(c->ckpt), err);
	const struct vq_calib_opts *o = c->o;
	json_t *model = NULL, *params = NULL, *base = NULL, *header = NULL;

	if (!name || vq_ckpt_identity(c->ckpt, sha, err) < 0)
		goto out;
	model = json_pack("{s:s, s:s}", "name", name, "sha256", sha);
	params = json_pack("{s:I, s:I}", "n", (json_int_t)o->n, "seed", (json_int_t)o->seed);
	if (params && o->n > 0 &&
	    json_object_update_new(params,
				   json_pack("{s:s, s:s, s:b, s:I, s:s*, s:s*}", "data_sha256",
					     c->meta.data_sha256, "bits", o->bits, "error_stats",
					     o->error_stats, "influence_samples",
					     (json_int_t)o->influence_samples, "checkpoint",
					     o->checkpoints, "template", o->template_name)) < 0) {
		json_decref(params);
		params = NULL;
	}
	if (!model || !params) {
		vq_fail(err, VQ_E_SYS, "memory: cannot have the header");
		goto out;
	}
	base = vq_header_new("vqlm-calib", model, err);
	/* Weights alone are copied bytes: no kernel and no BLAS had a part in them. */
	if (base)
		header = vq_header_derive(base, "vqlm-calib", params, o->n ? vq_cpu_name() : NULL,
					  o->n ? vq_blas_core() : NULL, err);
out:
	vq_free(name);
	json_decref(model);
	json_decref(params);
	json_decref(base);
	return header;
}

static int put_json(struct vq_calib *c, const char *name, json_t *j, struct vq_err *err)
{
	int rc = j ? vq_writer_put_json(c->w, VQ_KIND_META, name, j, err) : VQ_E_SYS;

	json_decref(j);
	return rc;
}

static int put_meta(struct vq_calib *c, struct vq_err *err)
{
	static const char *const files[] = {"tokenizer.json", "tokenizer.model",
					    "tokenizer_config.json", "added_tokens.json"};
	size_t i;
	int rc = put_json(c, "config", vq_config_json(&c->cfg, err), err);

	for (i = 0; i < sizeof(files) / sizeof(files[0]) && rc >= 0; i++) {
		char *data = NULL;
		size_t n;

		rc = vq_ckpt_file(c->ckpt, files[i], &data, &n, err);
		if (rc > 0)
			rc = vq_writer_put_bytes(c->w, VQ_KIND_META, files[i], data, n, err);
		vq_free(data);
	}
	if (rc >= 0)
		rc = put_json(c, "calib", vq_calib_meta_json(&c->meta, err), err);
	return rc;
}

static int put_stream(struct vq_calib *c, json_t *header, struct vq_err *err)
{
	int rc = vq_writer_begin(c->w, header, err);

	if (rc >= 0)
		rc = put_meta(c, err);
	if (rc >= 0 && c->o->n > 0)
		rc = vq_calib_put_inputs(&c->run, c->w, err);
	if (rc >= 0 && c->o->n > 0)
		rc = vq_calib_run_all(&c->run, c->w, err);
	if (rc >= 0)
		rc = vq_calib_weights(c->w, &c->cfg, c->ckpt, c->o->n == 0, err);
	if (rc >= 0)
		rc = vq_writer_end(c->w, err);
	return rc;
}

static int write_stream(struct vq_calib *c, struct vq_err *err)
{
	struct vq_output out;
	json_t *header = make_header(c, err);
	int rc;

	if (!header)
		return err && err->code ? err->code : VQ_E_SYS;
	rc = vq_output_open(&out, c->o->output, err);
	if (rc < 0)
		goto out;
	rc = vq_writer_open(&c->w, out.fd, out.label, c->o->level, err);
	if (rc >= 0)
		rc = put_stream(c, header, err);
	vq_writer_close(c->w);
	c->w = NULL;
	if (rc >= 0)
		rc = vq_output_commit(&out, err);
	else
		vq_output_abort(&out, 0);
out:
	json_decref(header);
	return rc;
}

static int prepare(struct vq_calib *c, struct vq_err *err)
{
	const struct vq_calib_opts *o = c->o;
	int rc = vq_ckpt_open(&c->ckpt, o->model, err);

	if (rc >= 0)
		rc = vq_config_from_ckpt(&c->cfg, c->ckpt, o->template_name, err);
	if (rc >= 0)
		rc = parse_checkpoints(c, err);
	if (rc >= 0)
		rc = parse_list(o->bits, "bits", 2, 8, c->run.bits, VQ_CALIB_MAX_BITS,
				&c->run.n_bits, err);
	if (rc >= 0 && o->n > 0)
		rc = vq_calib_samples(c, err);
	c->meta.seed = c->run.seed = o->seed;
	c->run.cfg = &c->cfg;
	c->run.ckpt = c->ckpt;
	c->run.meta = &c->meta;
	c->run.error_stats = o->error_stats;
	c->run.influence_samples = o->influence_samples;
	return rc;
}

int vq_calib(const struct vq_calib_opts *o, struct vq_err *err)
{
	struct vq_calib c = {.o = o};
	double t0 = vq_now();
	int rc = prepare(&c, err);

	if (rc >= 0 && o->dry_run)
		rc = vq_calib_dry_run(&c.run, o->output, o->level, err);
	else if (rc >= 0)
		rc = write_stream(&c, err);
	if (rc >= 0)
		vq_info("%.1f s, peak %.1f MiB of own memory, %.1f MiB resident", vq_now() - t0,
			(double)vq_peak_anon() / 1048576.0, (double)vq_peak_rss() / 1048576.0);
	vq_calib_samples_free(&c);
	vq_calib_meta_free(&c.meta);
	vq_ckpt_close(c.ckpt);
	return rc;
}
