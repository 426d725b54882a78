/* vqlm-prune: a model stream without some of the decoder's blocks. */
#include "cli.h"

#include <stdlib.h>

#include "base/parse.h"
#include "task/prune.h"
#include "task/prune_score.h"

static struct vq_common common;
static struct vq_prune_opts o;
static int criterion;
static const char *params;

static const struct vq_opt opts[] = {
	{"model", 'm', VQ_OPT_STR, "MODEL", &o.model, NULL,
	 "checkpoint folder, or a model stream: a file, or - for standard input", 0, 0, NULL},
	{"count", 'n', VQ_OPT_U32, "N", &o.n, NULL, "remove N blocks", 1, 1023, NULL},
	{"ratio", 0, VQ_OPT_F64, "R", &o.ratio, NULL, "instead: that share of them, rounded down",
	 0, 1, NULL},
	{"params", 0, VQ_OPT_STR, "N", &params, NULL,
	 "instead: as many as bring the model nearest to N weights, as in 2.7B or 900M", 0, 0,
	 NULL},
	{"blocks", 0, VQ_OPT_STR, "LIST", &o.blocks, NULL, "instead: these, as in 20,24-26", 0, 0,
	 NULL},
	{"criterion", 0, VQ_OPT_CHOICE, "NAME", &criterion, "magnitude",
	 "what a block is judged by; low goes first", 0, 0, VQ_CRITERIA},
	{"no-keep", 0, VQ_OPT_FLAG, NULL, &o.no_keep, NULL,
	 "the first four blocks and the last two may go too", 0, 0, NULL},
	{"table", 0, VQ_OPT_FLAG, NULL, &o.table, NULL,
	 "print the scores of the blocks as CSV instead of the stream", 0, 0, NULL},
	{"template", 0, VQ_OPT_STR, "NAME", &o.template_name, NULL,
	 "chat template, where the checkpoint's own is not known", 0, 0, NULL},
	{0}};

static const struct vq_tool tool = {
	"vqlm-prune",
	"remove blocks of a model's decoder",
	"[options] -m MODEL -n N > STREAM",
	"Scores the blocks (layers) of a model's decoder, removes those that matter least and\n"
	"writes what is left as a model stream, which vqlm-calib -m - takes as a checkpoint.\n",
	"  vqlm-prune -m llava-1.5-7b -n 6 | vqlm-calib -m - -d train.json | vqlm-entropy | \\\n"
	"    vqlm-search -w 4 -a 4 | vqlm-pack > m.vqm\n"
	"  vqlm-prune -m llava-1.5-7b --table > scores.csv\n",
	opts,
	&common,
	1};

/* "2.7B", "900M", "12345" -> weights; 0 for anything else. */
static uint64_t parse_params(const char *s)
{
	char *end;
	double v, unit = 1;

	if (*s < '0' || *s > '9')
		return 0;
	v = strtod(s, &end);
	if (*end == 'B')
		unit = 1e9;
	else if (*end == 'M')
		unit = 1e6;
	end += unit > 1;
	return *end || !(v * unit >= 1 && v * unit <= 1e15) ? 0 : (uint64_t)(v * unit + 0.5);
}

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	int rc, asked;

	vq_cli_parse(&tool, argc, argv);
	if (!o.model)
		return vq_cli_usage(&tool, "-m MODEL is wanted");
	asked = (o.n > 0) + (o.ratio > 0) + (params != NULL) + (o.blocks != NULL);
	if (asked > 1 || (asked == 0 && !o.table))
		return vq_cli_usage(&tool, "one of -n, --ratio, --params, --blocks is wanted%s",
				    asked ? ", got more" : " (or --table)");
	if (o.table && o.blocks)
		return vq_cli_usage(&tool, "--table wants no --blocks beside it");
	if (params && !(o.params = parse_params(params)))
		return vq_cli_usage(
			&tool, "--params wants a number of weights, as in 2.7B or 900M; got '%s'",
			params);
	o.criterion = vq_criteria[criterion].name;
	o.seed = common.seed;
	o.output = common.output;
	o.level = common.level;
	rc = vq_prune(&o, &err);
	return vq_cli_finish(&tool, rc, &err);
}
