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
#include "kernel/gemm16.h"
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
	uint64_t seqs;
	uint64_t
		top_k; /* experts of a row; 0: no layer has some.  The dense layers between count as sparse ones */
};

static uint64_t u64max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static struct need vision_need(const struct vq_calib_run *r)
{
	struct need n = {&r->cfg->vision.layer, r->cfg->vision.n_layers, 0, 0, 0, 0, 0};
	uint32_t i;

	for (i = 0; i < r->n; i++)
		n.seqs += r->prompts[i].n_images;
	n.longest = n.seqs ? vq_vision_positions(r->cfg) : 0;
	n.rows = n.seqs * n.longest;
	n.chunk = n.longest < VQ_CALIB_CHUNK_ROWS ? VQ_CALIB_CHUNK_ROWS : n.longest;
	n.chunk = n.rows < n.chunk ? n.rows : n.chunk;
	return n;
}

static struct need decoder_need(const struct vq_calib_run *r)
{
	const struct vq_decoder_config *d = &r->cfg->decoder;
	struct need n = {&d->layer, d->n_layers, 0, 0, 0, r->n, d->moe.top_k};
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
	uint64_t attention =
		part * (4 * q_width(c) + 2 * (uint64_t)c->hidden) + threads * 4 * t * t;

	return all * c->hidden + trace + u64max(mlp, attention) +
	       (c->parallel ? part * (uint64_t)c->hidden : 0) +
	       threads * 256 * (uint64_t)u64max(c->inter, c->hidden);
}

static double layer_flop(const struct need *n)
{
	const struct vq_layer_config *c = n->c;
	double w = (double)c->hidden *
		   (2.0 * (double)q_width(c) + 2.0 * c->n_kv_heads * c->head_dim +
		    (n->top_k ? (double)n->top_k : 1) * (2.0 + c->gated) * c->inter);

	return 2 * w * (double)n->rows +
	       4.0 * (double)n->rows * (double)n->longest * (double)q_width(c);
}

static uint64_t input_bytes(const struct vq_calib_run *r)
{
	uint64_t bytes = 0, side = r->cfg->vision.image_size;
	uint32_t i;

	for (i = 0; i < r->n; i++)
		bytes += 4ull * r->prompts[i].n_tokens +
			 (uint64_t)r->prompts[i].n_images * 12 * side * side;
	return bytes;
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

static void count_run(struct vq_calib_cost *c, const struct vq_calib_run *r)
{
	struct need v = vision_need(r), d = decoder_need(r);
	uint32_t n, n_k;
	uint64_t hv = v.rows * v.c->hidden, hd = d.rows * d.c->hidden, kept_v, kept_d, entry;
	uint64_t fixed = input_bytes(r) + joint_bytes(r, &v, &d), peak;

	vq_calib_probe_size(r, &n, &n_k);
	kept_v = v.seqs ? n * v.longest * v.c->hidden * (v.n_layers + 1) : 0;
	kept_d = n * d.longest * d.c->hidden * (d.n_layers + 1) +
		 (n ? 2ull * d.n_layers * d.c->hidden : 0);
	entry = hv + hd +
		(uint64_t)r->cfg->n_image_tokens *
			(r->cfg->projector.in + 2 * (uint64_t)d.c->hidden);
	peak = v.seqs ? hv + layer_work(&v) + joint_work(r, &v) + error_work(r, &v) : 0;
	peak = u64max(peak, entry);
	peak = u64max(peak, hd + kept_d + layer_work(&d) + joint_work(r, &d) + error_work(r, &d));
	if (n)
		peak = u64max(peak, kept_d + u64max(adjoint_work(&d, n_k), adjoint_work(&v, n_k)));
	c->memory += fixed + 4 * (kept_v + peak);
	c->stream +=
		fixed + checkpoint_bytes(r, &v, &d) +
		(v.seqs ? 4ull * n * (n_k + 1) * r->cfg->n_image_tokens * r->cfg->projector.in : 0);
	c->flop = layer_flop(&v) * v.n_layers + layer_flop(&d) * d.n_layers;
	/* Each probed sample: a forward and n_k backward, and the two once more for the entropies. */
	c->flop *= 1 + (double)n * (n_k + 3) / r->n;
	if (r->error_stats)
		c->flop += r->n_bits *
			   (layer_flop(&d) * d.n_layers * (double)d.chunk / (double)d.rows);
	c->joint = 2.0 * r->n_bits *
		   ((double)joint_work(r, &d) / 4 * d.n_layers +
		    (v.seqs ? (double)joint_work(r, &v) / 4 * v.n_layers : 0));
}

int vq_calib_cost(struct vq_calib_cost *c, const struct vq_calib_run *r, int level,
		  struct vq_err *err)
{
	uint64_t largest = 0;
	int rc;

	*c = (struct vq_calib_cost){BASE_BYTES, 0, 0, 0};
	rc = vq_calib_weight_bytes(r->cfg, r->ckpt, &c->stream, &largest, err);
	if (rc < 0)
		return rc;
	if (r->n)
		count_run(c, r);
	c->memory += c->memory / 6; /* what the C library keeps between large blocks; measured */
	/* A compressed record is whole in memory before it goes out. */
	if (level != 0)
		c->memory = u64max(c->memory, BASE_BYTES + largest);
	return VQ_OK;
}

/* Floating-point operations a second of this machine's products, now: about a fifth of a second. */
static double measure_flops(void)
{
	enum { N = 768 };
	float *x = vq_calloc((size_t)N * N, sizeof(float), NULL);
	float *w = vq_calloc((size_t)N * N, sizeof(float), NULL);
	float *y = vq_calloc((size_t)N * N, sizeof(float), NULL);
	double t0, t = 0, n = 0;

	if (x && w && y && vq_gemm(x, N, w, VQ_F32, N, N, NULL, y, NULL) >= 0)
		for (t0 = vq_now(); t < 0.2; t = vq_now() - t0, n++)
			if (vq_gemm(x, N, w, VQ_F32, N, N, NULL, y, NULL) < 0)
				break;
	vq_free(x);
	vq_free(w);
	vq_free(y);
	return n > 0 && t > 0 ? 2.0 * N * N * N * n / t : 1e10;
}

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
		  (double)c.stream / (output ? 2e8 : 1e9);
	printf("memory       %10.1f MiB of own memory; the mapped checkpoint does not count\n"
	       "disk         %10.1f MiB of stream at most, less when compressed\n"
	       "time         %10.1f s (%.3g GFLOP at %.0f GFLOP/s)\n",
	       (double)c.memory / 1048576.0, (double)c.stream / 1048576.0, seconds, c.flop / 1e9,
	       rate / 1e9);
	if (output)
		put_disk(output, err);
	return VQ_OK;
}
