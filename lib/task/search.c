/* The walk over the stream: what is read, in which order, and what is written for it. */
#include "task/search.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/stop.h"
#include "kernel/blas.h"
#include "kernel/cpu.h"
#include "model/names.h"
#include "quant/rtn.h"
#include "stream/history.h"
#include "task/search_cost.h"
#include "task/search_mixed.h"
#include "task/search_nf.h"
#include "task/search_scheme.h"
#include "task/search_units.h"

struct search {
	const struct vq_search_opts *o;
	struct vq_reader *in;
	struct vq_writer *out;
	struct vq_resume *resume; /* NULL: none, or used up */
	struct vq_config cfg;
	int have_cfg;
	struct vq_name *names; /* all tensors of the model, in order */
	uint8_t *seen;         /* [n_names] */
	size_t n_names;
	struct vq_units units; /* all methods but rtn */
	struct vq_entropy_stat entropy;
	struct sha256_ctx sum; /* over the records ahead of the weights */
	int in_weights;
	uint32_t unit; /* of the last tensor that belongs to the model */
	struct vq_progress progress;
	uint64_t n_done;
	struct vq_search_cost *cost; /* --dry-run: filled at the first weight, then the walk ends */
	int level;
};

#define DRY_RUN_DONE 1 /* what the walk returns then */

/* Puts the place of the record at hand in front of an error; those of the reader begin with it. */
static int at_record(const struct search *s, const struct vq_record *rec, int rc,
		     struct vq_err *err)
{
	const char *label = vq_reader_label(s->in);

	if (rc == VQ_E_DATA && err && strncmp(err->text, label, strlen(label)) != 0)
		vq_err_prefix(err, "%s: record %llu '%s'", label, (unsigned long long)rec->index,
			      rec->name);
	return rc;
}

/* Folds a record ahead of the weights into the identity of the input. */
static void note_record(struct search *s, const struct vq_record *rec)
{
	char text[VQ_NAME_MAX + 64];
	int n = snprintf(text, sizeof(text), "%u %s %016llx\n", rec->kind, rec->name,
			 (unsigned long long)rec->hash);

	sha256_update(&s->sum, (size_t)n, (const uint8_t *)text);
}

/* Parses the JSON record that one holds. */
static json_t *held_json(const struct search *s, const struct vq_held_list *one, struct vq_err *err)
{
	char label[VQ_NAME_MAX + 64];

	snprintf(label, sizeof(label), "%s: '%s'", vq_reader_label(s->in), one->items[0].rec.name);
	return vq_json_parse(one->items[0].data, one->items[0].rec.raw_bytes, label, err);
}

static int take_config(struct search *s, const json_t *j, struct vq_err *err)
{
	int rc;

	if (s->have_cfg)
		return vq_fail(err, VQ_E_DATA, "want one configuration, got two");
	rc = vq_config_parse(&s->cfg, j, vq_reader_label(s->in), err);
	if (rc == VQ_OK)
		rc = vq_names_list(&s->cfg, &s->names, &s->n_names, err);
	if (rc < 0)
		return rc;
	s->seen = vq_calloc(s->n_names, 1, err);
	s->have_cfg = s->seen != NULL;
	s->units.acts.cfg = &s->cfg;
	return s->have_cfg ? VQ_OK : VQ_E_SYS;
}

static int take_plan(struct search *s, const json_t *j, struct vq_err *err)
{
	struct vq_units *u = &s->units;
	struct vq_plan_bounds b;

	if (!s->have_cfg || u->have_plan)
		return vq_fail(err, VQ_E_DATA, "want one plan after META 'config'");
	b = vq_plan_bounds_of(&s->cfg, u->have_meta ? &u->meta : NULL);
	u->have_plan = vq_plan_parse(&u->plan, j, &b, vq_reader_label(s->in), err) == VQ_OK;
	return u->have_plan ? VQ_OK : err->code;
}

static int take_meta(struct search *s, const json_t *j, struct vq_err *err)
{
	struct vq_units *u = &s->units;

	if (u->have_meta)
		return vq_fail(err, VQ_E_DATA, "want one META 'calib', got two");
	u->have_meta = vq_calib_meta_parse(&u->meta, j, vq_reader_label(s->in), err) == VQ_OK;
	return u->have_meta ? VQ_OK : err->code;
}

typedef int json_taker(struct search *s, const json_t *j, struct vq_err *err);

/* A JSON record that search reads and passes on. */
static int json_record(struct search *s, const struct vq_record *rec, json_taker *take,
		       struct vq_err *err)
{
	struct vq_held_list one = {0};
	json_t *j = NULL;
	int rc = vq_held_load(&one, s->in, rec, err);

