/* vqlm-search: the door.  lib/task/search.c is the room. */
#include <getopt.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/parse.h"
#include "base/stop.h"
#include "cli.h"
#include "task/search.h"
#include "task/search_scheme.h"

static struct vq_common common;
static int method, w_bits, a_bits, w_group, a_group, w_sym, a_sym, veo, keep_inputs, dry_run;
static int act_order, awq_joint, awq_duo, acts;
static const char *parts, *blocks, *resume;
static double eta, veo_lambda, gptaq, act_lp;
static uint32_t sweeps, rows, polish;
static int token_weights;
static const char *vision_weight;
static int rotate, clip, w_clip;
static const char *smooth;
static int smooth_at;
static double mixed;

static struct vq_opt opts[] = {
	{"method", 0, VQ_OPT_CHOICE, "NAME", &method, "qvlm", "how rounding functions are chosen",
	 0, 0, VQ_METHODS},
	{"weight-bits", 'w', VQ_OPT_CHOICE, "BITS", &w_bits, "4", "bits of weights, 16 leaves them",
	 0, 0, "2|3|4|5|6|7|8|16"},
	{"act-bits", 'a', VQ_OPT_CHOICE, "BITS", &a_bits, "4",
	 "bits of activations, 16 leaves them", 0, 0, "2|3|4|5|6|7|8|16"},
	{"group", 0, VQ_OPT_CHOICE, "N", &w_group, "auto",
	 "weights that share a scale, 0 is the whole row; auto is 128, for nf4 64", 0, 0,
	 "auto|32|64|128|0"},
	{"acts", 0, VQ_OPT_CHOICE, "SCHEME", &acts, "group",
	 "where the ranges of activations come from", 0, 0, VQ_ACTS},
	{"act-group", 0, VQ_OPT_CHOICE, "N", &a_group, "auto",
	 "activations that share a scale, 0 is all of the token; auto is 128, or what --acts says",
	 0, 0, "auto|32|64|128|0"},
	{"act-lp", 0, VQ_OPT_F64, "X", &act_lp, "2",
	 "exponent of the distance by which stored ranges are clipped (--acts static, paper)", 0.1,
	 8, NULL},
	{"w-sym", 0, VQ_OPT_FLAG, NULL, &w_sym, NULL, "symmetric weight grids", 0, 0, NULL},
	{"a-sym", 0, VQ_OPT_FLAG, NULL, &a_sym, NULL, "symmetric activation grids", 0, 0, NULL},
	{"parts", 0, VQ_OPT_STR, "LIST", &parts, "llm,vision,projector",
	 "what is quantized, the rest passes through", 0, 0, NULL},
	{"veo", 0, VQ_OPT_CHOICE, "WHEN", &veo, "on",
	 "score vision clips by their effect on the final output too (qvlm)", 0, 0, "off|on"},
	{"eta", 0, VQ_OPT_F64, "X", &eta, "10", "weight of that effect", 0, 1e6, NULL},
	{"veo-lambda", 0, VQ_OPT_F64, "X", &veo_lambda, "0",
	 "weight of what vision clips do to the decoder's entropies", 0, 1e6, NULL},
	{"sweeps", 0, VQ_OPT_U32, "N", &sweeps, "2",
	 "rounds of coordinate descent on a block's output error (qvlm; gptq with --clip or "
	 "--smooth search)",
	 0, 100, NULL},
	{"rotate", 0, VQ_OPT_CHOICE, "HOW", &rotate, "none",
	 "rotation of inputs, in blocks of up to 128, that weights take back", 0, 0, VQ_ROTATES},
	{"smooth", 0, VQ_OPT_STR, "X", &smooth, "off",
	 "share of the inputs' ranges that weights take over: off, search or 0..1", 0, 0, NULL},
	{"smooth-at", 0, VQ_OPT_CHOICE, "WHERE", &smooth_at, "all",
	 "which inputs: all, or those that come from a norm, which exports can fold", 0, 0,
	 "all|norms"},
	{"clip", 0, VQ_OPT_CHOICE, "HOW", &clip, "off",
	 "whether clips of inputs are searched; layerwise and qvlm always do", 0, 0, "off|search"},
	{"w-clip", 0, VQ_OPT_CHOICE, "HOW", &w_clip, "off",
	 "whether ranges of weights shrink to the least squared error (gptq)", 0, 0, "off|mse"},
	{"mixed", 0, VQ_OPT_F64, "X", &mixed, "0",
	 "share of layers, those of the highest entropy, whose inputs keep 8 bits", 0, 1, NULL},
	{"act-order", 0, VQ_OPT_FLAG, NULL, &act_order, NULL,
	 "columns in the order of their second moments (gptq)", 0, 0, NULL},
	{"gptaq", 0, VQ_OPT_F64, "ALPHA", &gptaq, "0",
	 "share of the full-precision input's term, 0.25 is usual (gptq)", 0, 1, NULL},
	{"polish", 0, VQ_OPT_U32, "N", &polish, "0",
	 "rounds of coordinate descent on the codes (gptq)", 0, 100, NULL},
	{"awq-loss", 0, VQ_OPT_CHOICE, "NAME", &awq_joint, "weight-only",
	 "what scales are chosen by: rounded weights, or quantized inputs too (awq)", 0, 0,
	 "weight-only|joint"},
	{"awq-duo", 0, VQ_OPT_FLAG, NULL, &awq_duo, NULL,
	 "scales by the weights' sizes too, as AutoAWQ has them (awq)", 0, 0, NULL},
	{"rows", 0, VQ_OPT_U32, "N", &rows, "4096",
	 "tokens that errors and second moments are measured on, about; 0 is all", 0, 1e9, NULL},
	{"token-weights", 0, VQ_OPT_CHOICE, "NAME", &token_weights, "none",
	 "which tokens of the decoder count more in errors and second moments", 0, 0,
	 VQ_TOKEN_WEIGHTS},
	{"vision-weight", 0, VQ_OPT_STR, "X", &vision_weight, "0.1",
	 "weight of a picture's token beside text's 1, or 'measured' (--token-weights vision)", 0,
	 0, NULL},
	{"blocks", 0, VQ_OPT_STR, "A-B", &blocks, NULL,
	 "search and emit only these units; A is 0 or a checkpoint of vqlm-calib", 0, 0, NULL},
	{"resume", 0, VQ_OPT_STR, "FILE", &resume, NULL,
	 "go on from the interrupted output FILE (X.part)", 0, 0, NULL},
	{"keep-inputs", 0, VQ_OPT_FLAG, NULL, &keep_inputs, NULL,
	 "pass calibration inputs and statistics on", 0, 0, NULL},
	{"dry-run", 0, VQ_OPT_FLAG, NULL, &dry_run, NULL,
	 "say what memory, disk and time the work needs; read no weights", 0, 0, NULL},
	{0},
};

