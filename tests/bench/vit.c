/* A real image classifier, ViT-Ti/16-224 of timm (Steiner et al., TMLR 2022), through the real tools: it goes into a
 * model stream as the vision tower in front of the smallest projector and decoder that are legal and never looked at.
 *
 *   vit stream DIR > X.vqs               the stream, with calibration pictures
 *   vit logits DIR [M.vqm] > L.vqs       logits of the judged pictures, in float32 or by a packed model
 *   vit compare L.vqs FLOAT.vqs          pictures, same top 1, mean and largest KL divergence, tab-separated
 *   vit golden DIR                       float32 logits of the photos beside golden_logits.safetensors
 *
 * DIR is vit-tiny of the public data.  Photos are few, so each is seen in several crops; those that calibrate and
 * those that are judged are different crops of the same photos. */
#include <dirent.h>
#include <math.h>

#include "base/num.h"
#include "base/sha256.h"
#include "format/safetensors.h"
#include "kernel/blas.h"
#include "kernel/gemm16.h"
#include "kernel/ops.h"
#include "quant/stats.h"
#include "real.h"
#include "task/eval.h"

#define SIDE    224u
#define WIDTH   192u
#define LAYERS  12u
#define CLASSES 1000u
#define EPS     1e-6f

/* --- pictures --- */

/* A photo scaled to a short edge, then a square from a place of it (0 the left or top, 1 the right or bottom). */
struct view {
	uint32_t edge;
	double x, y;
	int flip;
};

static const struct view golden[] = {{256, .5, .5, 0}};
static const struct view judged[] = {{256, .5, .5, 0}, {256, .5, .5, 1}, {288, 0, 0, 0},
				     {288, 1, 1, 0},   {288, 1, 0, 1},   {288, 0, 1, 1}};
static const struct view calibrating[] = {{240, .5, .5, 1}, {272, .25, .75, 0}, {304, .75, .25, 1}};

#define COUNT(a) ((uint32_t)(sizeof(a) / sizeof((a)[0])))

struct photos {
	char *name[64]; /* without .png */
	uint32_t n;
	float *pixels; /* [n * n_views, 3, SIDE, SIDE], the views of a photo together */
	size_t n_images;
};

#define PIXELS ((size_t)3 * SIDE * SIDE)

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void find_photos(struct photos *p, const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	if (!d)
		must(vq_fail_errno(&err, VQ_E_SYS, "%s: cannot open", dir));
	while ((e = readdir(d))) {
		char *dot = strrchr(e->d_name, '.');

		if (!dot || strcmp(dot, ".png") != 0 || p->n == COUNT(p->name))
			continue;
		*dot = '\0';
		p->name[p->n++] = got(vq_strdup(e->d_name, &err));
	}
	closedir(d);
	if (!p->n)
		bad(dir, "want photos");
	qsort(p->name, p->n, sizeof(*p->name), by_name);
}

/* Pixels from -1 to 1, as the model was trained. */
static void look(const struct vq_image *im, const struct view *v, float *out)
{
	double scale = (double)v->edge / (im->w < im->h ? im->w : im->h);
	uint32_t w = (uint32_t)lrint(im->w * scale), h = (uint32_t)lrint(im->h * scale);
	uint32_t x0 = (uint32_t)((w - SIDE) * v->x), y0 = (uint32_t)((h - SIDE) * v->y);
	struct vq_image r;
	uint32_t x, y, c;

	must(vq_image_resize(im, w, h, VQ_FILTER_BICUBIC, &r, &err));
	for (c = 0; c < 3; c++)
		for (y = 0; y < SIDE; y++)
			for (x = 0; x < SIDE; x++) {
				uint32_t from = x0 + (v->flip ? SIDE - 1 - x : x);
				uint8_t u = r.rgb[((size_t)(y0 + y) * w + from) * 3 + c];

				*out++ = (float)((double)u / 255 * 2 - 1);
			}
	vq_image_free(&r);
}