	if (rc == VQ_OK) {
		j = held_json(s, &one, err);
		rc = j ? take(s, j, err) : VQ_E_DATA;
	}
	if (rc == VQ_OK)
		rc = vq_held_put(&one, s->out, err);
	json_decref(j);
	vq_held_clear(&one);
	return rc;
}

/* Calibration inputs and statistics: read by the methods that want them, passed on when asked for. */
static int input_record(struct search *s, const struct vq_record *rec, struct vq_err *err)
{
	const struct vq_search_opts *o = s->o;

	if (vq_search_calibrates(o) && !s->have_cfg)
		return vq_fail(err, VQ_E_DATA, "want META 'config' ahead of it");
	if (s->have_cfg && vq_mixed_wants(o, rec))
		return vq_mixed_record(&s->entropy, o, &s->cfg, s->in, rec,
				       o->keep_inputs ? s->out : NULL, err);
	if (!vq_search_calibrates(o) || !vq_acts_wants(rec, o, &s->cfg))
		return o->keep_inputs ? vq_reader_pass(s->in, s->out, err) : VQ_OK;
	return vq_acts_record(&s->units.acts, s->in, rec, o->keep_inputs ? s->out : NULL, err);
}

/* A record ahead of the weights. */
static int head_record(struct search *s, const struct vq_record *rec, struct vq_err *err)
{
	note_record(s, rec);
	if (rec->kind == VQ_KIND_META && strcmp(rec->name, "search") == 0)
		return vq_fail(err, VQ_E_DATA,
			       "this stream was searched already; start from vqlm-calib's");
	if (rec->kind == VQ_KIND_INPUT || rec->kind == VQ_KIND_STAT)
		return input_record(s, rec, err);
	if (rec->kind == VQ_KIND_META && strcmp(rec->name, "config") == 0)
		return json_record(s, rec, take_config, err);
	if (vq_search_calibrates(s->o) && rec->kind == VQ_KIND_META &&
	    strcmp(rec->name, "calib") == 0)
		return json_record(s, rec, take_meta, err);
	if (vq_search_calibrates(s->o) && rec->kind == VQ_KIND_PLAN &&
	    strcmp(rec->name, "plan") == 0)
		return json_record(s, rec, take_plan, err);
	return vq_reader_pass(s->in, s->out, err);
}

/* The head is complete: marks the output with what it was made from. */
static int start_weights(struct search *s, struct vq_err *err)
{
	char hex[VQ_SHA256_HEX];
	json_t *mark;
	int rc;

	if (!s->have_cfg)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want META 'config' ahead of the weights, got none",
			       vq_reader_label(s->in));
	if (s->o->first_unit >= vq_config_n_units(&s->cfg))
		return vq_fail(err, VQ_E_DATA, "--blocks: unit %u of a model with %u units",
			       s->o->first_unit, vq_config_n_units(&s->cfg));
	vq_sha256_hex(&s->sum, hex);
	mark = json_pack("{s:s}", "input", hex);
	if (!mark)
		return vq_fail(err, VQ_E_SYS, "memory: cannot make META 'search'");
	rc = vq_writer_put_json(s->out, VQ_KIND_META, "search", mark, err);
	if (rc == VQ_OK && s->resume)
		rc = vq_resume_start(s->resume, mark, err);
	json_decref(mark);
	s->units.resume = s->resume;
	s->units.out = s->out;
	s->units.o = s->o;
	s->units.label = vq_reader_label(s->in);
	if (rc == VQ_OK)
		rc = vq_mixed_units(&s->units.acts.wide, &s->entropy, s->o, s->units.label, err);
	if (rc == VQ_OK && vq_search_by_block(s->o))
		rc = vq_units_begin(&s->units, &s->cfg, err);
	s->in_weights = 1;
	vq_progress_start(&s->progress, "search", s->n_names);
	return rc;
}

/* The entry of the tensor in the list of the model's names, after it has been checked against it; *name NULL for
 * a tensor that the model does not know. */
static int identify(struct search *s, const struct vq_record *rec, const struct vq_name **name,
		    struct vq_err *err)
{
	char want[128], got[128];
	size_t i;

	*name = NULL;
	for (i = 0; i < s->n_names && strcmp(s->names[i].name, rec->name) != 0; i++)
		;
	if (i == s->n_names)
		return VQ_OK;
	if (rec->n_dims != s->names[i].n_dims ||
	    memcmp(rec->dims, s->names[i].dims, rec->n_dims * sizeof(*rec->dims)) != 0)
		return vq_fail(
			err, VQ_E_DATA, "want shape %s, got %s",
			vq_shape_text(s->names[i].n_dims, s->names[i].dims, want, sizeof(want)),
			vq_shape_text(rec->n_dims, rec->dims, got, sizeof(got)));
	if (rec->dtype != VQ_F16 && rec->dtype != VQ_BF16 && rec->dtype != VQ_F32)
		return vq_fail(err, VQ_E_DATA,
			       "want a weight of f16, bf16 or f32, got %s; was it searched before?",
			       vq_dtype_name(rec->dtype));
	if (s->names[i].unit < s->unit)
		return vq_fail(err, VQ_E_DATA,
			       "a tensor of unit %u after unit %u: want units in order",
			       s->names[i].unit, s->unit);
	s->unit = s->names[i].unit;
	s->seen[i] = 1;
	*name = &s->names[i];
	return VQ_OK;
}

