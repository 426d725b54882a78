/* make_ckpt [options] SHAPE DIR: a llava-hf (or plain LLaMA) checkpoint with random float16 weights at any
 * shape, as sharded safetensors, for measuring memory and time.  It never holds more than one block of
 * random numbers: every megabyte of a tensor is a stretch of that block from a random place. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/parse.h"
#include "base/rng.h"
#include "model/names.h"

#define BLOCK ((size_t)8 << 20) /* values in the random block */
#define CHUNK ((size_t)1 << 19) /* values written from one place of it */

static struct shape {
	const char *name;
	uint32_t layers, hidden, inter, heads, kv_heads, vocab;
	uint32_t v_layers, v_hidden, v_inter, v_heads, image, patch;
} shapes[] = {
	{"tiny", 2, 128, 256, 4, 2, 1024, 3, 64, 128, 2, 56, 14},
	{"1b", 22, 2048, 5632, 32, 4, 32000, 24, 1024, 4096, 16, 336, 14},
	{"7b", 32, 4096, 11008, 32, 32, 32064, 24, 1024, 4096, 16, 336, 14},
	{"13b", 40, 5120, 13824, 40, 40, 32064, 24, 1024, 4096, 16, 336, 14},
};

static struct {
	const char *dir, *tokenizer;
	uint32_t spelling, shard_mb;
	uint64_t seed;
	int text_only, tied;
	struct shape s;
} opt = {.tokenizer = "pipelines/demo/mini-llava", .shard_mb = 2000};

/* A tensor to be written, under the checkpoint's name. */
struct item {
	char name[128];
	uint32_t n_dims;
	uint64_t dims[4];
	size_t bytes;
	float fill; /* NAN: random */
	uint32_t shard;
};

static const char usage_text[] =
	"usage: make_ckpt [options] tiny|1b|7b|13b DIR\n"
	"  --layers N --hidden N --inter N --heads N --kv-heads N --vocab N\n"
	"  --vision-layers N --vision-hidden N --vision-inter N --vision-heads N --image N --patch "
	"N\n"
	"  --text-only        a plain LLaMA folder\n"
	"  --tied             no lm_head; the embedding is the head\n"
	"  --spelling 0|1     tensor names: llava-hf (0), transformers 4.52 and later (1)\n"
	"  --shard-mb N       at most N megabytes a shard; one file when all fits (default 2000)\n"
	"  --tokenizer DIR    where tokenizer files come from (default pipelines/demo/mini-llava)\n"
	"  --seed N\n";

static int usage(void)
{
	fputs(usage_text, stderr);
	return 2;
}

static int parse_args(int argc, char **argv)
{
	static const struct option longs[] = {{"layers", 1, 0, 1},
					      {"hidden", 1, 0, 2},
					      {"inter", 1, 0, 3},
					      {"heads", 1, 0, 4},
					      {"kv-heads", 1, 0, 5},
					      {"vocab", 1, 0, 6},
					      {"vision-layers", 1, 0, 7},
					      {"vision-hidden", 1, 0, 8},
					      {"vision-inter", 1, 0, 9},
					      {"vision-heads", 1, 0, 10},
					      {"image", 1, 0, 11},
					      {"patch", 1, 0, 12},
					      {"shard-mb", 1, 0, 13},
					      {"spelling", 1, 0, 14},
					      {"tokenizer", 1, 0, 15},
					      {"seed", 1, 0, 16},
					      {"text-only", 0, 0, 17},
					      {"tied", 0, 0, 18},
					      {0}};
	uint32_t set[13] = {0}, *dst;
	size_t i;
	int o;

	while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (o >= 1 && o <= 12 && vq_parse_u32(&set[o], optarg, 1, 1u << 20) == VQ_OK)
			continue;
		if (o == 13 && vq_parse_u32(&opt.shard_mb, optarg, 1, 1u << 20) == VQ_OK)
			continue;
		if (o == 14 && vq_parse_u32(&opt.spelling, optarg, 0, 1) == VQ_OK)
			continue;
		if (o == 16 && vq_parse_u64(&opt.seed, optarg, 0, UINT64_MAX) == VQ_OK)
			continue;
		if (o == 15)
			opt.tokenizer = optarg;
		else if (o == 17)
			opt.text_only = 1;
		else if (o == 18)
			opt.tied = 1;
		else
			return usage();
	}
	if (argc - optind != 2)
		return usage();
	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (strcmp(shapes[i].name, argv[optind]) == 0)
			opt.s = shapes[i];
	if (!opt.s.name)
		return usage();
	opt.dir = argv[optind + 1];
	dst = &opt.s.layers; /* the options stand in the order of the fields */
	for (i = 1; i <= 12; i++)
		if (set[i])
			dst[i - 1] = set[i];
	return 0;
}