static void photos_open(struct photos *p, const char *dir, const struct view *v, uint32_t n_views)
{
	char *folder = got(vq_path_join(dir, "photos", &err));
	uint32_t i, k;

	memset(p, 0, sizeof(*p));
	find_photos(p, folder);
	p->n_images = (size_t)p->n * n_views;
	p->pixels = got(vq_alloc_f32(p->n_images * PIXELS, &err));
	for (i = 0; i < p->n; i++) {
		struct vq_image im;
		char path[4096];

		snprintf(path, sizeof(path), "%s/%s.png", folder, p->name[i]);
		must(vq_image_read(&im, path, VQ_E_DATA, &err));
		for (k = 0; k < n_views; k++)
			look(&im, &v[k], p->pixels + (i * n_views + k) * PIXELS);
		vq_image_free(&im);
	}
	vq_free(folder);
}

static void photos_close(struct photos *p)
{
	uint32_t i;

	for (i = 0; i < p->n; i++)
		vq_free(p->name[i]);
	vq_free(p->pixels);
}

/* --- weights --- */

struct vit {
	struct real r;
	struct vq_st st;
	float norm_w[WIDTH], norm_b[WIDTH], head_w[CLASSES * WIDTH], head_b[CLASSES];
};

static void config(struct vq_config *c)
{
	memset(c, 0, sizeof(*c));
	snprintf(c->arch, sizeof(c->arch), "llava");
	c->has_vision = 1;
	c->vision = (struct vq_vision_config){.n_layers = LAYERS,
					      .image_size = SIDE,
					      .patch_size = 16,
					      .has_class = 1,
					      .keep_class = 1};
	c->vision.layer = (struct vq_layer_config){.hidden = WIDTH,
						   .inter = 4 * WIDTH,
						   .n_heads = 3,
						   .n_kv_heads = 3,
						   .head_dim = 64,
						   .norm = VQ_NORM_LAYER,
						   .eps = EPS,
						   .act = VQ_ACT_GELU_ERF,
						   .qkv_bias = 1,
						   .o_bias = 1,
						   .mlp_bias = 1};
	/* The rest is legal and small. */
	c->projector = (struct vq_projector_config){1, WIDTH, 8, VQ_ACT_GELU_ERF, 0, 0};
	c->decoder = (struct vq_decoder_config){
		.n_layers = 1, .vocab = 2, .max_position = 256, .tied = 1};
	c->decoder.layer = (struct vq_layer_config){.hidden = 8,
						    .inter = 8,
						    .n_heads = 1,
						    .n_kv_heads = 1,
						    .head_dim = 8,
						    .norm = VQ_NORM_RMS,
						    .eps = EPS,
						    .act = VQ_ACT_SILU,
						    .causal = 1};
	c->bos = c->eos = c->pad = -1;
	c->n_image_tokens = vq_vision_positions(c);
	c->chat = vq_chat_by_name("llava-hf");
	must(vq_preproc_parse(&c->preproc, NULL, SIDE, "vit", &err));
}

/* Elements [first, first + n) of a tensor of the file. */
static void read_part(const struct vq_st *st, const char *name, size_t first, size_t n, float *out)
{
	const struct vq_tensor *t = vq_st_find(st, name);
	size_t count = 0;

	if (!t || vq_tensor_count(t, &count) < 0 || first + n > count)
		bad(st->path, name);
	must(vq_tensor_to_f32(t, first, n, out, &err));
}

static void read_whole(const struct vit *v, const char *ours, const char *theirs, size_t first)
{
	size_t n;
	float *to = real_at(&v->r, ours, &n);

	read_part(&v->st, theirs, first, n, to);
}

static void read_block(const struct vit *v, uint32_t i)
{
	static const char *const pairs[][2] = {{"norm1", "norm1"},
					       {"o_proj", "attn_proj"},
					       {"norm2", "norm2"},
					       {"up_proj", "mlp_fc1"},
					       {"down_proj", "mlp_fc2"}};
	static const char *const qkv[] = {"q_proj", "k_proj", "v_proj"};
	static const char *const leaves[] = {"weight", "bias"};
	char ours[64], theirs[64];
	uint32_t k, l;

	for (l = 0; l < 2; l++) {
		for (k = 0; k < COUNT(pairs); k++) {
			snprintf(ours, sizeof(ours), "vision.layers.%u.%s.%s", i, pairs[k][0],
				 leaves[l]);
			snprintf(theirs, sizeof(theirs), "blocks_%u_%s_%s", i, pairs[k][1],
				 leaves[l]);
			read_whole(v, ours, theirs, 0);
		}
		for (k = 0; k < 3; k++) {
			snprintf(ours, sizeof(ours), "vision.layers.%u.%s.%s", i, qkv[k],
				 leaves[l]);
			snprintf(theirs, sizeof(theirs), "blocks_%u_attn_qkv_%s", i, leaves[l]);
			read_whole(v, ours, theirs, (size_t)k * WIDTH * (l == 0 ? WIDTH : 1));
		}
	}
}

