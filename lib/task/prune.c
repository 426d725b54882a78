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
#include "task/heal.h"
#include "task/model_head.h"
#include "task/prune_file.h"
#include "task/prune_run.h"
#include "task/prune_score.h"

struct job {
	const struct vq_prune_opts *o;
	const struct vq_criterion *criterion; /* NULL: by hand, or from a file */
	struct vq_ckpt *ckpt;
	struct vq_config cfg;
	struct vq_prune_samples samples;
	struct vq_prune_run run;
	struct vq_prune_job seen;
	struct vq_blocks kept;
	struct vq_str table; /* of scores; empty by hand */
	/* With o->heal: its own samples, and what became of the model on them. */
	struct vq_prune_samples heal_samples;
	struct vq_prune_run heal_run;
	struct vq_heal heal;
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

/* The scores of the blocks that are there; what they are is added to the table. */
static int score_blocks(struct job *j, const struct vq_blocks *alive, double *score,
			struct vq_err *err)
{
	int rc = j->criterion ? j->criterion->score(&j->seen, alive, score, err)
			      : vq_prune_file(j->o->scores, alive->n, score, err);

	return rc < 0 ? rc : vq_prune_table(&j->seen, j->criterion, alive, score, &j->table, err);
}

/* One round: `go` blocks of j->kept leave it. */
static int remove_lowest(struct job *j, uint32_t go, double *score, uint32_t *order,
			 struct vq_err *err)
{
	struct vq_blocks left = {0};
	int rc = score_blocks(j, &j->kept, score, err);