/* Enough of a configuration for vq_names_list, with every vision layer, also the last that does not run. */
static void fill_config(struct vq_config *c)
{
	const struct shape *s = &opt.s;

	memset(c, 0, sizeof(*c));
	c->has_vision = !opt.text_only;
	c->decoder = (struct vq_decoder_config){.n_layers = s->layers, .vocab = s->vocab};
	c->decoder.tied = opt.tied;
	c->decoder.layer = (struct vq_layer_config){.hidden = s->hidden,
						    .inter = s->inter,
						    .n_heads = s->heads,
						    .n_kv_heads = s->kv_heads,
						    .head_dim = s->hidden / s->heads,
						    .norm = VQ_NORM_RMS,
						    .gated = 1};
	c->vision = (struct vq_vision_config){.n_layers = s->v_layers,
					      .image_size = s->image,
					      .patch_size = s->patch,
					      .has_class = 1,
					      .pre_norm = 1};
	c->vision.layer = (struct vq_layer_config){.hidden = s->v_hidden,
						   .inter = s->v_inter,
						   .n_heads = s->v_heads,
						   .n_kv_heads = s->v_heads,
						   .head_dim = s->v_hidden / s->v_heads,
						   .norm = VQ_NORM_LAYER,
						   .qkv_bias = 1,
						   .o_bias = 1,
						   .mlp_bias = 1};
	c->projector = (struct vq_projector_config){
		.n_linears = 2, .in = s->v_hidden, .out = s->hidden, .bias = 1};
}

static int set_item(struct item *it, const struct vq_name *n, struct vq_err *err)
{
	struct vq_tensor t = {.dtype = VQ_F16, .n_dims = n->n_dims};
	size_t count;
	unsigned spelling = opt.text_only ? 2 : opt.spelling;

	if (!vq_names_spell(n->name, spelling, it->name, sizeof(it->name)) &&
	    !vq_names_spell(n->name, 1, it->name, sizeof(it->name)))
		return vq_fail(err, VQ_E_DATA, "no spelling of '%s'", n->name);
	it->n_dims = n->n_dims;
	memcpy(it->dims, n->dims, sizeof(it->dims));
	memcpy(t.dims, n->dims, sizeof(n->dims));
	if (vq_tensor_count(&t, &count) < 0 || vq_mul_size(&it->bytes, count, 2) < 0)
		return vq_fail(err, VQ_E_DATA, "'%s' is too large", n->name);
	it->fill = (float)__builtin_nan("");
	if (n->n_dims == 1 && strstr(n->name, "norm"))
		it->fill = strstr(n->name, "weight") ? 1 : 0;
	else if (n->n_dims == 1 && strstr(n->name, ".bias"))
		it->fill = 0;
	return VQ_OK;
}

/* The tensors in stream order, cut into shards; *total their bytes. */
static int make_items(struct item **out, size_t *n_out, uint32_t *n_shards, uint64_t *total,
		      struct vq_err *err)
{
	struct vq_config c;
	struct vq_name *names = NULL;
	struct item *items = NULL;
	const uint64_t limit = (uint64_t)opt.shard_mb * 1000000;
	uint64_t in_shard = 0;
	size_t n = 0, i;
	int rc;