/* Canonical names have no bias of the patches: it is a part of every patch's position. */
static void fold_patch_bias(const struct vit *v)
{
	float b[WIDTH], *p;
	size_t n, i;

	read_part(&v->st, "patch_embed_proj_bias", 0, WIDTH, b);
	p = real_at(&v->r, "vision.position_embed", &n);
	for (i = WIDTH; i < n; i++)
		p[i] += b[i % WIDTH];
}

static void ones(const struct vit *v, const char *name)
{
	size_t n, i;
	float *p = real_at(&v->r, name, &n);

	for (i = 0; i < n; i++)
		p[i] = 1;
}

static void vit_open(struct vit *v, const char *dir)
{
	char *path = got(vq_path_join(dir, "model.safetensors", &err));
	struct vq_config c;
	uint32_t i;

	config(&c);
	real_new(&v->r, &c);
	must(vq_st_open(&v->st, path, VQ_E_SYS, &err));
	read_whole(v, "vision.class_embed", "cls_token", 0);
	read_whole(v, "vision.patch_embed.weight", "patch_embed_proj_weight", 0);
	read_whole(v, "vision.position_embed", "pos_embed", 0);
	fold_patch_bias(v);
	for (i = 0; i < LAYERS; i++)
		read_block(v, i);
	ones(v, "decoder.norm.weight");
	ones(v, "decoder.layers.0.norm1.weight");
	ones(v, "decoder.layers.0.norm2.weight");
	read_part(&v->st, "norm_weight", 0, WIDTH, v->norm_w);
	read_part(&v->st, "norm_bias", 0, WIDTH, v->norm_b);
	read_part(&v->st, "head_weight", 0, COUNT(v->head_w), v->head_w);
	read_part(&v->st, "head_bias", 0, CLASSES, v->head_b);
	vq_free(path);
}

static void vit_close(struct vit *v)
{
	vq_st_close(&v->st);
	real_free(&v->r);
}

/* --- running --- */

/* logits [n, CLASSES] of a few pictures: tower, final norm of the class token, classifier. */
static void classify_some(const struct vit *v, const struct vq_model *m, const float *pixels,
			  uint32_t n, float *logits)
{
	uint32_t pos = vq_vision_positions(&m->cfg), start[16], i;
	struct vq_batch b = {n, start};
	float *h = got(vq_alloc_f32((size_t)n * pos * WIDTH, &err)), cls[15 * WIDTH];

	for (i = 0; i <= n; i++)
		start[i] = i * pos;
	must(vq_vision_embed(m, pixels, n, h, &err));
	for (i = 0; i < LAYERS; i++)
		must(vq_layer_forward(&m->vision.layers[i], h, &b, NULL, &err));
	for (i = 0; i < n; i++)
		memcpy(cls + i * WIDTH, h + (size_t)i * pos * WIDTH, WIDTH * sizeof(float));
	vq_layernorm(cls, n, WIDTH, v->norm_w, v->norm_b, EPS, cls);
	must(vq_gemm(cls, n, v->head_w, VQ_F32, CLASSES, WIDTH, v->head_b, logits, &err));
	vq_free(h);
}

static float *classify(const struct vit *v, const struct vq_model *m, const struct photos *p)
{
	float *logits = got(vq_alloc_f32(p->n_images * CLASSES, &err));
	const uint32_t most = 8;
	size_t i;

	for (i = 0; i < p->n_images; i += most) {
		uint32_t n = p->n_images - i < most ? (uint32_t)(p->n_images - i) : most;

		classify_some(v, m, p->pixels + i * PIXELS, n, logits + i * CLASSES);
	}
	return logits;
}

/* --- the four commands --- */

