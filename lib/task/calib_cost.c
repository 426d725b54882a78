/* The model of memory, disk and time.  It counts the blocks that the run really takes, phase by phase; what it
 * leaves out (JSON, the C library, records on their way) is in BASE_BYTES.  tests/e2e/vqlm-calib.bats compares it
 * with the measured peak. */
#include "task/calib_cost.h"

#include <omp.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "kernel/gemm16.h"
#include "model/adjoint_attention.h"
#include "model/model.h"
#include "task/calib_probe.h"
#include "task/calib_weights.h"

#define BASE_BYTES (6u << 20)
/* Seconds that one element of a pair takes in one joint matrix, both sides; measured, see quant/dependency.c. */
#define JOINT_SECONDS 6e-8

/* What the shapes of one tower ask for. */
struct need {
	const struct vq_layer_config *c;
	uint32_t n_layers;
	uint64_t rows, chunk, longest; /* all; at once in a layer; of the longest sequence */
	uint64_t seqs, most;           /* all; of one sample */
	uint64_t
		top_k; /* experts of a row; 0: no layer has some.  The dense layers between count as sparse ones */
};

static uint64_t u64max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static struct need vision_need(const struct vq_calib_run *r)
{
	struct need n = {&r->cfg->vision.layer, r->cfg->vision.n_layers, 0, 0, 0, 0, 0, 0};
	uint32_t i;

	for (i = 0; i < r->n; i++) {
		n.seqs += r->prompts[i].n_images;
		n.most = u64max(n.most, r->prompts[i].n_images);
	}
	n.longest = n.seqs ? vq_vision_positions(r->cfg) : 0;
	n.rows = n.seqs * n.longest;
	n.chunk = n.longest < VQ_CALIB_CHUNK_ROWS ? VQ_CALIB_CHUNK_ROWS : n.longest;
	n.chunk = n.rows < n.chunk ? n.rows : n.chunk;
	return n;
}

static struct need decoder_need(const struct vq_calib_run *r)
{
	const struct vq_decoder_config *d = &r->cfg->decoder;
	struct need n = {&d->layer, d->n_layers, 0, 0, 0, r->n, 1, d->moe.top_k};
	uint32_t i;

	for (i = 0; i < r->n; i++) {
		n.rows += r->prompts[i].n_tokens;
		n.longest = u64max(n.longest, r->prompts[i].n_tokens);
	}
	n.chunk = u64max(n.longest, VQ_CALIB_CHUNK_ROWS);
	n.chunk = n.rows < n.chunk ? n.rows : n.chunk;
	return n;
}

static uint64_t q_width(const struct vq_layer_config *c)
{
	return (uint64_t)c->n_heads * c->head_dim;
}

/* Floats of a layer's forward over its chunk, and of the threads' tiles of 16-bit weights. */
static uint64_t layer_work(const struct need *n)
{
	const struct vq_layer_config *c = n->c;
	uint64_t kv = (uint64_t)c->n_kv_heads * c->head_dim,
		 threads = (uint64_t)omp_get_max_threads();
	uint64_t attention = c->hidden + 2 * q_width(c) + 2 * kv;
	uint64_t mlp = n->top_k ? (1 + n->top_k) * c->hidden + (n->top_k + c->gated) * c->inter
				: c->hidden + (1 + (uint64_t)c->gated) * c->inter;
	uint64_t kept = c->parallel ? c->hidden : 0;

	return n->chunk * (kept + u64max(attention, u64max(mlp, c->inter + (uint64_t)c->hidden))) +
	       threads * u64max(512 * (uint64_t)u64max(c->inter, c->hidden), 64 * n->longest);
}

/* Floats of the joint statistics while in a tower. */
static uint64_t joint_work(const struct vq_calib_run *r, const struct need *n)
{
	uint64_t most = VQ_CALIB_JOINT_ELEMENTS / n->c->hidden, l;

	most = most ? most : 1;
	l = (1u << r->bits[r->n_bits ? r->n_bits - 1 : 0]) + 8;
	return 4 * (n->rows < most ? n->rows : most) * n->c->hidden + 2 * 8 * l * l + 2 * l * l;
}

