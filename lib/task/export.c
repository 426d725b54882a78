/* Exporting: from a packed model to a folder. */
#include "task/export.h"

#include <stdio.h>

#include "base/mem.h"
#include "task/export_effect.h"
#include "task/export_gguf.h"
#include "task/pack_card.h"

static int write_weights(struct vq_export *x, struct vq_err *err)
{
	int rc;

	if (x->o->to == VQ_EXPORT_GGUF)
		return vq_export_gguf(x, err);
	rc = vq_export_safetensors(x, err);
	return rc < 0 ? rc : vq_export_config(x, err);
}

/* How many matrices went out as what, a line for each part of the model. */
static void say_parts(const struct vq_export *x)
{
	static const char *const as[] = {"", "dequantized to float16", "as integers"};
	uint32_t n[VQ_PACK_N_PARTS][3] = {{0}};
	size_t i;
	int p, k;

	for (i = 0; i < x->n; i++)
		if (x->items[i].bits)
			n[vq_pack_part_of(x->names[i].name)][x->items[i].as]++;
	for (p = 0; p < VQ_PACK_N_PARTS; p++)
		for (k = VQ_AS_HALF; k <= VQ_AS_CODES; k++)
			if (n[p][k])
				vq_export_say(x, "%s: %s: %u %s\n", vq_export_name(x->o->to),
					      vq_pack_part_name((enum vq_pack_part)p), n[p][k],
					      as[k]);
}

static int write_folder(struct vq_export *x, struct vq_err *err)
{
	int rc = vq_folder_open(&x->folder, x->o->dir, x->o->force, VQ_EXPORT_SIDE, err);

	if (rc < 0)
		return rc;
	rc = x->o->data ? vq_export_effect(x, err) : VQ_OK;
	if (rc == VQ_OK)
		rc = write_weights(x, err);
	if (rc == VQ_OK)
		rc = vq_export_side(x, err);
	if (rc == VQ_OK)
		say_parts(x);
	if (rc == VQ_OK && x->o->verify)
		rc = vq_export_verify(x, err);
	if (rc == VQ_OK && fflush(x->out) != 0)
		rc = vq_fail_errno(err, VQ_E_SYS, "stdout: cannot write");
	if (rc == VQ_OK)
		return vq_folder_commit(&x->folder, err);
	vq_folder_abort(&x->folder);
	return rc;
}

int vq_export_run(const struct vq_export_opts *o, const char *path, FILE *out, struct vq_err *err)
{
	struct vq_vqm v;
	struct vq_export x = {.o = o, .v = &v, .out = out};
	int rc = vq_vqm_open(&v, path, VQ_VQM_VERIFY, err);

	if (rc < 0)
		return rc;
	x.model = vq_vqm_model_json(&v, err);
	rc = x.model ? vq_vqm_config(&x.config, &v, err) : VQ_E_DATA;
	if (rc == VQ_OK)
		rc = vq_export_check_family(&x, err);
	if (rc == VQ_OK)
		rc = vq_export_plan(&x, err);
	if (rc == VQ_OK)
		rc = write_folder(&x, err);
	vq_free(x.items);
	vq_free(x.names);
	json_decref(x.effect);
	json_decref(x.model);
	vq_vqm_close(&v);
	return rc;
}
