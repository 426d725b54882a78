/* vqlm-infer: a model answers questions. */
#include <string.h>

#include "base/str.h"
#include "cli.h"
#include "format/chat.h"
#include "task/infer.h"

static struct vq_infer o;
static int load, map;
static struct vq_common common;
static int kv; /* an enum vq_kv_type */

static const struct vq_opt opts[] = {
	{"model", 'm', VQ_OPT_STR, "MODEL", &o.model, NULL,
	 "packed model (- reads it from standard input), or a checkpoint's folder for full "
	 "precision",
	 0, 0, NULL},
	{"load", 0, VQ_OPT_FLAG, NULL, &load, NULL,
	 "copy the weights to memory of large pages, which is read faster (default: where more "
	 "than 512 "
	 "tokens may be decoded and memory allows it)",
	 0, 0, NULL},
	{"map", 0, VQ_OPT_FLAG, NULL, &map, NULL,
	 "map the weights: start at once, copy nothing, share them with other processes", 0, 0,
	 NULL},
	{"lock", 0, VQ_OPT_FLAG, NULL, &o.lock, NULL, "keep the weights from leaving memory", 0, 0,
	 NULL},
	{"data", 'd', VQ_OPT_STR, "DATA", &o.data, NULL,
	 "questions: LLaVA conversation JSON or JSON Lines", 0, 0, NULL},
	{"images", 0, VQ_OPT_STR, "DIR", &o.images, NULL,
	 "where the pictures of DATA are, instead of beside it", 0, 0, NULL},
	{"image", 'i', VQ_OPT_STR, "FILE", &o.image, NULL,
	 "picture (PNG or JPEG) of the single question in WORDS", 0, 0, NULL},
	{"exact", 0, VQ_OPT_FLAG, NULL, &o.exact, NULL,
	 "dequantize packed weights and multiply in floating point: slow, for comparison", 0, 0,
	 NULL},
	{"float32", 0, VQ_OPT_FLAG, NULL, &o.float32, NULL,
	 "multiply a checkpoint's weights in float32 (default: bfloat16, where the processor has "
	 "it "
	 "and the weights are of 16 bits)",
	 0, 0, NULL},
	{"kv", 0, VQ_OPT_CHOICE, "BITS", &kv, "16",
	 "bits of a number in the cache of keys and values", 0, 0, "32|16|8"},
	{"score", 0, VQ_OPT_FLAG, NULL, &o.score, NULL,
	 "compare the log-probabilities of the choices 'A. ', 'B. ', ... instead of generating", 0,
	 0, NULL},
	{"max-tokens", 0, VQ_OPT_U32, "N", &o.max_tokens, NULL,
	 "length of an answer (default: 16, for a single question 256)", 1, 1000000, NULL},
	{"temperature", 0, VQ_OPT_F64, "X", &o.temperature, "0",
	 "draw tokens at this temperature; 0 takes the likeliest", 0, 100, NULL},
	{"template", 0, VQ_OPT_STR, "NAME", &o.template, NULL,
	 "chat template instead of the model's: llava-hf, vicuna_v1, llava_v1 or plain", 0, 0,
	 NULL},
	{"limit", 0, VQ_OPT_U32, "N", &o.limit, "0", "only the first N questions of DATA; 0 = all",
	 0, 4294967295.0, NULL},
	{"shard", 0, VQ_OPT_STR, "I/N", &o.shard, NULL,
	 "only part I of 1..N of DATA, by a hash of the id", 0, 0, NULL},
	{"resume", 0, VQ_OPT_STR, "FILE", &o.resume, NULL,
	 "take the answers that an interrupted run left in FILE (usually OUTPUT.part)", 0, 0, NULL},
	{"logits", 0, VQ_OPT_STR, "FILE", &o.logits, NULL,
	 "write the logits that follow each prompt to FILE, a tensor stream", 0, 0, NULL},
	{0},
};

static const struct vq_tool tool = {
	.name = "vqlm-infer",
	.summary = "a vision-language model answers questions",
	.usage = "[options] -m MODEL (-d DATA | [-i IMAGE] WORDS... | < LINES) > ANSWERS",
	.about = "Runs a packed model with integer products, or a checkpoint in full precision.\n"
		 "Questions come from a data file, from the command line (the answer is plain\n"
		 "text, printed as it comes), or one a line from standard input.  Answers to many\n"
		 "are JSON Lines for vqlm-eval(1): an opening record that names the model and the\n"
		 "ids asked, an answer a line, and totals.\n",
	.examples = "  vqlm-infer -m llava-w4a4.vqm -i cat.png What is this?\n"
		    "  vqlm-infer -m llava-w4a4.vqm -d test.json | vqlm-eval -r problems.json\n"
		    "  vqlm-infer -m llava-1.5-7b -d test.json --shard 3/8 -o part-3.jsonl\n",
	.opts = opts,
	.common = &common,
};

/* 0, or the exit status of a command line that makes no sense. */
static int check(void)
{
	if (!o.model)
		return vq_cli_usage(&tool, "no model: -m wants one");
	if (o.data && (o.question || o.image))
		return vq_cli_usage(&tool, "-d and a single question exclude each other");
	if (o.image && !o.question)
		return vq_cli_usage(&tool, "-i wants a question after it");
	if (!o.data && (o.images || o.limit || o.shard))
		return vq_cli_usage(&tool, "--%s wants -d",
				    o.images  ? "images"
				    : o.limit ? "limit"
					      : "shard");
	if (o.question && (o.resume || o.logits))
		return vq_cli_usage(&tool, "--%s is not for a single question",
				    o.resume ? "resume" : "logits");
	if (o.resume && o.logits)
		return vq_cli_usage(&tool, "--logits cannot be resumed");
	if (strcmp(o.model, "-") == 0 && !o.data && !o.question)
		return vq_cli_usage(&tool, "the model and the questions cannot both come from "
					   "standard input");
	if (load && map)
		return vq_cli_usage(&tool, "--load and --map exclude each other");
	if (o.template && !vq_chat_by_name(o.template))
		return vq_cli_usage(&tool, "--template wants one of %s, got '%s'", vq_chat_names(),
				    o.template);
	return 0;
}

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	struct vq_str words = {0};
	int at = vq_cli_parse(&tool, argc, argv), first = at, status, rc;

	for (; at < argc; at++)
		vq_str_printf(&words, "%s%s", at > first ? " " : "", argv[at]);
	o.question = words.s;
	o.hold = load ? VQ_HOLD_LOAD : map ? VQ_HOLD_MAP : VQ_HOLD_AUTO;
	o.output = common.output;
	o.seed = common.seed;
	o.kv = (enum vq_kv_type)kv;
	o.level = common.level;
	status = check();
	if (status)
		return status;
	rc = vq_infer_run(&o, &err);
	vq_str_free(&words);
	return vq_cli_finish(&tool, rc, &err);
}