/* One slot's weights as float and codes, and copies of a chunk. */
static uint64_t error_work(const struct vq_calib_run *r, const struct need *n)
{
	const struct vq_layer_config *c = n->c;
	uint64_t mlp = (1 + (uint64_t)c->gated) * c->inter, qkv = 3 * q_width(c);

	if (!r->error_stats)
		return 0;
	return u64max(mlp, qkv) * c->hidden + (uint64_t)c->inter * c->hidden / 4 +
	       n->chunk * (2 * (uint64_t)c->hidden + (n->top_k ? n->top_k : 1) * c->inter);
}

/* Vectors that go through the tower for each picture of a sample with the most of them. */
static uint32_t vectors_a_picture(const struct need *v, uint32_t n_k)
{
	return v->most > n_k ? 1 : vq_ceil_div(n_k, (uint32_t)u64max(v->most, 1));
}

/* Floats of the backward pass through one layer, with K stacks of hidden-state cotangents. */
static uint64_t adjoint_work(const struct need *n, uint32_t n_k)
{
	const struct vq_layer_config *c = n->c;
	uint64_t t = n->longest, all = t * n_k, threads = (uint64_t)omp_get_max_threads();
	uint64_t part = t >= 2048 ? t : all < 2048 ? all : 2048;
	uint64_t rows = n->top_k ? n->top_k : 1;
	uint64_t trace =
		t * (3 * q_width(c) + c->hidden + rows * (1 + (uint64_t)c->gated) * c->inter +
		     n->top_k * 2 * c->hidden);
	uint64_t mlp = part * ((1 + (uint64_t)c->gated) * c->inter +
			       (n->top_k ? 4 : 2) * (uint64_t)c->hidden);
	uint64_t attention = part * (4 * q_width(c) + 2 * (uint64_t)c->hidden) +
			     threads * 2 * t * (t < VQ_ADJOINT_QUERIES ? t : VQ_ADJOINT_QUERIES);

	return all * c->hidden + trace + u64max(mlp, attention) +
	       (c->parallel ? part * (uint64_t)c->hidden : 0) +
	       threads * 256 * (uint64_t)u64max(c->inter, c->hidden);
}

/* Floats of the backward passes of one sample that has the most pictures: through the decoder, with K stacks of its
 * cotangents held, then through the projector, then through the tower, a picture at a time; then the sketch goes out. */
static uint64_t probe_work(const struct vq_calib_run *r, const struct need *v, const struct need *d,
			   uint32_t n_k, int packed)
{
	const struct vq_config *c = r->cfg;
	uint64_t rows = v->most * c->n_image_tokens, in = c->projector.in, d_width = d->c->hidden;
	uint64_t tiles = (uint64_t)omp_get_max_threads() * 256 * u64max(d_width, in);
	uint64_t back, project, tower, record = packed ? n_k * rows * in : 0;

	if (!v->most)
		return adjoint_work(d, n_k);
	back = n_k * (d->longest * d_width + rows * in);
	project = (n_k + 1) * rows * d_width + rows * in + tiles;
	tower = (v->n_layers + 1) * v->longest * v->c->hidden +
		adjoint_work(v, vectors_a_picture(v, n_k));
	return u64max(adjoint_work(d, n_k), back + u64max(project, u64max(tower, record)));
}

/* Of all rows through one layer once; *attention of them are between tokens. */
static double layer_flop(const struct need *n, double *attention)
{
	const struct vq_layer_config *c = n->c;
	double w = (double)c->hidden *
		   (2.0 * (double)q_width(c) + 2.0 * c->n_kv_heads * c->head_dim +
		    (n->top_k ? (double)n->top_k : 1) * (2.0 + c->gated) * c->inter);

	*attention = 4.0 * (double)n->rows * (double)n->longest * (double)q_width(c);
	return 2 * w * (double)n->rows + *attention;
}

/* Of a tower: forward, and for a share of the samples `again` forwards and n_k adjoints, in which attention has four
 * products instead of two. */