static void put_stream(const char *dir)
{
	struct vit v;
	struct photos p;
	uint32_t tokens = 0, i;
	int32_t *image;
	struct sha256_ctx sum;
	struct vq_writer *w;

	vit_open(&v, dir);
	tokens = v.r.cfg.n_image_tokens;
	image = got(vq_calloc(tokens, sizeof(*image), &err)); /* the image token is 0 */
	photos_open(&p, dir, calibrating, COUNT(calibrating));
	w = stream_open("vit", "vit-tiny", v.st.path);
	sha256_init(&sum);
	sha256_update(&sum, p.n_images * PIXELS * sizeof(float), (const uint8_t *)p.pixels);
	stream_meta(w, &v.r.cfg, (uint32_t)p.n_images, p.n_images * tokens, &sum);
	for (i = 0; i < p.n_images; i++) {
		struct vq_tensor t = {VQ_I32, 1, {tokens}, image};
		struct vq_tensor x = {VQ_F32, 4, {1, 3, SIDE, SIDE}, p.pixels + i * PIXELS};

		stream_input(w, i, "tokens", &t);
		stream_input(w, i, "pixels", &x);
	}
	stream_close(w, &v.r);
	vq_free(image);
	photos_close(&p);
	vit_close(&v);
}

static void put_logits(const char *dir, const char *vqm)
{
	struct vit v;
	struct photos p;
	struct runner x;
	struct vq_writer *w;
	float *logits;
	size_t i;

	vit_open(&v, dir);
	photos_open(&p, dir, judged, COUNT(judged));
	runner_open(&x, &v.r, vqm);
	logits = classify(&v, &x.m, &p);
	w = stream_open("vit", "vit-tiny", vqm ? vqm : v.st.path);
	for (i = 0; i < p.n_images; i++) {
		struct vq_tensor t = {VQ_F32, 1, {CLASSES}, logits + i * CLASSES};
		char name[300];

		snprintf(name, sizeof(name), "logits/%s/%zu", p.name[i / COUNT(judged)],
			 i % COUNT(judged));
		must(vq_writer_put_tensor(w, VQ_KIND_TENSOR, name, &t, NULL, &err));
	}
	must(vq_writer_end(w, &err));
	vq_writer_close(w);
	vq_free(logits);
	runner_close(&x);
	photos_close(&p);
	vit_close(&v);
}

static void compare(const char *run, const char *base)
{
	struct vq_eval_logits d;

	must(vq_eval_logits(&d, run, base, &err));
	printf("%u\t%u\t%.5f\t%.5f\n", d.n, d.same_top, d.kl_mean, d.kl_max);
}

static void put_golden(const char *dir)
{
	char *path = got(vq_path_join(dir, "golden_logits.safetensors", &err));
	struct vit v;
	struct photos p;
	struct runner x;
	struct vq_st want;
	float *logits, w[CLASSES];
	uint32_t i, k, same = 0;
	double worst = 0;

	vit_open(&v, dir);
	photos_open(&p, dir, golden, COUNT(golden));
	runner_open(&x, &v.r, NULL);
	logits = classify(&v, &x.m, &p);
	must(vq_st_open(&want, path, VQ_E_SYS, &err));
	for (i = 0; i < p.n; i++) {
		const float *l = logits + (size_t)i * CLASSES;

		read_part(&want, p.name[i], 0, CLASSES, w);
		for (k = 0; k < CLASSES; k++)
			worst = fmax(worst, fabs((double)l[k] - (double)w[k]));
		same += vq_argmax_f32(l, CLASSES) == vq_argmax_f32(w, CLASSES);
	}
	printf("%u\t%u\t%.2e\n", p.n, same, worst);
	vq_st_close(&want);
	vq_free(logits);
	runner_close(&x);
	photos_close(&p);
	vit_close(&v);
	vq_free(path);
}

int main(int argc, char **argv)
{
	vq_log_setup("vit", 1);
	vq_threads_setup(0);
	if (argc == 3 && strcmp(argv[1], "stream") == 0)
		put_stream(argv[2]);
	else if (argc == 3 && strcmp(argv[1], "golden") == 0)
		put_golden(argv[2]);
	else if ((argc == 3 || argc == 4) && strcmp(argv[1], "logits") == 0)
		put_logits(argv[2], argv[3]);
	else if (argc == 4 && strcmp(argv[1], "compare") == 0)
		compare(argv[2], argv[3]);
	else {
		fputs("usage: vit stream DIR | logits DIR [M.vqm] | compare L.vqs FLOAT.vqs | "
		      "golden DIR\n",
		      stderr);
		return 2;
	}
	return 0;
}
