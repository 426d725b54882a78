/* Opening a model in any of its forms. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "model/names.h"
#include "model/open.h"
#include "model/products.h"
#include "stream/history.h"
#include "task/infer_parts.h"
#include "task/model_head.h"

/* The last part of a path; "." and "dir/" have one too. */
static json_t *name_of(const char *path)
{
	char *full = realpath(path, NULL), *slash = full ? strrchr(full, '/') : NULL;
	json_t *name = json_string(slash && slash[1] ? slash + 1 : path);

	free(full);
	return name;
}

static int weigh(struct vq_loaded *l, const struct vq_config *c, struct vq_err *err)
{
	struct vq_name *names = NULL;
	struct vq_tensor t;
	size_t n = 0, i, count;
	int rc = vq_names_list(c, &names, &n, err);

	for (i = 0; rc >= 0 && i < n; i++) {
		rc = vq_names_find(c, l->ckpt, &names[i], &t, err);
		if (rc >= 0 && vq_tensor_count(&t, &count) == VQ_OK)
			l->weight_bytes += (uint64_t)count * vq_dtype_size(t.dtype);
	}
	vq_free(names);
	return rc;
}

/* --- how the weights are held --- */

/* Of a packed model; 0 for a pipe, which nobody asks. */
static uint64_t file_bytes(const char *path)
{
	struct stat st;
	int rc = strcmp(path, "-") == 0 ? fstat(STDIN_FILENO, &st) : stat(path, &st);

	return rc == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

/* Tokens from which a copy pays: a 7B model in 4 bits takes a second to copy, and from large pages each token comes a
 * tenth sooner, in 0.12 s. */
#define MANY_TOKENS 512u

/* 1 to load n bytes of weights, 0 to map them; says so in l->held. */
static int choose(struct vq_loaded *l, const struct vq_infer *o, uint32_t n_questions, uint64_t n,
		  struct vq_err *err)
{
	uint64_t tokens = (uint64_t)n_questions * vq_infer_max_tokens(o);
	uint64_t most = vq_mem_available();
	int load = o->hold == VQ_HOLD_LOAD, many = !o->score && tokens > MANY_TOKENS;

	if (load && n > most)
		return vq_fail(
			err, VQ_E_SYS,
			"memory: %s has %.1f GiB of weights, %.1f GiB are free; --map needs no "
			"copy",
			o->model, (double)n / (1 << 30), (double)most / (1 << 30));
	if (o->hold == VQ_HOLD_AUTO)
		load = many && n <= most / 2;
	snprintf(l->held, sizeof(l->held), "%s%s", load ? "loaded" : "mapped",
		 !load && many && o->hold == VQ_HOLD_AUTO ? " (memory is short)" : "");
	return load;
}

/* How much of a copy the system gave large pages. */
static void say_pages(struct vq_loaded *l)
{
	size_t at = strlen(l->held);

	snprintf(l->held + at, sizeof(l->held) - at, ", %.0f MiB of large pages",
		 (double)vq_mem_large() / (1 << 20));
}

static int keep(const struct vq_loaded *l, struct vq_err *err)
{
	const uint8_t *data;
	size_t n;

	if (l->ckpt)
		return vq_ckpt_lock(l->ckpt, err);
	data = vq_vqm_bytes(&l->vqm, &n);
	return vq_pages_lock(data, n, err);
}

/* --- the forms of a model --- */

static int open_ckpt(struct vq_loaded *l, const struct vq_infer *o, uint32_t n_questions,
		     struct vq_err *err)
{
	struct vq_config c;
	char hex[VQ_SHA256_HEX];
	const struct vq_open from = {o->model, o->vision, o->template, o->aspect, 0};
	int rc = vq_open_model(&l->ckpt, &c, &from, err);

	if (rc >= 0)
		rc = vq_model_tokenizer(&l->tok, &c, l->ckpt, err);
	if (rc >= 0)
		rc = vq_ckpt_identity(l->ckpt, hex, err);
	if (rc >= 0)
		rc = weigh(l, &c, err);
	if (rc >= 0)
		rc = choose(l, o, n_questions, l->weight_bytes, err);
	if (rc > 0)
		rc = vq_ckpt_load(l->ckpt, err);
	if (rc >= 0)
		rc = vq_model_from_ckpt(&l->model, &c, l->ckpt, err);
	if (rc < 0)
		return rc;
	l->identity = json_pack("{s:o, s:s, s:s}", "name", name_of(o->model), "sha256", hex,
				"method", "none");
	return l->identity ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot name the model");
}

/* {"name", "sha256" of the manifest, "method", "bits"}: the last two from the line that search left. */
static int identify_vqm(struct vq_loaded *l, struct vq_err *err)
{
	json_t *j = vq_vqm_model_json(&l->vqm, err), *params = NULL;
	const json_t *search;
	char *text = j ? vq_json_text(l->vqm.manifest, err) : NULL;
	char hex[VQ_SHA256_HEX];

	if (!text) {
		json_decref(j);
		return err->code;
	}
	vq_sha256_of(text, strlen(text), hex);
	vq_free(text);
	search = vq_history_last(j, "vqlm-search");
	params = json_object();
	(void)!json_object_set(params, "name",
			       json_object_get(json_object_get(j, "model"), "name"));
	(void)!json_object_set_new(params, "sha256", json_string(hex));
	(void)!json_object_set(params, "method", json_object_get(search, "method"));
	(void)!json_object_set(params, "w", json_object_get(search, "w"));
	(void)!json_object_set(params, "a", json_object_get(search, "a"));
	json_decref(j);
	l->identity = params;
	return params ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot name the model");
}

static int open_vqm(struct vq_loaded *l, const struct vq_infer *o, uint32_t n_questions,
		    struct vq_err *err)
{
	uint64_t n = file_bytes(o->model);
	int rc = n ? choose(l, o, n_questions, n, err) : VQ_OK;

	if (!n)
		snprintf(l->held, sizeof(l->held), "in memory");
	if (rc >= 0)
		rc = vq_vqm_open(&l->vqm, o->model, rc ? VQ_VQM_LOAD : 0, err);
	if (rc < 0)
		return rc;
	l->have_vqm = 1;
	rc = vq_vqm_tokenizer(&l->tok, &l->vqm, err);
	if (rc >= 0)
		rc = vq_model_from_vqm(&l->model, &l->vqm, err);
	if (rc >= 0)
		rc = identify_vqm(l, err);
	if (rc >= 0 && o->vision)
		rc = vq_fail(err, VQ_E_USAGE,
			     "--vision: %s is a packed model, which has its vision tower",
			     o->model);
	if (rc >= 0)
		rc = vq_open_aspect(&l->model.cfg, o->aspect, err);
	if (rc >= 0 && o->template && !(l->model.cfg.chat = vq_chat_by_name(o->template)))
		rc = vq_fail(err, VQ_E_USAGE, "--template wants one of %s, got '%s'",
			     vq_chat_names(), o->template);
	l->weight_bytes = vq_vqm_weight_bytes(&l->vqm);
	return rc;
}

/* How rows choose their experts, where that is not the usual way. */
static int set_gating(struct vq_loaded *l, const struct vq_infer *o, struct vq_err *err)
{
	struct vq_gating *g = &l->model.decoder.gating;
	json_t *j;
	int bad = 0;

	if (!o->moe_capacity && !o->moe_noise)
		return VQ_OK;
	if (!l->model.cfg.decoder.moe.top_k)
		return vq_fail(err, VQ_E_USAGE, "--moe-%s: %s has no layers with experts",
			       o->moe_noise ? "noise" : "capacity", o->model);
	if (o->moe_noise && g->top_k < 2)
		return vq_fail(err, VQ_E_USAGE,
			       "--moe-noise: it is for the second expert of a row, and %s has one",
			       o->model);
	g->drop = o->moe_capacity;
	g->noise = o->moe_noise;
	g->seed = o->moe_seed;
	j = json_object();
	if (g->drop)
		bad |= json_object_set_new(j, "capacity", json_true());
	if (g->noise)
		bad |= json_object_set_new(j, "noise", json_integer((json_int_t)g->seed));
	bad |= json_object_set_new(l->identity, "moe", j);
	return bad ? vq_fail(err, VQ_E_SYS, "memory: cannot name the model") : VQ_OK;
}

int vq_loaded_open(struct vq_loaded *l, const struct vq_infer *o, uint32_t n_questions,
		   struct vq_err *err)
{
	int named = strcmp(o->model, "-") != 0, rc;

	memset(l, 0, sizeof(*l));
	if (named && !vq_path_exists(o->model))
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", o->model);
	else if (named && (vq_path_is_dir(o->model) || vq_ckpt_takes(o->model)))
		rc = open_ckpt(l, o, n_questions, err);
	else
		rc = open_vqm(l, o, n_questions, err);
	if (rc >= 0 && o->lock)
		rc = keep(l, err);
	if (rc >= 0 && strcmp(l->held, "mapped") != 0)
		say_pages(l);
	if (rc >= 0 && l->model.cfg.has_vision)
		(void)!json_object_set_new(
			l->identity, "aspect",
			json_string(l->model.cfg.preproc.tiled
					    ? "tiles"
					    : vq_aspect_name(l->model.cfg.preproc.aspect)));
	if (rc >= 0)
		rc = set_gating(l, o, err);
	if (rc < 0) {
		vq_loaded_close(l);
		return rc;
	}
	if (o->exact)
		vq_model_exact(&l->model);
	vq_model_products(&l->model, vq_infer_products(o, l));
	l->vocab = vq_tokenizer_size(l->tok);
	if (l->vocab > l->model.cfg.decoder.vocab)
		l->vocab = l->model.cfg.decoder.vocab;
	return VQ_OK;
}

void vq_loaded_close(struct vq_loaded *l)
{
	vq_model_free(&l->model);
	vq_tokenizer_free(l->tok);
	json_decref(l->identity);
	vq_ckpt_close(l->ckpt);
	if (l->have_vqm)
		vq_vqm_close(&l->vqm);
	memset(l, 0, sizeof(*l));
}

int vq_loaded_check(const struct vq_loaded *l, struct vq_err *err)
{
	struct vq_name *names = NULL;
	struct vq_tensor t;
	size_t n = 0, i;
	int rc = l->ckpt ? vq_names_list(&l->model.cfg, &names, &n, err) : VQ_OK;

	for (i = 0; rc >= 0 && i < n; i++) {
		rc = vq_names_find(&l->model.cfg, l->ckpt, &names[i], &t, err);
		if (rc >= 0)
			rc = vq_names_check_finite(&t, names[i].name, vq_ckpt_path(l->ckpt), err);
	}
	vq_free(names);
	return rc;
}
