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
#include "stream/writer.h"
#include "task/calib_cost.h"
#include "task/calib_run.h"
#include "task/calib_samples.h"
#include "task/calib_weights.h"
#include "task/model_head.h"
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

static json_t *make_header(struct vq_calib *c, struct vq_err *err)
{
	const struct vq_calib_opts *o = c->o;
	json_t *params =
		       json_pack("{s:I, s:I}", "n", (json_int_t)o->n, "seed", (json_int_t)o->seed),
	       *header = NULL;

	if (params && o->n > 0 &&
	    json_object_update_new(
		    params,
		    json_pack("{s:s, s:s, s:b, s:I, s:s*, s:s*}", "data_sha256",
			      c->meta.data_sha256, "bits", o->bits, "error_stats", o->error_stats,
			      "influence_samples", (json_int_t)o->influence_samples, "checkpoint",
			      o->checkpoints, "template", o->from.template_name)) < 0) {
		json_decref(params);
		params = NULL;
	}
	if (params && o->from.aspect != VQ_ASPECT_OWN &&
	    json_object_set_new(params, "aspect",
				json_string(vq_aspect_name(c->cfg.preproc.aspect))) < 0) {
		json_decref(params);
		params = NULL;
	}
	/* Weights alone are copied bytes: no kernel and no BLAS had a part in them. */
	if (params)
		header = vq_model_header(c->ckpt, "vqlm-calib", params, o->n ? vq_cpu_name() : NULL,
					 o->n ? vq_blas_core() : NULL, err);
	else
		vq_fail(err, VQ_E_SYS, "memory: cannot have the header");
	json_decref(params);
	return header;
}

static int put_stream(struct vq_calib *c, json_t *header, struct vq_err *err)
{
	int rc = vq_writer_begin(c->w, header, err);

	if (rc >= 0)
		rc = vq_model_put_meta(c->w, &c->cfg, c->ckpt, &c->meta, err);
	if (rc >= 0 && c->o->n > 0)
		rc = vq_calib_put_inputs(&c->run, c->w, err);
	if (rc >= 0 && c->o->n > 0)
		rc = vq_calib_run_all(&c->run, c->w, err);
	if (rc >= 0)
		rc = vq_calib_weights(c->w, &c->cfg, c->ckpt, NULL, c->o->n == 0, NULL, err);
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
	struct vq_open from = o->from;
	int rc;

	from.shapes_only = o->dry_run;
	rc = vq_open_model(&c->ckpt, &c->cfg, &from, err);

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