static double tower_flop(const struct need *n, double share, double again, double n_k)
{
	double attention, all = layer_flop(n, &attention);

	return n->n_layers * (all + share * (again * all + n_k * (all + attention)));
}

static uint64_t token_bytes(const struct vq_calib_run *r)
{
	uint64_t bytes = 0;
	uint32_t i;

	for (i = 0; i < r->n; i++)
		bytes += 4ull * r->prompts[i].n_tokens;
	return bytes;
}

static uint64_t picture_bytes(const struct vq_calib_run *r)
{
	return 12ull * r->cfg->vision.image_size * r->cfg->vision.image_size;
}

/* Bytes of pixels and hidden states while sample after sample enters the tower and its pixels go. */
static uint64_t entering_bytes(const struct vq_calib_run *r, const struct need *v)
{
	uint64_t in = v->seqs, out = 0, peak = 0;
	uint32_t i;

	for (i = 0; i < r->n; i++) {
		out += r->prompts[i].n_images;
		peak = u64max(peak, in * picture_bytes(r) + out * 4 * v->longest * v->c->hidden);
		in -= r->prompts[i].n_images;
	}
	return peak;
}

static uint64_t joint_bytes(const struct vq_calib_run *r, const struct need *v,
			    const struct need *d)
{
	uint64_t pairs = d->n_layers - 1 + (v->n_layers ? v->n_layers - 1 : 0), bytes = 0;
	uint32_t b;

	for (b = 0; b < r->n_bits; b++)
		bytes += (8 * pairs) << (2 * r->bits[b]);
	return bytes;
}

static uint64_t checkpoint_bytes(const struct vq_calib_run *r, const struct need *v,
				 const struct need *d)
{
	uint64_t bytes = 0;
	uint32_t i;

	for (i = 0; i < r->meta->n_checkpoints; i++)
		bytes += r->meta->checkpoints[i] < vq_config_decoder_unit(r->cfg)
				 ? 4 * v->rows * v->c->hidden
				 : 4 * d->rows * d->c->hidden;
	return bytes;
}

static void count_work(struct vq_calib_cost *c, const struct vq_calib_run *r, const struct need *v,
		       const struct need *d, uint32_t n, uint32_t n_k)
{
	double share = (double)n / r->n, attention;

	/* A probed sample: in the tower forward once more, then forward with a trace; in the decoder with a trace twice,
	 * the second time for the slope of the entropies, which is a vector too. */
	c->flop = tower_flop(v, share, 2, vectors_a_picture(v, n_k)) +
		  tower_flop(d, share, 2, n_k + 1.0);
	if (r->error_stats)
		c->flop += r->n_bits * (layer_flop(d, &attention) * d->n_layers * (double)d->chunk /
					(double)d->rows);
	c->joint = 2.0 * r->n_bits *
		   ((double)joint_work(r, d) / 4 * d->n_layers +
		    (v->seqs ? (double)joint_work(r, v) / 4 * v->n_layers : 0));
}

static void count_run(struct vq_calib_cost *c, const struct vq_calib_run *r, int packed)
{
	struct need v = vision_need(r), d = decoder_need(r);
	uint32_t n, n_k;
	uint64_t hv = v.rows * v.c->hidden, hd = d.rows * d.c->hidden, kept_v, kept_d, entry;
	uint64_t fixed = token_bytes(r) + joint_bytes(r, &v, &d), peak;
	uint64_t rows = v.most * r->cfg->n_image_tokens;

	vq_calib_probe_size(r, &n, &n_k);
	kept_v = n * v.most * v.longest * v.c->hidden;
	kept_d = n * d.longest * d.c->hidden * (d.n_layers + 1) +
		 (n ? 2ull * d.n_layers * d.c->hidden : 0);
	entry = hv + 2 * kept_v + hd + rows * (r->cfg->projector.in + 2 * (uint64_t)d.c->hidden);
	peak = v.seqs ? hv + 2 * kept_v + layer_work(&v) + joint_work(r, &v) + error_work(r, &v)
		      : 0;
	peak = u64max(peak, entry);
	peak = u64max(peak, 2 * kept_v + hd + kept_d + layer_work(&d) + joint_work(r, &d) +
				    error_work(r, &d));
	if (n)
		peak = u64max(peak, 2 * kept_v + kept_d + probe_work(r, &v, &d, n_k, packed));
	c->memory += fixed + u64max(entering_bytes(r, &v), 4 * peak);
	if (packed) /* the writer keeps the room that the largest record so far took */
		c->memory += v.most * picture_bytes(r);
	c->stream += fixed + v.seqs * picture_bytes(r) + checkpoint_bytes(r, &v, &d) +
		     4ull * n * (n_k + 1) * rows * r->cfg->projector.in;
	count_work(c, r, &v, &d, n, n_k);
}

