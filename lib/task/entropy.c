/* The filter: statistics in, plan out, the rest through. */
#include "task/entropy.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "stream/history.h"
#include "stream/writer.h"
#include "task/entropy_stat.h"

static const char *const part_names[] = {"entropy", "fixed", "random", "none"};
static const char *const proxy_names[] = {"entropy", "error"};
static const char *const space_names[] = {"raw", "hadamard"};

struct filter {
	const struct vq_entropy_opts *o;
	struct vq_reader *r;
	struct vq_writer *w; /* NULL with --table */
	int fd;              /* of the output */
	const char *out_label;
	struct vq_entropy_stat stat; /* of the segment */
	int planned;                 /* the segment's plan is out */
};

static int begin_segment(struct filter *f, struct vq_err *err)
{
	const struct vq_entropy_opts *o = f->o;
	json_t *params, *header = NULL;
	int rc = VQ_E_SYS;

	if (!f->w)
		return VQ_OK;
	params = json_pack("{s:I, s:I, s:s, s:s, s:s, s:I, s:o, s:o}", "bits", (json_int_t)o->bits,
			   "depth", (json_int_t)o->depth, "partition", part_names[o->partition],
			   "proxy", proxy_names[o->proxy], "space", space_names[o->space], "seed",
			   (json_int_t)o->seed, "h0", o->h0 < 0 ? json_null() : json_real(o->h0),
			   "h0_quantile", o->quantile < 0 ? json_null() : json_real(o->quantile));
	if (params && o->offset &&
	    json_object_set_new(params, "offset", json_integer(o->offset)) < 0) {
		json_decref(params);
		params = NULL;
	}
	if (params)
		header = vq_header_derive(vq_reader_header(f->r), "vqlm-entropy", params, NULL,
					  NULL, err);
	else
		vq_fail(err, VQ_E_SYS, "memory: cannot have the header");
	if (header)
		rc = vq_writer_begin(f->w, header, err);
	json_decref(params);
	json_decref(header);
	return rc;
}

static const char *kind_of(const struct vq_config *c, uint32_t unit)
{
	if (c->has_vision && unit < vq_config_projector_unit(c))
		return "vision";
	if (c->has_vision && unit == vq_config_projector_unit(c))
		return "projector";
	return "decoder";
}

/* A number that may be absent. */
static void put_cell(struct vq_str *s, const double *v, uint32_t i)
{
	if (v && v[i] >= 0)
		vq_str_printf(s, "\t%.6g", v[i]);
	else
		vq_str_puts(s, "\tNA");
}

static int put_table(struct filter *f, const struct vq_plan *p, struct vq_err *err)
{
	const struct vq_entropy_stat *s = &f->stat;
	struct vq_str t = {0};
	uint32_t i;
	int rc;

	vq_str_puts(&t, "unit\tkind\tD\tentropy\tinfluence\terror\tblock\n");
	for (i = 0; i < p->n_units; i++) {
		vq_str_printf(&t, "%u\t%s", i, kind_of(&s->cfg, i));
		put_cell(&t, s->d, i);
		put_cell(&t, s->h, i);
		put_cell(&t, s->influence, i);
		put_cell(&t, s->error, i);
		vq_str_printf(&t, "\t%u\n", vq_plan_block_of(p, i));
	}
	rc = t.failed ? vq_fail(err, VQ_E_SYS, "memory: cannot have the table")
		      : vq_write_full(f->fd, t.s, t.n, f->out_label, err);
	vq_str_free(&t);
	return rc;
}

static void say_plan(const struct vq_plan *p)
{
	uint32_t i, most = 0;

	for (i = 0; i < p->n_blocks; i++)
		if (p->blocks[i].last - p->blocks[i].first + 1 > most)
			most = p->blocks[i].last - p->blocks[i].first + 1;
	vq_info("%u units in %u blocks, the longest of %u; h0 %.6g", p->n_units, p->n_blocks, most,
		p->h0);
}

