/* Exporting: from a packed model to a folder. */
#include "task/export.h"

#include <stdio.h>

#include "base/mem.h"
#include "task/export_gguf.h"

static int write_weights(struct vq_export *x, struct vq_err *err)
{
	int rc;

	if (x->o->to == VQ_EXPORT_GGUF)
		return vq_export_gguf(x, err);
	rc = vq_export_safetensors(x, err);
	return rc < 0 ? rc : vq_export_config(x, err);
}

static void say_parts(const struct vq_export *x)
{
	uint32_t n[3] = {0, 0, 0};
	size_t i;

	for (i = 0; i < x->n; i++)
		if (x->items[i].bits)
			n[x->items[i].as]++;
	vq_export_say(x, "%s: %u matrices as integers, %u dequantized to float16\n",
		      vq_export_name(x->o->to), n[VQ_AS_CODES], n[VQ_AS_HALF]);
}

static int write_folder(struct vq_export *x, struct vq_err *err)
{
	int rc = vq_folder_open(&x->folder, x->o->dir, x->o->force, VQ_EXPORT_SIDE, err);

	if (rc < 0)
		return rc;
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
		rc = vq_export_plan(&x, err);
	if (rc == VQ_OK)
		rc = write_folder(&x, err);
	vq_free(x.items);
	vq_free(x.names);
	json_decref(x.model);
	vq_vqm_close(&v);
	return rc;
}
