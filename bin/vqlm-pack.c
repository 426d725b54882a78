/* vqlm-pack: searched streams in, packed model out. */
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "cli.h"
#include "task/pack.h"

static struct vq_pack_opts pack;
static struct vq_common common;

static const struct vq_opt opts[] = {
	{"base-model", 0, VQ_OPT_STR, "NAME", &pack.base_model, NULL,
	 "name of the model that was quantized, for the card (default: what the stream says)", 0, 0,
	 NULL},
	{"head", 0, VQ_OPT_CHOICE, "BITS", &pack.head8, "16",
	 "bits of the token embedding and the output head", 0, 0, "16|8"},
	{"license", 0, VQ_OPT_STR, "ID", &pack.license, "unknown",
	 "licence of the model, for the card", 0, 0, NULL},
	{0},
};

static const struct vq_tool tool = {
	.name = "vqlm-pack",
	.summary = "pack a searched model stream into one file that vqlm-infer runs",
	.usage = "[options] < STREAM > MODEL.vqm",
	.about = "Reads a searched model stream (or several, one after the other) and writes the\n"
		 "packed model: a tar archive with the weights in the layout of the kernels, the\n"
		 "tokenizer, a card, and last a manifest with the SHA-256 of every member.\n",
	.examples = "  vqlm-search -w 4 -a 4 < plan.vqs | vqlm-pack -o llava-w4a4.vqm\n"
		    "  cat part-*.vqs | vqlm-pack -v -o llava-w4a4.vqm\n"
		    "  tar tvf llava-w4a4.vqm\n",
	.opts = opts,
	.common = &common,
	.no_operands = 1,
};

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	struct vq_output o;
	int rc;

	(void)vq_cli_parse(&tool, argc, argv); /* no operands */
	vq_mem_keep_large();
	rc = vq_output_open(&o, common.output, &err);
	if (rc == VQ_OK)
		rc = vq_pack_run(&pack, STDIN_FILENO, "stdin", o.fd, o.label, &err);
	if (rc == VQ_OK)
		rc = vq_output_commit(&o, &err);
	else
		vq_output_abort(&o, 0);
	return vq_cli_finish(&tool, rc, &err);
}