static int wanted(const struct search *s, const struct vq_name *name)
{
	if (!name) /* not of the model: rides with the first piece */
		return s->o->first_unit == 0;
	return name->unit >= s->o->first_unit && name->unit <= s->o->last_unit;
}

/* Rounds one linear to nearest; the records go to out. */
static int round_linear(const struct search *s, const struct vq_held *in, struct vq_held_list *out,
			struct vq_err *err)
{
	const struct vq_search_opts *o = s->o;
	struct vq_tensor w = {in->rec.dtype, 2, {in->rec.dims[0], in->rec.dims[1]}, in->data};
	struct vq_searched q = {.clip = 1};
	int rc = VQ_OK;

	q.act = vq_scheme_grid(o, &s->cfg, in->rec.name, (uint32_t)in->rec.dims[1]);
	if (vq_search_nf(o)) {
		rc = vq_searched_nf(&q, vq_search_nf(o), &w, err);
	} else if (o->w.bits != 16) {
		rc = vq_codes_alloc(&q.codes, &o->w, (uint32_t)in->rec.dims[0],
				    (uint32_t)in->rec.dims[1], err);
		if (rc == VQ_OK)
			rc = vq_rtn_fit(&q.codes, in->data, in->rec.dtype, 1, &q.error, err);
	} else {
		rc = vq_rtn_check_finite(in->data, in->rec.dtype,
					 (size_t)(in->rec.dims[0] * in->rec.dims[1]), err);
	}
	if (rc == VQ_OK)
		rc = vq_held_linear(out, in, &q, err);
	vq_searched_free(&q);
	return rc;
}

static int rtn_tensor(struct search *s, const struct vq_record *rec, const struct vq_name *name,
		      struct vq_err *err)
{
	struct vq_held_list in = {0}, out = {0};
	size_t count = 0;
	int rc = vq_held_load(&in, s->in, rec, err), found = 0;

	if (rc == VQ_OK && s->resume) {
		found = vq_resume_block(s->resume, in.items, 1, NULL, &out, err);
		rc = found < 0 ? found : VQ_OK;
	}
	if (rc == VQ_OK && !found) {
		struct vq_tensor t = {rec->dtype, rec->n_dims, {0}, NULL};

		memcpy(t.dims, rec->dims, sizeof(t.dims));
		if (name && name->linear && (vq_search_part_of(name->name) & s->o->parts)) {
			rc = round_linear(s, &in.items[0], &out, err);
		} else {
			rc = vq_tensor_count(&t, &count);
			if (rc == VQ_OK)
				rc = vq_rtn_check_finite(in.items[0].data, rec->dtype, count, err);
			if (rc == VQ_OK)
				rc = vq_held_move(&out, &in, err);
		}
	}
	if (rc == VQ_OK)
		rc = vq_held_put(&out, s->out, err);
	vq_held_clear(&in);
	vq_held_clear(&out);
	return rc;
}

static int block_tensor(struct search *s, const struct vq_record *rec, const struct vq_name *name,
			struct vq_err *err)
{
	struct vq_held_list one = {0};
	int rc = vq_held_load(&one, s->in, rec, err);

	if (rc == VQ_OK) {
		rc = vq_units_tensor(&s->units, &one.items[0], name, err);
		one.n = 0; /* taken over */
	}
	vq_held_clear(&one);
	return rc;
}

static int weight_record(struct search *s, const struct vq_record *rec, struct vq_err *err)
{
	const struct vq_name *name;
	int rc;

	if (!s->in_weights) {
		rc = start_weights(s, err);
		if (rc < 0)
			return rc;
		if (s->cost) {
			vq_search_cost(s->cost, s->o, &s->cfg, s->names, s->n_names, rec->dtype,
				       &s->units.plan, &s->units.acts, s->level);
			return DRY_RUN_DONE;
		}
	}
	rc = identify(s, rec, &name, err);
	if (rc == VQ_OK && wanted(s, name))
		rc = vq_search_by_block(s->o) ? block_tensor(s, rec, name, err)
					      : rtn_tensor(s, rec, name, err);
	if (rc == VQ_OK)
		vq_progress_step(&s->progress, ++s->n_done);
	return at_record(s, rec, rc, err);
}