static const struct vq_tool tool = {
	.name = "vqlm-search",
	.summary = "quantize the weights of a model stream",
	.usage = "[options] < STREAM > STREAM",
	.about = "A filter.  Each linear layer becomes integers and grids, its input gets a grid "
		 "too.  "
		 "Where ranges\nare clipped is decided by --method:\n"
		 "  rtn        nowhere: round to nearest; needs no calibration\n"
		 "  layerwise  where each place's own output error is smallest, one after the "
		 "other\n"
		 "  qvlm       where the output error of a planned block is smallest (Q-VLM)\n"
		 "  gptq       nowhere: codes make up for each other's errors, by the inputs' "
		 "second moments\n"
		 "  awq        inputs that are large on average get larger weights; then where "
		 "each group\n"
		 "             of weights does best (AWQ)\n"
		 "  best       gptq with --rotate hadamard --smooth search --clip search "
		 "--act-order\n"
		 "             --gptaq 0.25 --polish 3\n"
		 "  nf4        nowhere: QLoRA's codes in blocks of 64; needs no calibration; -w 4 "
		 "is "
		 "NF4,\n             3 is NF3, 6 and 8 are uniform in groups of 64\n",
	.examples =
		"  vqlm-calib -m DIR -n 0 | vqlm-search --method rtn -w 4 -a 8 | vqlm-pack -o "
		"x.vqm\n"
		"  vqlm-calib -m DIR -d DATA | vqlm-entropy | vqlm-search -w 4 -a 4 -v -o x.vqs\n",
	.opts = opts,
	.common = &common,
	.no_operands = 1,
};

static const uint32_t bits_of[] = {2, 3, 4, 5, 6, 7, 8, 16};
static const uint32_t group_of[] = {32, 64, 128, 0};

