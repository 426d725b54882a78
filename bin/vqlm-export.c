/* vqlm-export: a packed model in, a folder for other engines out. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/stop.h"
#include "cli.h"
#include "task/export.h"
#include "task/search.h"

static struct vq_export_opts export;
static struct vq_common common;
static const char *parts;
static double shard;

static const struct vq_opt opts[] = {
	{"to", 0, VQ_OPT_CHOICE, "FORMAT", &export.to, NULL, "format of the weights", 0, 0,
	 VQ_EXPORT_FORMATS},
	{"acts-as", 0, VQ_OPT_CHOICE, "HOW", &export.acts, "refuse",
	 "what becomes of quantized inputs, which most formats cannot say", 0, 0,
	 "refuse|drop|dynamic-int8|static-int8"},
	{"gptq-format", 0, VQ_OPT_CHOICE, "VERSION", &export.gptq_v2, "v1",
	 "GPTQ's zero points: less 1, or as they are", 0, 0, "v1|v2"},
	{"parts", 0, VQ_OPT_STR, "LIST", &parts, "llm",
	 "what goes out as integers where the model has it so, words of llm,vision,projector; the "
	 "rest as float16",
	 0, 0, NULL},
	{"shard-size", 0, VQ_OPT_F64, "GB", &shard, "5",
	 "bytes of a file of weights at most, in GB", 1e-6, 1e6, NULL},
	{"verify", 0, VQ_OPT_FLAG, NULL, &export.verify, NULL,
	 "read the folder back and compare its values with the packed model's", 0, 0, NULL},
	{"data", 'd', VQ_OPT_STR, "DATA", &export.data, NULL,
	 "measure on prompts of DATA what --acts-as changes: LLaVA conversation JSON or JSON Lines",
	 0, 0, NULL},
	{"images", 0, VQ_OPT_STR, "DIR", &export.images, NULL,
	 "folder that image names in DATA are relative to (default: that of DATA)", 0, 0, NULL},
	{"samples", 'n', VQ_OPT_U32, "N", &export.n, "32", "prompts, a seeded choice of DATA", 1,
	 1 << 20, NULL},
	{"force", 0, VQ_OPT_FLAG, NULL, &export.force, NULL, "replace an earlier export", 0, 0,
	 NULL},
	{0},
};

static const struct vq_tool tool = {
	.name = "vqlm-export",
	.summary = "write a packed model in the format of another engine",
	.usage = "[options] --to FORMAT -o DIR MODEL.vqm",
	.about = "Writes a folder that other engines load: the integers and scales of the packed\n"
		 "model, never rounded again, with configuration, tokenizer and card.  What a\n"
		 "format cannot hold is refused with the remedy, what it cannot say is beside the\n"
		 "model in vqlm.json.\n",
	.examples = "  vqlm-export --to awq --verify -o llava-awq llava-w4.vqm\n"
		    "  vqlm-export --to gguf -o llava-gguf llava-w4.vqm\n"
		    "  vqlm-export --to compressed-tensors --acts-as dynamic-int8 -d val.json "
		    "-o out m.vqm\n",
	.opts = opts,
	.common = &common,
};

/* Combinations that mean nothing. */
static int check(int at, int argc, struct vq_err *err)
{
	if (export.to < 0)
		return vq_cli_usage(&tool, "want --to FORMAT, one of %s", VQ_EXPORT_FORMATS);
	if (!common.output || strcmp(common.output, "-") == 0)
		return vq_cli_usage(&tool, "want -o DIR, the folder to make");
	if (argc - at != 1)
		return vq_cli_usage(&tool, "want one packed model, got %d", argc - at);
	if (export.gptq_v2 && export.to != VQ_EXPORT_GPTQ)
		return vq_cli_usage(&tool, "--gptq-format is for --to gptq");
	if (export.acts >= VQ_EXPORT_ACTS_DYNAMIC && export.to != VQ_EXPORT_CT)
		return vq_cli_usage(&tool, "--acts-as dynamic-int8 and static-int8 are for --to "
					   "compressed-tensors");
	if (export.images && !export.data)
		return vq_cli_usage(&tool, "--images is for the pictures of -d DATA");
	if (vq_search_parts(parts, &export.parts, err) < 0)
		return vq_cli_usage(&tool, "%s", err->text);
	return 0;
}

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	int at, rc;

	export.to = -1;
	at = vq_cli_parse(&tool, argc, argv);
	rc = check(at, argc, &err);
	if (rc)
		return rc;
	export.dir = common.output;
	export.seed = common.seed;
	export.shard_bytes = (uint64_t)(shard * 1e9);
	vq_mem_keep_large();
	vq_stop_catch();
	rc = vq_export_run(&export, argv[at], stdout, &err);
	return vq_cli_finish(&tool, rc, &err);
}