	if (rc < 0)
		return rc;
	vq_prune_order(score, j->kept.n, order);
	rc = vq_prune_choose(j->o, &j->kept, order, j->cfg.decoder.n_layers, go, &left, err);
	if (rc == VQ_OK) {
		vq_blocks_free(&j->kept);
		j->kept = left;
	}
	return rc;
}

static int choose_by_score(struct job *j, struct vq_err *err)
{
	uint32_t n = j->cfg.decoder.n_layers, go = 0, step, *order;
	double *score;
	int rc = j->o->table ? VQ_OK : vq_prune_count(j->o, &j->cfg, &go, err);

	if (rc == VQ_OK && j->criterion && j->criterion->needs_samples) {
		rc = vq_prune_samples_open(&j->samples, j->o, j->ckpt, &j->cfg, err);
		if (rc == VQ_OK)
			rc = vq_prune_run_open(&j->run, &j->cfg, j->ckpt, &j->samples, err);
		j->seen.run = &j->run;
	}
	if (rc < 0)
		return rc;
	score = vq_alloc(n, sizeof(*score), err);
	j->seen.detail = vq_alloc(n, VQ_PRUNE_TENSORS * sizeof(*score), err);
	order = vq_alloc(n, sizeof(*order), err);
	rc = score && order && j->seen.detail ? all_blocks(&j->kept, n, err) : VQ_E_SYS;
	do {
		step = j->o->iterative && go ? 1 : go;
		if (rc == VQ_OK)
			rc = remove_lowest(j, step, score, order, err);
		go -= step;
	} while (rc == VQ_OK && go > 0);
	vq_free(j->seen.detail);
	vq_free(order);
	vq_free(score);
	return rc;
}

/* --- healing --- */

static int heal(struct job *j, struct vq_err *err)
{
	struct vq_prune_opts more = *j->o;
	int rc;

	/* The samples that the blocks were chosen by are not needed any more. */
	vq_prune_run_close(&j->run);
	more.samples = j->o->heal_samples;
	rc = vq_prune_samples_open(&j->heal_samples, &more, j->ckpt, &j->cfg, err);
	if (rc == VQ_OK)
		rc = vq_prune_run_open(&j->heal_run, &j->cfg, j->ckpt, &j->heal_samples, err);
	if (rc == VQ_OK)
		rc = vq_heal_open(&j->heal, j->o, j->ckpt, &j->heal_run, &j->kept, err);
	return rc < 0 ? rc : vq_healing_by_name(j->o->heal)->run(&j->heal, err);
}

/* What determined the new weights. */
static int put_healing(const struct job *j, json_t *params)
{
	const struct vq_prune_opts *o = j->o;
	json_t *h = json_pack("{s:s, s:I, s:s, s:I}", "way", o->heal, "samples",
			      (json_int_t)j->heal_samples.n, "data_sha256", j->heal_samples.sha256,
			      "seed", (json_int_t)o->seed);
	int bad = 0;

	if (o->answers)
		bad |= json_object_set_new(h, "answers", json_true());
	if (strcmp(o->heal, "lora") == 0) {
		bad |= json_object_set_new(h, "rank", json_integer(o->lora_rank));
		bad |= json_object_set_new(h, "steps", json_integer(o->lora_steps));
		bad |= json_object_set_new(h, "rate", json_real(o->lora_rate));
	}
	return bad | json_object_set_new(params, "heal", h);
}

/* --- the stream --- */

/* What an earlier pruning said, whose kept list this model's numbers are positions in; NULL: there was none. */
static const json_t *earlier(const struct vq_ckpt *k, uint32_t n_layers)
{
	const json_t *p = vq_history_last(vq_ckpt_header(k), "vqlm-prune");

	return json_array_size(json_object_get(p, "kept")) == n_layers ? p : NULL;
}

/* What else determined the choice. */
static int put_choice(const struct job *j, json_t *params)
{
	const struct vq_prune_opts *o = j->o;
	const char *name = j->criterion ? j->criterion->name : o->scores ? "scores" : "hand";
	char sha[VQ_SHA256_HEX];
	int bad = json_object_set_new(params, "criterion", json_string(name));

	if (j->table.n) {
		vq_sha256_of(j->table.s, j->table.n, sha);
		bad |= json_object_set_new(params, "scores_sha256", json_string(sha));
	}
	if (o->iterative)
		bad |= json_object_set_new(params, "iterative", json_true());
	if (o->no_keep && !o->blocks)
		bad |= json_object_set_new(params, "no_keep", json_true());
	if (o->heal)
		bad |= put_healing(j, params);
	if (!j->samples.n)
		return bad;
	bad |= json_object_set_new(params, "data_sha256", json_string(j->samples.sha256));
	bad |= json_object_set_new(params, "samples", json_integer(j->samples.n));
	bad |= json_object_set_new(params, "seed", json_integer((json_int_t)o->seed));
	if (o->answers)
		bad |= json_object_set_new(params, "answers", json_true());
	if (o->text)
		bad |= json_object_set_new(params, "tokens", json_integer(o->tokens));
	return bad;
}

static json_t *make_params(const struct job *j, struct vq_err *err)
{
	const json_t *before = earlier(j->ckpt, j->cfg.decoder.n_layers);
	json_t *kept = json_array(), *params = NULL;
	uint64_t weights;
	uint32_t i;
	int bad = 0;

	if (vq_prune_params(&j->cfg, j->kept.v, j->kept.n, &weights, err) < 0)
		goto out;
	for (i = 0; i < j->kept.n; i++) {
		const json_t *old = json_array_get(json_object_get(before, "kept"), j->kept.v[i]);

		bad |= json_array_append_new(
			kept, json_integer(old ? json_integer_value(old) : j->kept.v[i]));
	}
	params = json_pack("{s:I, s:I, s:O}", "n_blocks",
			   before ? json_integer_value(json_object_get(before, "n_blocks"))
				  : (json_int_t)j->cfg.decoder.n_layers,
			   "params", (json_int_t)weights, "kept", kept);
	if (!params || bad || put_choice(j, params)) {
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
	struct vq_config cut = vq_config_cut(&j->cfg, j->kept.v, j->kept.n);
	struct vq_calib_meta none = {0};
	const struct vq_weight_edit edit = vq_heal_edit(&j->heal);
	int rc = VQ_E_SYS;

	/* Without samples no kernel and no BLAS had a part in it. */
	if (params)
		header = vq_model_header(j->ckpt, "vqlm-prune", params,
					 j->samples.n || j->o->heal ? vq_cpu_name() : NULL,
					 j->samples.n || j->o->heal ? vq_blas_core() : NULL, err);
	if (header)
		rc = vq_writer_begin(w, header, err);
	json_decref(header);
	json_decref(params);
	if (rc >= 0)
		rc = vq_model_put_meta(w, &cut, j->ckpt, &none, err);
	if (rc >= 0)
		rc = vq_calib_weights(w, &cut, j->ckpt, j->kept.v, 1, j->o->heal ? &edit : NULL,
				      err);
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
	int rc = vq_open_model(&j.ckpt, &j.cfg, &o->from, err);

	j.seen = (struct vq_prune_job){o, j.ckpt, &j.cfg, NULL, NULL};
	if (!o->blocks && !o->scores)
		j.criterion = vq_prune_criterion(o);
	if (rc >= 0 && o->blocks)
		rc = vq_prune_by_hand(o, j.cfg.decoder.n_layers, &j.kept, err);
	else if (rc >= 0)
		rc = choose_by_score(&j, err);
	if (rc >= 0 && o->heal && !o->table)
		rc = heal(&j, err);
	if (rc >= 0)
		rc = write_output(&j, err);
	if (rc >= 0)
		vq_info("%u of %u blocks kept; %.1f s, peak %.1f MiB of own memory", j.kept.n,
			j.cfg.decoder.n_layers, vq_now() - t0, (double)vq_peak_anon() / 1048576.0);
	vq_heal_close(&j.heal);
	vq_prune_run_close(&j.heal_run);
	vq_prune_samples_close(&j.heal_samples);
	vq_blocks_free(&j.kept);
	vq_str_free(&j.table);
	vq_prune_run_close(&j.run);
	vq_prune_samples_close(&j.samples);
	vq_ckpt_close(j.ckpt);
	return rc;
}