int vq_calib_cost(struct vq_calib_cost *c, const struct vq_calib_run *r, int level,
		  struct vq_err *err)
{
	uint64_t largest = 0;
	int rc;

	*c = (struct vq_calib_cost){.memory = BASE_BYTES, .spool = vq_ckpt_unready(r->ckpt)};
	rc = vq_calib_weight_bytes(r->cfg, r->ckpt, &c->stream, &largest, err);
	if (rc < 0)
		return rc;
	if (r->n)
		count_run(c, r, level != 0);
	c->memory += c->memory / 6; /* what the C library keeps between large blocks; measured */
	/* A compressed record is whole in memory before it goes out. */
	if (level != 0)
		c->memory = u64max(c->memory, BASE_BYTES + largest);
	return VQ_OK;
}

/* Floating-point operations a second of this machine's products: the fastest of a fifth of a second, since what else
 * runs at this moment says little about the hours to come. */
static double measure_flops(void)
{
	enum { N = 768 };
	float *x = vq_calloc((size_t)N * N, sizeof(float), NULL);
	float *w = vq_calloc((size_t)N * N, sizeof(float), NULL);
	float *y = vq_calloc((size_t)N * N, sizeof(float), NULL);
	double begin = vq_now(), least = 0;

	while (x && w && y && vq_now() - begin < 0.2) {
		double t = vq_now();

		if (vq_gemm(x, N, w, VQ_F32, N, N, NULL, y, NULL) < 0)
			break;
		t = vq_now() - t;
		least = least > 0 && least < t ? least : t;
	}
	vq_free(x);
	vq_free(w);
	vq_free(y);
	return least > 0 ? 2.0 * N * N * N / least : 1e10;
}

/* Bytes a second that become float16 in a spool: 13.5 GB took 14 s of two cores and 18 s of the system. */
#define SPOOL_RATE 4e8

static void put_disk(const char *output, struct vq_err *err)
{
	struct statvfs fs;
	char *dir = vq_path_dir(output, err);

	if (dir && statvfs(dir, &fs) == 0)
		printf("free disk    %10.1f MiB in %s\n",
		       (double)fs.f_bavail * (double)fs.f_frsize / 1048576.0, dir);
	vq_free(dir);
}

int vq_calib_dry_run(const struct vq_calib_run *r, const char *output, int level,
		     struct vq_err *err)
{
	struct vq_calib_cost c;
	int rc = vq_calib_cost(&c, r, level < 0 ? output != NULL : level, err);
	double rate, seconds;

	if (rc < 0)
		return rc;
	rate = measure_flops();
	seconds = c.flop / rate + c.joint * JOINT_SECONDS / omp_get_max_threads() +
		  (double)c.stream / (output ? 2e8 : 1e9) + (double)c.spool / SPOOL_RATE;
	printf("memory       %10.1f MiB of own memory; the mapped checkpoint does not count\n"
	       "disk         %10.1f MiB of stream at most, less when compressed\n",
	       (double)c.memory / 1048576.0, (double)c.stream / 1048576.0);
	if (c.spool)
		printf("spool        %10.1f MiB in TMPDIR, for weights that are blocks of codes\n",
		       (double)c.spool / 1048576.0);
	printf("time         %10.1f s (%.3g GFLOP at %.0f GFLOP/s)\n", seconds, c.flop / 1e9,
	       rate / 1e9);
	if (output)
		put_disk(output, err);
	return VQ_OK;
}