	fill_config(&c);
	rc = vq_names_list(&c, &names, &n, err);
	if (rc < 0)
		return rc;
	items = vq_calloc(n, sizeof(*items), err);
	if (!items)
		rc = VQ_E_SYS;
	*total = 0;
	*n_shards = 1;
	for (i = 0; rc == VQ_OK && i < n; i++) {
		rc = set_item(&items[i], &names[i], err);
		if (in_shard > 0 && in_shard + items[i].bytes > limit) {
			++*n_shards;
			in_shard = 0;
		}
		items[i].shard = *n_shards - 1;
		in_shard += items[i].bytes;
		*total += items[i].bytes;
	}
	vq_free(names);
	*out = items;
	*n_out = n;
	return rc;
}

static void shard_name(char *buf, size_t room, uint32_t i, uint32_t n)
{
	if (n == 1)
		snprintf(buf, room, "model.safetensors");
	else
		snprintf(buf, room, "model-%05u-of-%05u.safetensors", i + 1, n);
}

/* Normal values of standard deviation 0.02, which is how transformers initialises. */
static uint16_t *random_block(struct vq_err *err)
{
	uint16_t *b = vq_alloc(BLOCK, sizeof(*b), err);
	struct vq_rng r = vq_rng_new(opt.seed, "make_ckpt");
	size_t i;

	if (!b)
		return NULL;
#pragma omp parallel for
	for (i = 0; i < BLOCK; i++)
		b[i] = vq_f32_to_f16((float)(0.02 * vq_rng_normal(r, i)));
	return b;
}

static int write_item(int fd, const struct item *it, uint64_t *chunk, const uint16_t *block,
		      const char *label, struct vq_err *err)
{
	struct vq_rng r = vq_rng_new(opt.seed, "place");
	uint16_t same[512];
	size_t left = it->bytes / 2, i;

	for (i = 0; i < 512; i++)
		same[i] = vq_f32_to_f16(it->fill);
	while (left > 0) {
		int constant = it->fill == it->fill;
		size_t n = constant ? 512 : CHUNK;
		const uint16_t *from =
			constant ? same : block + vq_rng_u64(r, (*chunk)++) % (BLOCK - CHUNK);
		int rc;

		n = n < left ? n : left;
		rc = vq_write_full(fd, from, n * 2, label, err);
		if (rc < 0)
			return rc;
		left -= n;
	}
	return VQ_OK;
}

static char *shard_header(const struct item *items, size_t n, uint32_t shard)
{
	json_t *h = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
	uint64_t at = 0;
	size_t i;
	uint32_t d;
	char *text;

	for (i = 0; i < n; i++) {
		json_t *shape = json_array();

		if (items[i].shard != shard) {
			json_decref(shape);
			continue;
		}
		for (d = 0; d < items[i].n_dims; d++)
			json_array_append_new(shape, json_integer((json_int_t)items[i].dims[d]));
		json_object_set_new(h, items[i].name,
				    json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F16", "shape",
					      shape, "data_offsets", (json_int_t)at,
					      (json_int_t)(at + items[i].bytes)));
		at += items[i].bytes;
	}
	text = json_dumps(h, JSON_COMPACT);
	json_decref(h);
	return text;
}

static int write_shard(const struct item *items, size_t n, uint32_t shard, uint32_t n_shards,
		       uint64_t *chunk, const uint16_t *block, struct vq_progress *p,
		       struct vq_err *err)
{
	char name[64], *path, *header = shard_header(items, n, shard);
	size_t len = strlen(header), padded = (len + 7) / 8 * 8, i;
	uint8_t size[8];
	int rc, fd;

