/* The job: score, choose, write what is left. */
#include "task/prune.h"

#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "kernel/blas.h"
#include "kernel/cpu.h"
#include "stream/history.h"
#include "task/calib_weights.h"
#include "task/model_head.h"
#include "task/prune_score.h"

struct job {
	const struct vq_prune_opts *o;
	struct vq_ckpt *ckpt;
	struct vq_config cfg;
	struct vq_prune_job seen;
	struct vq_blocks kept;
	struct vq_str table; /* of scores; empty by hand */
};

static int all_blocks(struct vq_blocks *b, uint32_t n, struct vq_err *err)
{
	b->v = vq_alloc(n, sizeof(*b->v), err);
	if (!b->v)
		return VQ_E_SYS;
	for (b->n = 0; b->n < n; b->n++)
		b->v[b->n] = b->n;
	return VQ_OK;
}

static int choose_by_score(struct job *j, struct vq_err *err)
{
	uint32_t n = j->cfg.decoder.n_layers, go = 0, *order;
	double *score;
	struct vq_blocks alive = {0};
	int rc = j->o->table ? VQ_OK : vq_prune_count(j->o, &j->cfg, &go, err);

	if (rc < 0)
		return rc;
	score = vq_alloc(n, sizeof(*score), err);
	order = vq_alloc(n, sizeof(*order), err);
	rc = score && order ? all_blocks(&alive, n, err) : VQ_E_SYS;
	if (rc == VQ_OK)
		rc = vq_criterion_by_name(j->o->criterion)->score(&j->seen, &alive, score, err);
	if (rc >= 0)
		rc = vq_prune_table(&j->seen, &alive, score, &j->table, err);
	if (rc >= 0) {
		vq_prune_order(score, n, order);
		rc = vq_prune_choose(j->o, order, n, go, &j->kept, err);
	}
	vq_blocks_free(&alive);
	vq_free(order);
	vq_free(score);
	return rc;
}

/* --- the stream --- */

/* What an earlier pruning said, whose kept list this model's numbers are positions in; NULL: there was none. */
static const json_t *earlier(const struct vq_ckpt *k, uint32_t n_layers)
{
	const json_t *p = vq_history_last(vq_ckpt_header(k), "vqlm-prune");

	return json_array_size(json_object_get(p, "kept")) == n_layers ? p : NULL;
}

static json_t *make_params(const struct job *j, struct vq_err *err)
{
	const json_t *before = earlier(j->ckpt, j->cfg.decoder.n_layers);
	json_t *kept = json_array(), *params = NULL;
	char sha[VQ_SHA256_HEX];
	uint64_t weights;
	uint32_t i;

	if (vq_prune_params(&j->cfg, j->kept.n, &weights, err) < 0)
		goto out;
	for (i = 0; i < j->kept.n; i++) {
		const json_t *old = json_array_get(json_object_get(before, "kept"), j->kept.v[i]);

		(void)!json_array_append_new(
			kept, json_integer(old ? json_integer_value(old) : j->kept.v[i]));
	}
	vq_sha256_of(j->table.s, j->table.n, sha);
	params = json_pack("{s:s, s:I, s:I, s:O, s:s*}", "criterion",
			   j->table.n ? j->o->criterion : "hand", "n_blocks",
			   before ? json_integer_value(json_object_get(before, "n_blocks"))
				  : (json_int_t)j->cfg.decoder.n_layers,
			   "params", (json_int_t)weights, "kept", kept, "scores_sha256",
			   j->table.n ? sha : NULL);
	if (!params || json_array_size(kept) != j->kept.n) {
		json_decref(params);
		params = NULL;
		vq_fail(err, VQ_E_SYS, "memory: cannot have the header");
	}
out:
	json_decref(kept);
	return params;
}

static int put_stream(struct job *j, struct vq_writer *w, struct vq_err *err)
{
	json_t *params = make_params(j, err), *header = NULL;
	struct vq_config cut = j->cfg;
	struct vq_calib_meta none = {0};
	int rc = VQ_E_SYS;

	cut.decoder.n_layers = j->kept.n;
	if (params)
		header = vq_model_header(j->ckpt, "vqlm-prune", params,
					 j->table.n ? vq_cpu_name() : NULL,
					 j->table.n ? vq_blas_core() : NULL, err);
	if (header)
		rc = vq_writer_begin(w, header, err);
	json_decref(header);
	json_decref(params);
	if (rc >= 0)
		rc = vq_model_put_meta(w, &cut, j->ckpt, &none, err);
	if (rc >= 0)
		rc = vq_calib_weights(w, &cut, j->ckpt, j->kept.v, 1, err);
	return rc < 0 ? rc : vq_writer_end(w, err);
}

static int write_output(struct job *j, struct vq_err *err)
{
	struct vq_output out;
	struct vq_writer *w = NULL;
	int rc = vq_output_open(&out, j->o->output, err);

	if (rc < 0)
		return rc;
	if (j->o->table) {
		rc = vq_write_full(out.fd, j->table.s, j->table.n, out.label, err);
	} else {
		rc = vq_writer_open(&w, out.fd, out.label, j->o->level, err);
		if (rc >= 0)
			rc = put_stream(j, w, err);
		vq_writer_close(w);
	}
	if (rc >= 0)
		return vq_output_commit(&out, err);
	vq_output_abort(&out, 0);
	return rc;
}

int vq_prune(const struct vq_prune_opts *o, struct vq_err *err)
{
	struct job j = {.o = o};
	double t0 = vq_now();
	int rc = vq_ckpt_open(&j.ckpt, o->model, err);

	if (rc >= 0)
		rc = vq_config_from_ckpt(&j.cfg, j.ckpt, o->template_name, err);
	j.seen = (struct vq_prune_job){o, j.ckpt, &j.cfg};
	if (rc >= 0 && o->blocks)
		rc = vq_prune_by_hand(o, j.cfg.decoder.n_layers, &j.kept, err);
	else if (rc >= 0)
		rc = choose_by_score(&j, err);
	if (rc >= 0)
		rc = write_output(&j, err);
	if (rc >= 0)
		vq_info("%u of %u blocks kept; %.1f s, peak %.1f MiB of own memory", j.kept.n,
			j.cfg.decoder.n_layers, vq_now() - t0, (double)vq_peak_anon() / 1048576.0);
	vq_blocks_free(&j.kept);
	vq_str_free(&j.table);
	vq_ckpt_close(j.ckpt);
	return rc;
}