enum { GROUP_AUTO, GROUP_WHOLE = 4 };

/* The group of activations; -1 where --act-group contradicts --acts. */
static int act_group(uint32_t *group)
{
	int fixed = acts == VQ_ACTS_TOKEN || acts == VQ_ACTS_PAPER; /* by the scheme */

	if ((acts == VQ_ACTS_PAPER && a_group != GROUP_AUTO) ||
	    (acts == VQ_ACTS_TOKEN && a_group != GROUP_AUTO && a_group != GROUP_WHOLE))
		return -1;
	*group = fixed ? 0 : a_group == GROUP_AUTO ? 128 : group_of[a_group - 1];
	return 0;
}

/* nf4 has its own bits and groups: 0, or the exit status of what contradicts it. */
static int check_nf4(uint32_t bits)
{
	if (method != VQ_METHOD_NF4)
		return 0;
	if (bits != 3 && bits != 4 && bits != 6 && bits != 8)
		return vq_cli_usage(&tool,
				    "--method nf4 wants -w 4 (NF4), 3 (NF3), 6 or 8 (uniform in "
				    "groups of 64), got %u",
				    bits);
	if (w_group != GROUP_AUTO && group_of[w_group - 1] != 64)
		return vq_cli_usage(&tool, "--method nf4 has groups of 64, got --group %u",
				    group_of[w_group - 1]);
	if (w_sym)
		return vq_cli_usage(&tool, "--method nf4 goes without --w-sym");
	return 0;
}

/* "A-B" or "A". */
static int parse_blocks(const char *text, struct vq_search_opts *o)
{
	const char *dash = strchr(text, '-');
	char first[16];
	size_t n = dash ? (size_t)(dash - text) : strlen(text);

	if (n == 0 || n >= sizeof(first))
		return -1;
	memcpy(first, text, n);
	first[n] = '\0';
	if (vq_parse_u32(&o->first_unit, first, 0, 65535) < 0 ||
	    vq_parse_u32(&o->last_unit, dash ? dash + 1 : first, 0, 65535) < 0)
		return -1;
	return o->last_unit < o->first_unit ? -1 : 0;
}

static int parse_smooth(const char *text, struct vq_search_opts *o)
{
	o->smooth = VQ_SMOOTH_OFF;
	if (strcmp(text, "off") == 0)
		return 0;
	o->smooth = VQ_SMOOTH_SEARCH;
	if (strcmp(text, "search") == 0)
		return 0;
	o->smooth = VQ_SMOOTH_FIXED;
	return vq_parse_f64(&o->smooth_exponent, text, 0, 1);
}

/* Method best is gptq with other defaults: the table's are replaced, and the line is read again. */
static void parse(int argc, char **argv)
{
	static const char *const best[][2] = {
		{"rotate", "hadamard"}, {"smooth", "search"}, {"clip", "search"}, {"gptaq", "0.25"},
		{"sweeps", "0"},        {"polish", "3"},      {NULL, NULL}};
	struct vq_opt *o;
	int i;

	vq_cli_parse(&tool, argc, argv);
	if (method != VQ_METHOD_BEST)
		return;
	for (o = opts; o->name; o++)
		for (i = 0; best[i][0]; i++)
			if (strcmp(o->name, best[i][0]) == 0)
				o->dflt = best[i][1];
	optind = 0;
	vq_cli_parse(&tool, argc, argv);
	act_order = 1;
}