	shard_name(name, sizeof(name), shard, n_shards);
	path = vq_path_join(opt.dir, name, err);
	fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
	if (fd < 0) {
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot create", name);
		goto out;
	}
	for (i = 0; i < 8; i++)
		size[i] = (uint8_t)(padded >> (8 * i));
	rc = vq_write_full(fd, size, 8, path, err);
	if (rc == VQ_OK)
		rc = vq_write_full(fd, header, len, path, err);
	if (rc == VQ_OK)
		rc = vq_write_full(fd, "       ", padded - len, path, err);
	for (i = 0; rc == VQ_OK && i < n; i++)
		if (items[i].shard == shard) {
			rc = write_item(fd, &items[i], chunk, block, path, err);
			vq_progress_step(p, p->done + items[i].bytes);
		}
	if (close(fd) < 0 && rc == VQ_OK)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot close", path);
out:
	free(header);
	vq_free(path);
	return rc;
}

static int put_json(const char *name, json_t *j, struct vq_err *err)
{
	char *path = vq_path_join(opt.dir, name, err);
	int rc = VQ_OK;

	if (!path || !j || json_dump_file(j, path, JSON_INDENT(2)) < 0)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot write", name);
	vq_free(path);
	json_decref(j);
	return rc;
}

static int put_index(const struct item *items, size_t n, uint32_t n_shards, uint64_t total,
		     struct vq_err *err)
{
	json_t *map = json_object();
	char name[64];
	size_t i;

	for (i = 0; i < n; i++) {
		shard_name(name, sizeof(name), items[i].shard, n_shards);
		json_object_set_new(map, items[i].name, json_string(name));
	}
	return put_json("model.safetensors.index.json",
			json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total,
				  "weight_map", map),
			err);
}

static json_t *decoder_json(void)
{
	const struct shape *s = &opt.s;

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:s, s:b, s:s}",
			 "model_type", "llama", "hidden_size", (json_int_t)s->hidden,
			 "intermediate_size", (json_int_t)s->inter, "num_hidden_layers",
			 (json_int_t)s->layers, "num_attention_heads", (json_int_t)s->heads,
			 "num_key_value_heads", (json_int_t)s->kv_heads, "vocab_size",
			 (json_int_t)s->vocab, "max_position_embeddings", (json_int_t)4096,
			 "rms_norm_eps", 1e-5, "rope_theta", 10000.0, "torch_dtype", "float16",
			 "tie_word_embeddings", opt.tied, "hidden_act", "silu");
}

/* config.json.  src: the tokenizer folder's, for the ids of <image> and <pad>. */
static json_t *config_json(const json_t *src)
{
	const struct shape *s = &opt.s;
	json_t *image = json_object_get(src, "image_token_index"), *c, *vision;
	json_t *pad = json_object_get(src, "pad_token_id");

	if (opt.text_only) {
		c = decoder_json();
		json_object_set_new(c, "architectures", json_pack("[s]", "LlamaForCausalLM"));
		return c;
	}
	vision = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "model_type", "clip_vision_model",
			   "hidden_size", (json_int_t)s->v_hidden, "intermediate_size",
			   (json_int_t)s->v_inter, "num_hidden_layers", (json_int_t)s->v_layers,
			   "num_attention_heads", (json_int_t)s->v_heads, "image_size",
			   (json_int_t)s->image, "patch_size", (json_int_t)s->patch);
	c = json_pack("{s:[s], s:s, s:s, s:i, s:s, s:o, s:o}", "architectures",
		      "LlavaForConditionalGeneration", "model_type", "llava", "torch_dtype",
		      "float16", "vision_feature_layer", -2, "projector_hidden_act", "gelu",
		      "text_config", decoder_json(), "vision_config", vision);
	json_object_set_new(c, "tie_word_embeddings", json_boolean(opt.tied));
	if (image)
		json_object_set(c, "image_token_index", image);
	if (pad)
		json_object_set(c, "pad_token_id", pad);
	return c;
}

