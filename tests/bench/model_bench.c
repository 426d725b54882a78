/* model_bench [-s 1b|7b] [-r RUNS] [NAME...]: whole models with random weights, beside the machine's limits.  Prefill of
 * 512 tokens, decoding of 32 from an empty cache (as llama-bench's pp512 and tg32), and CLIP-L/14-336 encoding one
 * picture.  Rows whose name begins with a NAME; all without.  Medians. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/parse.h"
#include "base/rng.h"
#include "kernel/blas.h"
#include "kernel/cpu.h"
#include "model/products.h"
#include "limits.h"

#define PROMPT 512u
#define DECODE 32u
#define GROUP  128u

static int threads = 2, runs = 5;

/* --- weights --- */

static void die(const char *what, const struct vq_err *err)
{
	fprintf(stderr, "model_bench: %s: %s\n", what, err ? err->text : "no memory");
	exit(4);
}

/* What the model at hand points to. */
static struct {
	void *p;
	size_t bytes;
} blocks[1024];
static uint32_t n_blocks;

/* Weights lie in pages of 2 MB, as after --load. */
static void *block(size_t bytes)
{
	const size_t page = (size_t)2 << 20;
	char *p = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	if (p == MAP_FAILED || n_blocks == sizeof(blocks) / sizeof(blocks[0]))
		die("weights", NULL);
	blocks[n_blocks].p = p;
	blocks[n_blocks++].bytes = bytes + page;
	p = (char *)(((uintptr_t)p + page - 1) / page * page);
	madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

static void drop_blocks(void)
{
	while (n_blocks > 0) {
		n_blocks--;
		munmap(blocks[n_blocks].p, blocks[n_blocks].bytes);
	}
}

/* Random bytes, each & keep | set. */
static void *noise(size_t bytes, uint64_t keep, uint64_t set)
{
	struct vq_rng r = vq_rng_new(1, "bench");
	uint64_t *p = block(bytes + 8);
	long long i;

#pragma omp parallel for schedule(static)
	for (i = 0; i < (long long)(bytes / 8 + 1); i++)
		p[i] = (vq_rng_u64(r, (uint64_t)i) & keep) | set;
	return p;
}

static float *ones(size_t n)
{
	float *p = block(n * sizeof(float));
	size_t i;

	for (i = 0; i < n; i++)
		p[i] = 1;
	return p;
}

/* Asymmetric codes in groups of 128. */
static struct vq_packed *packed(uint32_t bits, uint32_t n_out, uint32_t n_in)
{
	struct vq_packed *p = block(sizeof(*p));
	uint32_t n_groups = vq_ceil_div(n_in, GROUP);
	size_t n = vq_packed_n_scales(n_out, n_groups), i;
	uint16_t *scale = block(n * 2);
	uint8_t *zero = block(n);

	for (i = 0; i < n; i++) {
		scale[i] = vq_f32_to_f16(ldexpf(0.1f, -(int)bits));
		zero[i] = (uint8_t)(1u << (bits - 1));
	}
	*p = (struct vq_packed){
		.n_out = n_out,
		.n_in = n_in,
		.bits = bits,
		.group = GROUP,
		.n_groups = n_groups,
		.planes = noise(vq_packed_plane_bytes(bits, n_out, n_in), UINT64_MAX, 0),
		.scale = scale,
		.zero = zero};
	return p;
}

/* Float16 of magnitude 2^-7 to 2^-5 and either sign. */
static const void *halves(size_t n)
{
	return noise(2 * n, 0x87ff87ff87ff87ffu, 0x2000200020002000u);
}

/* bits 16: float weights. */
static void fill(struct vq_linear *l, uint32_t bits, uint32_t act_bits)
{
	if (!l->n_out)
		return;
	if (bits == 16) {
		l->dtype = VQ_F16;
		l->w = halves((size_t)l->n_out * l->n_in);
		return;
	}
	l->packed = packed(bits, l->n_out, l->n_in);
	l->act = (struct vq_agrid){.bits = act_bits, .group = GROUP, .clip = 1};
}

static void fill_layer(struct vq_layer *l, uint32_t bits, uint32_t act_bits)
{
	int i;

	l->norm1_w = l->norm2_w = ones(l->cfg->hidden);
	if (l->cfg->norm == VQ_NORM_LAYER)
		l->norm1_b = l->norm2_b = l->norm1_w;
	for (i = 0; i < VQ_N_LINEARS; i++) {
		fill(&l->lin[i], bits, act_bits);
		if (l->cfg->o_bias)
			l->lin[i].bias = ones(l->lin[i].n_out);
	}
}

static size_t linear_bytes(const struct vq_linear *l)
{
	const struct vq_packed *p = l->packed;

	if (!p)
		return 2 * (size_t)l->n_out * l->n_in;
	return vq_packed_plane_bytes(p->bits, p->n_out, p->n_in) +
	       3 * vq_packed_n_scales(p->n_out, p->n_groups);
}

/* --- models --- */

/* Multiplications and additions of the linears for a row, in 10^9, and bytes of weights that a row reads. */
struct cost {
	double giga, bytes;
};

static struct cost layers_cost(const struct vq_layer *l, uint32_t n)
{
	struct cost c = {0};
	uint32_t i, k;

	for (i = 0; i < n; i++)
		for (k = 0; k < VQ_N_LINEARS; k++) {
			c.giga += 2e-9 * l[i].lin[k].n_out * l[i].lin[k].n_in;
			c.bytes += (double)linear_bytes(&l[i].lin[k]);
		}
	return c;
}

static const struct shape {
	const char *name;
	uint32_t layers, hidden, inter, heads, kv_heads;
} shapes[] = {{"1b", 22, 2048, 5632, 32, 4}, {"7b", 32, 4096, 11008, 32, 32}};

static struct vq_config text_config(const struct shape *s)
{
	struct vq_config c = {.arch = "llama", .image_token = -1};

	c.decoder = (struct vq_decoder_config){.n_layers = s->layers,
					       .vocab = 32000,
					       .max_position = 2048,
					       .layer = {.hidden = s->hidden,
							 .inter = s->inter,
							 .n_heads = s->heads,
							 .n_kv_heads = s->kv_heads,
							 .head_dim = s->hidden / s->heads,
							 .norm = VQ_NORM_RMS,
							 .eps = 1e-5f,
							 .act = VQ_ACT_SILU,
							 .gated = 1,
							 .causal = 1,
							 .rope_theta = 10000}};
	return c;
}

/* CLIP-L/14-336 up to its last layer but one, and LLaVA's projector. */
static struct vq_config clip_config(const struct shape *s)
{
	struct vq_config c = text_config(s);

	c.has_vision = 1;
	c.n_image_tokens = 576;
	c.decoder.n_layers = 1;
	c.vision = (struct vq_vision_config){.n_layers = 23,
					     .image_size = 336,
					     .patch_size = 14,
					     .has_class = 1,
					     .pre_norm = 1,
					     .layer = {.hidden = 1024,
						       .inter = 4096,
						       .n_heads = 16,
						       .n_kv_heads = 16,
						       .head_dim = 64,
						       .norm = VQ_NORM_LAYER,
						       .eps = 1e-5f,
						       .act = VQ_ACT_QUICK_GELU,
						       .qkv_bias = 1,
						       .o_bias = 1,
						       .mlp_bias = 1}};
	c.projector = (struct vq_projector_config){
		.n_linears = 2, .in = 1024, .out = s->hidden, .act = VQ_ACT_GELU_ERF};
	return c;
}

static void new_model(struct vq_model *m, const struct vq_config *c)
{
	struct vq_err err = {0};

	if (vq_model_new(m, c, &err) < 0)
		die("model", &err);
}

/* --- rows --- */

struct row {
	const char *name;
	uint32_t bits, act_bits, head_bits;
	int prefill, decode, vision;
};

static const struct row rows[] = {
	{"W4A8", 4, 8, 16, 1, 1, 1},      {"W4A4", 4, 4, 16, 1, 0, 0},
	{"W4A8-head8", 4, 8, 8, 0, 1, 0}, {"W8A8", 8, 8, 16, 1, 1, 1},
	{"16-bit", 16, 16, 16, 1, 1, 1},
};

struct limits {
	double dpbusd, dpbf16, fma, huge, small;
};

/* What the products of a row are bound by. */
static double peak_of(const struct row *r, const struct limits *l)
{
	return r->bits < 16 ? l->dpbusd : isnan(l->dpbf16) ? l->fma : l->dpbf16;
}

static double prefill_seconds(const struct vq_model *m, void *kv)
{
	static int32_t tokens[PROMPT];
	const uint32_t start[2] = {0, PROMPT}, last = PROMPT - 1;
	const struct vq_batch batch = {1, start};
	uint32_t d = m->cfg.decoder.layer.hidden, i;
	float *h = vq_alloc_f32((size_t)PROMPT * d, NULL);
	float *logits = vq_alloc_f32(m->cfg.decoder.vocab, NULL);
	struct vq_err err = {0};
	double t0 = vq_now();

	if (!h || !logits)
		die("prefill", NULL);
	for (i = 0; i < PROMPT; i++)
		tokens[i] = (int32_t)(i * 61 % m->cfg.decoder.vocab);
	vq_kv_reset(kv);
	if (vq_decoder_embed(m, tokens, PROMPT, NULL, 0, h, &err) < 0 ||
	    vq_decoder_layers(m, h, &batch, kv, &err) < 0 ||
	    vq_decoder_logits(m, h, &last, 1, logits, &err) < 0)
		die("prefill", &err);
	t0 = vq_now() - t0;
	vq_free(h);
	vq_free(logits);
	return t0;
}

static double decode_seconds(const struct vq_model *m, void *kv)
{
	const uint32_t start[2] = {0, 1}, row = 0;
	const struct vq_batch batch = {1, start};
	float *h = vq_alloc_f32(m->cfg.decoder.layer.hidden, NULL);
	float *logits = vq_alloc_f32(m->cfg.decoder.vocab, NULL);
	struct vq_err err = {0};
	double t0 = vq_now();
	int32_t i;

	if (!h || !logits)
		die("decode", NULL);
	vq_kv_reset(kv);
	for (i = 0; i < (int32_t)DECODE; i++)
		if (vq_decoder_embed(m, &i, 1, NULL, 0, h, &err) < 0 ||
		    vq_decoder_layers(m, h, &batch, kv, &err) < 0 ||
		    vq_decoder_logits(m, h, &row, 1, logits, &err) < 0)
			die("decode", &err);
	t0 = vq_now() - t0;
	vq_free(h);
	vq_free(logits);
	return t0;
}

static double median_of(double (*f)(const struct vq_model *, void *), const struct vq_model *m,
			void *on)
{
	double t[32];
	int i;

	f(m, on);
	for (i = 0; i < runs; i++)
		t[i] = f(m, on);
	return limits_median(t, runs);
}

static void text_rows(const struct shape *s, const struct row *r, const struct limits *lim)
{
	struct vq_config cfg = text_config(s);
	const struct vq_layer_config *c = &cfg.decoder.layer;
	struct cost cost, head;
	struct vq_model m;
	struct vq_kv kv;
	double t, g, top = peak_of(r, lim);
	uint32_t i;

	new_model(&m, &cfg);
	if (r->bits == 16)
		vq_model_products(&m, VQ_GEMM_BF16);
	for (i = 0; i < cfg.decoder.n_layers; i++)
		fill_layer(&m.decoder.layers[i], r->bits, r->act_bits);
	fill(&m.decoder.head, r->head_bits, 8);
	m.decoder.embed = halves((size_t)cfg.decoder.vocab * c->hidden);
	m.decoder.embed_type = VQ_F16;
	m.decoder.norm = ones(c->hidden);
	if (vq_kv_new(&kv, cfg.decoder.n_layers, 1, PROMPT, c->n_kv_heads, c->head_dim, VQ_KV_F16,
		      NULL) < 0)
		die("cache", NULL);
	cost = layers_cost(m.decoder.layers, cfg.decoder.n_layers);
	head = (struct cost){2e-9 * cfg.decoder.vocab * c->hidden,
			     (double)linear_bytes(&m.decoder.head)};
	if (r->prefill) {
		t = median_of(prefill_seconds, &m, &kv);
		/* attention: two products, half of the square */
		g = cost.giga * PROMPT + head.giga +
		    2e-9 * PROMPT * PROMPT * c->n_heads * c->head_dim * cfg.decoder.n_layers;
		printf("%s\tprefill %u, %s\t%.1f tokens/s\t%.0f GOP/s\t%.0f %% of %.0f\n", s->name,
		       PROMPT, r->name, PROMPT / t, g / t, 100 * g / t / top, top);
	}
	if (r->decode) {
		t = median_of(decode_seconds, &m, &kv) / DECODE;
		g = (cost.bytes + head.bytes) / 1e9;
		printf("%s\tdecode %u, %s\t%.2f tokens/s\t%.1f GB/s\t%.0f %% of %.1f\n", s->name,
		       DECODE, r->name, 1 / t, g / t, 100 * g / t / lim->huge, lim->huge);
	}
	fflush(stdout);
	vq_kv_free(&kv);
	vq_model_free(&m);
	drop_blocks();
}

static double encode_seconds(const struct vq_model *m, void *pixels)
{
	size_t n = (size_t)m->cfg.n_image_tokens * m->cfg.projector.out;
	float *out = vq_alloc_f32(n, NULL);
	struct vq_err err = {0};
	double t0 = vq_now();

	if (!out || vq_vision_encode(m, pixels, 1, out, &err) < 0)
		die("encode", &err);
	t0 = vq_now() - t0;
	vq_free(out);
	return t0;
}

static void vision_row(const struct shape *s, const struct row *r, const struct limits *lim)
{
	struct vq_config cfg = clip_config(s);
	const uint32_t c = cfg.vision.layer.hidden, n_pos = vq_vision_positions(&cfg);
	const uint32_t side = cfg.vision.image_size, patch = cfg.vision.patch_size;
	struct vq_model m;
	struct cost cost;
	float *pixels = ones((size_t)3 * side * side);
	double t, g, top = peak_of(r, lim);
	uint32_t i;

	new_model(&m, &cfg);
	if (r->bits == 16)
		vq_model_products(&m, VQ_GEMM_BF16);
	for (i = 0; i < cfg.vision.n_layers; i++)
		fill_layer(&m.vision.layers[i], r->bits, r->act_bits);
	for (i = 0; i < 2; i++)
		fill(&m.projector.fc[i], r->bits, r->act_bits);
	m.vision.class_embed = m.vision.pre_w = m.vision.pre_b = ones(c);
	m.vision.position = ones((size_t)n_pos * c);
	m.vision.patch_w = ones((size_t)c * 3 * patch * patch);
	cost = layers_cost(m.vision.layers, cfg.vision.n_layers);
	t = median_of(encode_seconds, &m, pixels);
	g = cost.giga * n_pos + 4e-9 * n_pos * n_pos * c * cfg.vision.n_layers +
	    2e-9 * cfg.n_image_tokens *
		    ((double)c * s->hidden + (double)s->hidden * s->hidden +
		     3.0 * patch * patch * c);
	printf("CLIP-L\tencode %u x %u, %s\t%.3f s\t%.0f GOP/s\t%.0f %% of %.0f\n", side, side,
	       r->name, t, g / t, 100 * g / t / top, top);
	fflush(stdout);
	vq_model_free(&m);
	drop_blocks();
}

static int wanted(const char *kind, const struct row *r, int n, char **names)
{
	char name[64];
	int i;

	snprintf(name, sizeof(name), "%s-%s", kind, r->name);
	for (i = 0; i < n; i++)
		if (strncmp(name, names[i], strlen(names[i])) == 0)
			return 1;
	return n == 0;
}

int main(int argc, char **argv)
{
	const struct shape *s = &shapes[0];
	struct limits lim;
	uint32_t n;
	size_t i;
	int o;

	while ((o = getopt(argc, argv, "s:r:t:")) != -1)
		if (o == 's' && strcmp(optarg, "7b") == 0)
			s = &shapes[1];
		else if (o == 'r' && vq_parse_u32(&n, optarg, 1, 32) == VQ_OK)
			runs = (int)n;
		else if (o == 't' && vq_parse_u32(&n, optarg, 1, 64) == VQ_OK)
			threads = (int)n;
		else if (o != 's' || strcmp(optarg, "1b") != 0)
			return 2;
	vq_threads_setup((uint32_t)threads);
	vq_mem_keep_freed();
	lim = (struct limits){limits_peak(LIMITS_DPBUSD, threads),
			      limits_peak(LIMITS_DPBF16, threads), limits_peak(LIMITS_FMA, threads),
			      limits_bandwidth(1, threads), limits_bandwidth(0, threads)};
	printf("kernels %s, %d threads; peaks: vpdpbusd %.0f GOP/s, vdpbf16ps %.0f, FMA %.0f; "
	       "memory read: %.1f GB/s in 2 MB pages, %.1f in 4 KB pages\n",
	       vq_cpu_name(), threads, lim.dpbusd, lim.dpbf16, lim.fma, lim.huge, lim.small);
	argv += optind;
	argc -= optind;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];

		if (((r->prefill || r->decode) && wanted("text", r, argc, argv)))
			text_rows(s, r, &lim);
		if (r->vision && r->bits != 4 && wanted("vision", r, argc, argv))
			vision_row(s, r, &lim);
	}
	return 0;
}