static int fill(struct vq_search_opts *o)
{
	struct vq_err err = {0};
	uint32_t group = 0, w_auto = method == VQ_METHOD_NF4 ? 64 : 128;
	int rc = check_nf4(bits_of[w_bits]);

	if (rc != 0)
		return rc;
	if (act_group(&group) < 0)
		return vq_cli_usage(&tool, "--acts %s goes without --act-group",
				    acts == VQ_ACTS_TOKEN ? "token" : "paper");
	*o = (struct vq_search_opts){
		.method = (enum vq_method)method,
		.w = {bits_of[w_bits], w_group == GROUP_AUTO ? w_auto : group_of[w_group - 1],
		      w_sym},
		.a = {.bits = bits_of[a_bits], .group = group, .sym = a_sym, .clip = 1},
		.acts = (enum vq_acts_scheme)acts,
		.act_lp = act_lp,
		.veo = veo,
		.eta = eta,
		.veo_lambda = veo_lambda,
		.first_unit = 0,
		.last_unit = UINT32_MAX,
		.resume = resume,
		.keep_inputs = keep_inputs,
		.sweeps = sweeps,
		.rows = rows,
		.act_order = act_order,
		.gptaq = gptaq,
		.polish = polish,
		.awq_joint = awq_joint,
		.awq_duo = awq_duo,
		.token_weights = (enum vq_token_weights)token_weights,
		.vision_weight = -1,
		.mixed = mixed,
		.w_clip = w_clip,
		.rotate = (enum vq_rotate)rotate,
		.smooth_norms = smooth_at,
		.clip = clip && method != VQ_METHOD_LAYERWISE && method != VQ_METHOD_QVLM,
		.seed = common.seed,
	};
	if (parse_smooth(smooth, o) < 0)
		return vq_cli_usage(&tool,
				    "--smooth wants 'off', 'search' or a number of 0..1, got '%s'",
				    smooth);
	if (o->method == VQ_METHOD_AWQ &&
	    (o->smooth != VQ_SMOOTH_OFF || o->rotate != VQ_ROTATE_NONE || o->clip))
		return vq_cli_usage(&tool,
				    "awq has scales and clips of its own: no --rotate, --smooth, "
				    "--clip");
	if (o->smooth == VQ_SMOOTH_SEARCH && vq_search_clips_weights(o))
		return vq_cli_usage(&tool,
				    "--smooth search is for rtn, gptq and best; layerwise and qvlm "
				    "search clips of weights in its place, and want a number");
	if (strcmp(vision_weight, "measured") != 0 &&
	    vq_parse_f64(&o->vision_weight, vision_weight, 0, 1e6) < 0)
		return vq_cli_usage(&tool,
				    "--vision-weight wants a number of 0..1000000 or 'measured', "
				    "got '%s'",
				    vision_weight);
	if (vq_search_parts(parts, &o->parts, &err) < 0 || vq_scheme_check(o, &err) < 0)
		return vq_cli_usage(&tool, "%s", err.text);
	if (blocks && parse_blocks(blocks, o) < 0)
		return vq_cli_usage(&tool, "--blocks wants units A-B of 0..65535, got '%s'",
				    blocks);
	return 0;
}

/* Floating-point operations a second that products reach: VQLM does not measure before it works, a guess will do. */
#define FLOP_RATE 5e10

static int say_cost(const struct vq_search_opts *o, struct vq_err *err)
{
	int level = common.level >= 0 ? common.level : common.output != NULL;
	struct vq_search_cost c;
	int rc = vq_search_dry_run(o, STDIN_FILENO, "stdin", level, &c, err);

	if (rc < 0)
		return rc;
	printf("memory       %10.1f MiB of own memory\n"
	       "disk         %10.1f MiB of stream at most, less when compressed\n"
	       "time         %10.1f s at most (%.3g GFLOP at %.0f GFLOP/s a thread)\n",
	       (double)c.memory / 1048576, (double)c.stream / 1048576,
	       c.flop / FLOP_RATE / omp_get_max_threads() + (double)c.stream / 2e8, c.flop / 1e9,
	       FLOP_RATE / 1e9);
	return VQ_OK;
}

int main(int argc, char **argv)
{
	struct vq_search_opts o;
	struct vq_output out = {.fd = -1};
	struct vq_err err = {0};
	char *aside = NULL;
	int rc;

	parse(argc, argv);
	rc = fill(&o);
	if (rc != 0)
		return rc;
	if (dry_run)
		return vq_cli_finish(&tool, say_cost(&o, &err), &err);
	if (vq_search_by_block(&o))
		vq_mem_keep_freed();
	else
		vq_mem_keep_large();
	vq_stop_catch();
	rc = vq_output_aside(&aside, common.output, o.resume, &err);
	o.resume = aside ? aside : o.resume;
	if (rc == VQ_OK)
		rc = vq_output_open(&out, common.output, &err);
	if (rc == VQ_OK) {
		rc = vq_search_run(&o, STDIN_FILENO, "stdin", out.fd, out.label, common.level,
				   &err);
		if (rc >= 0)
			rc = vq_output_commit(&out, &err);
		else
			vq_output_abort(&out, 1);
	}
	if (rc >= 0 && aside)
		unlink(aside);
	vq_free(aside);
	return vq_cli_finish(&tool, rc, &err);
}