static int copy_file(const char *name, struct vq_err *err)
{
	char *from = vq_path_join(opt.tokenizer, name, err), *data = NULL;
	char *to = vq_path_join(opt.dir, name, err);
	struct vq_output o;
	size_t n = 0;
	int rc = VQ_OK;

	if (!from || !to) {
		rc = VQ_E_SYS;
	} else if (vq_path_exists(from)) {
		rc = vq_file_read(from, (size_t)1 << 28, VQ_E_SYS, &data, &n, err);
		if (rc == VQ_OK)
			rc = vq_output_open(&o, to, err);
		if (rc == VQ_OK) {
			rc = vq_write_full(o.fd, data, n, to, err);
			if (rc == VQ_OK)
				rc = vq_output_commit(&o, err);
			else
				vq_output_abort(&o, 0);
		}
	}
	vq_free(data);
	vq_free(from);
	vq_free(to);
	return rc;
}

static int side_files(struct vq_err *err)
{
	static const char *const files[] = {"tokenizer.json",          "tokenizer.model",
					    "tokenizer_config.json",   "added_tokens.json",
					    "special_tokens_map.json", "generation_config.json"};
	char *path = vq_path_join(opt.tokenizer, "config.json", err);
	json_t *src = path ? vq_json_file(path, VQ_E_SYS, err) : NULL;
	int rc = src ? VQ_OK : VQ_E_SYS;
	size_t i;

	for (i = 0; rc == VQ_OK && i < sizeof(files) / sizeof(files[0]); i++)
		rc = copy_file(files[i], err);
	if (rc == VQ_OK)
		rc = put_json("config.json", config_json(src), err);
	if (rc == VQ_OK && !opt.text_only)
		rc = put_json("preprocessor_config.json",
			      json_pack("{s:s, s:{s:I}, s:i, s:{s:I, s:I}}", "image_processor_type",
					"CLIPImageProcessor", "size", "shortest_edge",
					(json_int_t)opt.s.image, "resample", 3, "crop_size",
					"height", (json_int_t)opt.s.image, "width",
					(json_int_t)opt.s.image),
			      err);
	json_decref(src);
	vq_free(path);
	return rc;
}

static int check_disk(uint64_t need, struct vq_err *err)
{
	struct statvfs fs;
	uint64_t room;

	if (mkdir(opt.dir, 0777) < 0 && errno != EEXIST)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot create", opt.dir);
	if (statvfs(opt.dir, &fs) < 0)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot ask for free space", opt.dir);
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (need + (64u << 20) > room)
		return vq_fail(err, VQ_E_SYS, "%s: want %.2f GB of free disk, got %.2f GB", opt.dir,
			       (double)need / 1e9, (double)room / 1e9);
	return VQ_OK;
}

static int run(struct vq_err *err)
{
	struct item *items = NULL;
	uint16_t *block = NULL;
	struct vq_progress p;
	uint32_t n_shards = 0, s;
	uint64_t total = 0, chunk = 0;
	double t0 = vq_now();
	size_t n = 0;
	int rc = make_items(&items, &n, &n_shards, &total, err);

	if (rc == VQ_OK)
		rc = check_disk(total, err);
	if (rc == VQ_OK)
		rc = side_files(err);
	if (rc == VQ_OK) {
		block = random_block(err);
		rc = block ? VQ_OK : VQ_E_SYS;
	}
	vq_progress_start(&p, "writing", total);
	for (s = 0; rc == VQ_OK && s < n_shards; s++)
		rc = write_shard(items, n, s, n_shards, &chunk, block, &p, err);
	vq_progress_end(&p);
	if (rc == VQ_OK && n_shards > 1)
		rc = put_index(items, n, n_shards, total, err);
	if (rc == VQ_OK)
		printf("%s: %zu tensors, %.3f GB, %u file%s, %.1f s\n", opt.dir, n,
		       (double)total / 1e9, n_shards, n_shards > 1 ? "s" : "", vq_now() - t0);
	vq_free(block);
	vq_free(items);
	return rc;
}

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	int rc = parse_args(argc, argv);

	if (rc != 0)
		return rc;
	vq_log_setup("make_ckpt", 1);
	rc = run(&err);
	if (rc < 0)
		fprintf(stderr, "make_ckpt: %s\n", err.text);
	return vq_exit_status(rc);
}
