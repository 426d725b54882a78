/* vqlm-infer: a model answers questions. */
#include <string.h>

#include "base/parse.h"
#include "base/str.h"
#include "cli.h"
#include "format/chat.h"
#include "format/image.h"
#include "task/infer.h"

static struct vq_infer o;
static int load, map;
static struct vq_common common;
static int kv; /* an enum vq_kv_type */
static int protocol, bos, rows;
static const char *noise;

static const struct vq_opt opts[] = {
	{"model", 'm', VQ_OPT_STR, "MODEL", &o.model, NULL,
	 "packed model (- reads it from standard input), or a checkpoint's folder or archive for "
	 "full "
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
	{"moe-capacity", 0, VQ_OPT_FLAG, NULL, &o.moe_capacity, NULL,
	 "experts take as many rows as the model's configuration allows them, and drop the rest", 0,
	 0, NULL},
	{"moe-noise", 0, VQ_OPT_STR, "SEED", &noise, NULL,
	 "choose the second expert of a row with the authors' noise, drawn from this seed", 0, 0,
	 NULL},
	{"score", 0, VQ_OPT_FLAG, NULL, &o.score, NULL,
	 "compare the log-probabilities of the choices 'A. ', 'B. ', ... instead of generating", 0,
	 0, NULL},
	{"max-tokens", 0, VQ_OPT_U32, "N", &o.max_tokens, NULL,
	 "length of an answer (default: 16, for a single question 256)", 1, 1000000, NULL},
	{"temperature", 0, VQ_OPT_F64, "X", &o.temperature, "0",
	 "draw tokens at this temperature; 0 takes the likeliest", 0, 100, NULL},
	VQ_OPTS_MODEL(o.vision, o.aspect, o.template),
	{"ppl", 0, VQ_OPT_STR, "TEXT", &o.ppl, NULL,
	 "score the tokens of a text file (- reads standard input) instead of answering: "
	 "perplexity",
	 0, 0, NULL},
	{"protocol", 0, VQ_OPT_CHOICE, "NAME", &protocol, "auto",
	 "how --ppl cuts and scores; auto is gptq, or custom with --window or --bos", 0, 0,
	 VQ_PPL_PROTOCOLS},
	{"window", 0, VQ_OPT_U32, "N", &o.window, NULL,
	 "tokens of a window of --ppl (default: the protocol's)", 4, 1000000, NULL},
	{"bos", 0, VQ_OPT_CHOICE, "WHERE", &bos, "auto",
	 "where the beginning token goes (default: as the protocol has it; with --choices none)", 0,
	 0, VQ_BOS_CHOICES},
	{"rows", 0, VQ_OPT_CHOICE, "KIND", &rows, "text",
	 "what the lines of TEXT are: text as it is, or rows of a data set, joined by blank lines",
	 0, 0, VQ_TEXT_ROWS},
	{"choices", 0, VQ_OPT_STR, "FILE", &o.choices, NULL,
	 "score the choices of zero-shot questions (- reads standard input) as what follows their "
	 "contexts",
	 0, 0, NULL},
	{"limit", 0, VQ_OPT_U32, "N", &o.limit, "0",
	 "only the first N questions, or windows of TEXT; 0 = all", 0, 4294967295.0, NULL},
	{"shard", 0, VQ_OPT_STR, "I/N", &o.shard, NULL,
	 "only part I of 1..N of them, by a hash of the id", 0, 0, NULL},
	{"resume", 0, VQ_OPT_STR, "FILE", &o.resume, NULL,
	 "take the answers that an interrupted run left in FILE (usually OUTPUT.part)", 0, 0, NULL},
	{"logits", 0, VQ_OPT_STR, "FILE", &o.logits, NULL,
	 "write the logits that follow each prompt, or come before each scored token, to FILE, a "
	 "tensor stream",
	 0, 0, NULL},
	{0},
};

static const struct vq_tool tool = {
	.name = "vqlm-infer",
	.summary = "a vision-language model answers questions",
	.usage = "[options] -m MODEL (-d DATA | --ppl TEXT | --choices FILE | [-i IMAGE] WORDS...)",
	.about = "Runs a packed model with integer products, or a checkpoint in full precision.\n"
		 "Questions come from a data file, from the command line (the answer is plain\n"
		 "text, printed as it comes), or one a line from standard input.  Answers to many\n"
		 "are JSON Lines for vqlm-eval(1): an opening record that names the model and the\n"
		 "ids asked, an answer a line, and totals.  Or it says how probable the tokens of\n"
		 "a text are, a window a line (perplexity), or the choices of zero-shot "
		 "questions.\n",
	.examples = "  vqlm-infer -m llava-w4a4.vqm -i cat.png What is this?\n"
		    "  vqlm-infer -m llava-w4a4.vqm -d test.json | vqlm-eval -r problems.json\n"
		    "  vqlm-infer -m llava-1.5-7b -d test.json --shard 3/8 -o part-3.jsonl\n"
		    "  vqlm-infer -m llava-w4a4.vqm --ppl wiki.txt | vqlm-eval --task ppl\n",
	.opts = opts,
	.common = &common,
};

/* What is asked comes from one place: those that are named, and their number; 0: standard input. */
static int sources(const char *name[4])
{
	int n = 0;

	if (o.data)
		name[n++] = "-d";
	if (o.question || o.image)
		name[n++] = "a single question";
	if (o.ppl)
		name[n++] = "--ppl";
	if (o.choices)
		name[n++] = "--choices";
	return n;
}

/* An option that says nothing where tokens are scored; NULL: none is there. */
static const char *answers_only(void)
{
	return o.images                ? "images"
	       : o.score               ? "score"
	       : o.max_tokens          ? "max-tokens"
	       : o.temperature         ? "temperature"
	       : o.template            ? "template"
	       : o.aspect              ? "aspect"
	       : o.choices && o.logits ? "logits"
				       : NULL;
}

static const char *text_only(void)
{
	return protocol ? "protocol" : o.window ? "window" : rows ? "rows" : NULL;
}

/* What stands for standard input is asked there; the model cannot be. */
static const char *on_stdin(int n_sources)
{
	if (n_sources == 0 || (o.choices && strcmp(o.choices, "-") == 0))
		return "the questions";
	return o.ppl && strcmp(o.ppl, "-") == 0 ? "the text" : NULL;
}

/* Options that go with some sources only. */
static int check_options(void)
{
	int scores = o.ppl || o.choices;

	if (!o.data && o.images)
		return vq_cli_usage(&tool, "--images wants -d");
	if (!o.data && !scores && (o.limit || o.shard))
		return vq_cli_usage(&tool, "--%s wants -d, --ppl or --choices",
				    o.limit ? "limit" : "shard");
	if (scores && answers_only())
		return vq_cli_usage(&tool, "--%s is not for --%s", answers_only(),
				    o.ppl ? "ppl" : "choices");
	if (!o.ppl && text_only())
		return vq_cli_usage(&tool, "--%s wants --ppl", text_only());
	if (!scores && bos)
		return vq_cli_usage(&tool, "--bos wants --ppl or --choices");
	if (o.choices && bos == VQ_BOS_EACH)
		return vq_cli_usage(&tool,
				    "--choices has one context a question: --bos first or none");
	return 0;
}

/* 0, or the exit status of a command line that asks for what does not go together. */
static int check_source(void)
{
	const char *name[4];
	int n = sources(name), status;

	if (n > 1)
		return vq_cli_usage(&tool, "%s and %s exclude each other", name[0], name[1]);
	if (o.image && !o.question)
		return vq_cli_usage(&tool, "-i wants a question after it");
	status = check_options();
	if (status)
		return status;
	if (o.question && (o.resume || o.logits))
		return vq_cli_usage(&tool, "--%s is not for a single question",
				    o.resume ? "resume" : "logits");
	if (o.resume && o.logits)
		return vq_cli_usage(&tool, "--logits cannot be resumed");
	if (strcmp(o.model, "-") == 0 && on_stdin(n))
		return vq_cli_usage(&tool, "the model and %s cannot both come from standard input",
				    on_stdin(n));
	return 0;
}

/* 0, or the exit status of a command line that makes no sense. */
static int check(void)
{
	int status;

	if (!o.model)
		return vq_cli_usage(&tool, "no model: -m wants one");
	status = check_source();
	if (status)
		return status;
	if (noise && vq_parse_u64(&o.moe_seed, noise, 0, INT64_MAX) < 0)
		return vq_cli_usage(
			&tool, "--moe-noise wants a whole number of 0 or more, got '%s'", noise);
	o.moe_noise = noise != NULL;
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
	o.protocol = (enum vq_ppl_protocol)protocol;
	o.bos = (enum vq_bos)bos;
	o.rows = (enum vq_text_rows)rows;
	o.level = common.level;
	status = check();
	if (status)
		return status;
	rc = o.ppl       ? vq_infer_ppl(&o, &err)
	     : o.choices ? vq_infer_choices(&o, &err)
			 : vq_infer_run(&o, &err);
	vq_str_free(&words);
	return vq_cli_finish(&tool, rc, &err);
}