static int one_record(struct search *s, const struct vq_record *rec, struct vq_err *err)
{
	if (rec->kind == VQ_KIND_GRID)
		return at_record(s, rec,
				 vq_fail(err, VQ_E_DATA,
					 "this stream was searched already; start from "
					 "vqlm-calib's"),
				 err);
	if (rec->kind == VQ_KIND_TENSOR)
		return weight_record(s, rec, err);
	if (!s->in_weights)
		return at_record(s, rec, head_record(s, rec, err), err);
	return vq_reader_pass(s->in, s->out, err);
}

/* Everything that the configuration asks for must have come. */
static int check_complete(const struct search *s, struct vq_err *err)
{
	size_t i;

	if (!s->in_weights)
		return vq_fail(err, VQ_E_DATA, "%s: want weights, got none",
			       vq_reader_label(s->in));
	for (i = 0; i < s->n_names; i++)
		if (!s->seen[i])
			return vq_fail(err, VQ_E_DATA, "%s: tensor '%s' is missing",
				       vq_reader_label(s->in), s->names[i].name);
	return VQ_OK;
}

/* Header in, header out; the interrupted output must have the same. */
static int start(struct search *s, struct vq_err *err)
{
	json_t *params, *header;
	int rc = vq_reader_segment(s->in, err);

	if (rc < 0)
		return rc;
	params = vq_search_params(s->o, err);
	if (!params)
		return VQ_E_SYS;
	header = vq_header_derive(vq_reader_header(s->in), "vqlm-search", params, vq_cpu_name(),
				  vq_blas_core(), err);
	json_decref(params);
	if (!header)
		return VQ_E_SYS;
	rc = VQ_OK;
	if (s->o->resume)
		rc = vq_resume_open(&s->resume, s->o->resume, header, err);
	if (rc == VQ_OK)
		rc = vq_writer_begin(s->out, header, err);
	json_decref(header);
	return rc;
}

static int walk(struct search *s, struct vq_err *err)
{
	struct vq_record rec;
	int rc = start(s, err);

	while (rc >= 0) {
		if (vq_stop_asked())
			return vq_fail(err, VQ_E_STOP, "stopped by a signal; go on with --resume");
		rc = vq_reader_next(s->in, &rec, err);
		if (rc <= 0)
			break;
		rc = one_record(s, &rec, err);
		if (rc == DRY_RUN_DONE)
			return VQ_OK;
	}
	if (rc < 0)
		return rc;
	rc = check_complete(s, err);
	if (rc == VQ_OK && vq_search_by_block(s->o))
		rc = vq_units_end(&s->units, err);
	if (rc < 0)
		return rc;
	rc = vq_reader_segment(s->in, err);
	if (rc == 1)
		rc = vq_fail(err, VQ_E_DATA, "%s: want one segment, got another after its end",
			     vq_reader_label(s->in));
	return rc < 0 ? rc : vq_writer_end(s->out, err);
}

static int run(const struct vq_search_opts *o, int in_fd, const char *in_label, int out_fd,
	       const char *out_label, int level, struct vq_search_cost *cost, struct vq_err *err)
{
	struct search s = {.o = o, .cost = cost, .level = level};
	int rc = vq_reader_open(&s.in, in_fd, in_label, err);

	sha256_init(&s.sum);
	if (rc == VQ_OK)
		rc = vq_reader_ahead(s.in, 1u << VQ_KIND_TENSOR, err);
	if (rc == VQ_OK)
		rc = vq_writer_open(&s.out, out_fd, out_label, level, err);
	if (rc == VQ_OK)
		rc = walk(&s, err);
	vq_progress_end(&s.progress);
	vq_units_free(&s.units);
	vq_entropy_stat_free(&s.entropy);
	vq_resume_close(s.resume);
	vq_writer_close(s.out);
	vq_reader_close(s.in);
	vq_free(s.seen);
	vq_free(s.names);
	return rc;
}

int vq_search_run(const struct vq_search_opts *o, int in_fd, const char *in_label, int out_fd,
		  const char *out_label, int level, struct vq_err *err)
{
	int rc = run(o, in_fd, in_label, out_fd, out_label, level, NULL, err);

	vq_info("peak memory %.1f MiB of own memory, %.1f MiB resident",
		(double)vq_peak_anon() / 1048576, (double)vq_peak_rss() / 1048576);
	return rc;
}

int vq_search_dry_run(const struct vq_search_opts *o, int in_fd, const char *in_label, int level,
		      struct vq_search_cost *cost, struct vq_err *err)
{
	struct vq_search_opts dry = *o;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return vq_fail_errno(err, VQ_E_SYS, "/dev/null: cannot open");
	dry.resume = NULL;
	dry.keep_inputs = 0;
	rc = run(&dry, in_fd, in_label, fd, "/dev/null", level, cost, err);
	close(fd);
	return rc;
}