/* Cuts the plan of what came so far, and writes it. */
static int put_plan(struct filter *f, struct vq_err *err)
{
	const struct vq_entropy_opts *o = f->o;
	const char *label = vq_reader_label(f->r);
	struct vq_plan p = {.h0 = o->h0,
			    .quantile = o->quantile,
			    .depth = o->depth,
			    .offset = o->offset,
			    .bits = o->bits,
			    .seed = o->seed,
			    .partition = o->partition,
			    .proxy = o->proxy,
			    .space = o->space};
	struct vq_plan_bounds b;
	json_t *j = NULL;
	int rc;

	f->planned = 1;
	if (!f->stat.have_config || !f->stat.have_meta)
		return vq_fail(err, VQ_E_DATA,
			       "%s: no META '%s' before the first weight: want what vqlm-calib "
			       "writes",
			       label, f->stat.have_config ? "calib" : "config");
	rc = vq_entropy_stat_proxy(&f->stat, o, label, &p.d, err);
	if (rc < 0)
		return rc;
	if (!p.d && o->partition == VQ_PART_ENTROPY)
		vq_warn("%s: no statistics (vqlm-calib -n 0): every block has one layer", label);
	b = vq_plan_bounds_of(&f->stat.cfg, &f->stat.meta);
	rc = vq_plan_cut(&p, &b, err);
	if (rc >= 0)
		say_plan(&p);
	if (rc >= 0 && !f->w) {
		rc = put_table(f, &p, err);
	} else if (rc >= 0) {
		j = vq_plan_json(&p, err);
		rc = j ? vq_writer_put_json(f->w, VQ_KIND_PLAN, "plan", j, err) : VQ_E_SYS;
	}
	json_decref(j);
	vq_plan_free(&p);
	return rc;
}

/* A record that the plan depends on: looked into, then on its way. */
static int take(struct filter *f, const struct vq_record *rec, struct vq_err *err)
{
	void *data = NULL;
	int rc = vq_reader_load(f->r, &data, err);

	if (rc >= 0)
		rc = vq_entropy_stat_take(&f->stat, f->o, rec, data, vq_reader_label(f->r), err);
	if (rc >= 0 && f->w)
		rc = vq_writer_put(f->w, rec, data, err);
	vq_free(data);
	return rc;
}

static int one_record(struct filter *f, const struct vq_record *rec, struct vq_err *err)
{
	int rc = VQ_OK;

	if (rec->kind == VQ_KIND_PLAN && strcmp(rec->name, "plan") == 0) {
		vq_warn("%s: the plan that is there already is replaced", vq_reader_label(f->r));
		return VQ_OK;
	}
	if (!f->planned && (rec->kind == VQ_KIND_TENSOR || rec->kind == VQ_KIND_GRID))
		rc = put_plan(f, err);
	if (rc < 0)
		return rc;
	if (vq_entropy_stat_wants(f->o, rec))
		return f->planned ? vq_fail(err, VQ_E_DATA,
					    "%s: record '%s' comes after the first weight",
					    vq_reader_label(f->r), rec->name)
				  : take(f, rec, err);
	return f->w ? vq_reader_pass(f->r, f->w, err) : VQ_OK;
}

static int one_segment(struct filter *f, struct vq_err *err)
{
	struct vq_record rec;
	int rc = begin_segment(f, err);

	f->planned = 0;
	while (rc >= 0) {
		rc = vq_reader_next(f->r, &rec, err);
		if (rc <= 0)
			break;
		rc = one_record(f, &rec, err);
	}
	if (rc >= 0 && !f->planned)
		rc = put_plan(f, err);
	if (rc >= 0 && f->w)
		rc = vq_writer_end(f->w, err);
	vq_entropy_stat_free(&f->stat);
	return rc;
}

int vq_entropy(const struct vq_entropy_opts *o, struct vq_err *err)
{
	struct filter f = {.o = o};
	struct vq_output out;
	int rc = vq_output_open(&out, o->output, err);

	if (rc < 0)
		return rc;
	f.fd = out.fd;
	f.out_label = out.label;
	rc = vq_reader_open(&f.r, STDIN_FILENO, "stdin", err);
	if (rc >= 0 && !o->table)
		rc = vq_writer_open(&f.w, out.fd, out.label, o->level, err);
	while (rc >= 0) {
		rc = vq_reader_segment(f.r, err);
		if (rc <= 0)
			break;
		rc = one_segment(&f, err);
	}
	vq_writer_close(f.w);
	vq_reader_close(f.r);
	if (rc >= 0)
		rc = vq_output_commit(&out, err);
	else
		vq_output_abort(&out, 0);
	return rc;
}
