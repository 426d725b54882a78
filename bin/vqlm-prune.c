/* vqlm-prune: a model stream without some of the decoder's blocks. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "task/heal.h"
#include "task/prune.h"
#include "task/prune_score.h"

static struct vq_common common;
static struct vq_prune_opts o;
static const char *params;

static const struct vq_opt opts[] = {
	{"model", 'm', VQ_OPT_STR, "MODEL", &o.from.model, NULL,
	 "checkpoint: a folder, an archive of one, a PyTorch file in one; or a model stream; - "
	 "reads an archive or a stream from standard input",
	 0, 0, NULL},
	{"count", 'n', VQ_OPT_U32, "N", &o.n, NULL, "remove N blocks", 1, 1023, NULL},
	{"ratio", 0, VQ_OPT_F64, "R", &o.ratio, NULL, "instead: that share of them, rounded down",
	 0, 1, NULL},
	{"params", 0, VQ_OPT_STR, "N", &params, NULL,
	 "instead: as many as bring the model nearest to N weights, as in 2.7B or 900M", 0, 0,
	 NULL},
	{"blocks", 0, VQ_OPT_STR, "LIST", &o.blocks, NULL,
	 "instead: these, as in 20,24-26, without any score", 0, 0, NULL},
	{"scores", 0, VQ_OPT_STR, "FILE", &o.scores, NULL,
	 "take the scores, or the order of removal, from a CSV file", 0, 0, NULL},
	{"criterion", 0, VQ_OPT_STR, "NAME", &o.criterion, NULL,
	 "what a block is judged by, low goes first: " VQ_CRITERIA
	 " (default: ppl with -d or --text, else magnitude)",
	 0, 0, NULL},
	{"data", 'd', VQ_OPT_STR, "DATA", &o.data, NULL,
	 "samples: LLaVA conversation JSON or JSON Lines", 0, 0, NULL},
	{"images", 0, VQ_OPT_STR, "DIR", &o.images, NULL,
	 "folder that image names in DATA are relative to (default: that of DATA)", 0, 0, NULL},
	{"text", 0, VQ_OPT_STR, "FILE", &o.text, NULL, "samples: crops of long lines of a text", 0,
	 0, NULL},
	{"samples", 0, VQ_OPT_U32, "N", &o.samples, "10", "samples, a seeded choice", 1, 65536,
	 NULL},
	{"tokens", 0, VQ_OPT_U32, "N", &o.tokens, "128", "tokens of a crop of --text", 2, 65536,
	 NULL},
	{"answers", 0, VQ_OPT_FLAG, NULL, &o.answers, NULL,
	 "ask for the tokens of the answers in DATA alone, not for every token of text", 0, 0,
	 NULL},
	{"taylor-batch", 0, VQ_OPT_U32, "N", &o.taylor_batch, "10",
	 "of --criterion taylor: samples whose mean loss is taken at a time", 1, 65536, NULL},
	{"heal", 0, VQ_OPT_STR, "WAY", &o.heal, NULL,
	 "bring what is left nearer to the whole model on -d or --text: " VQ_HEALINGS, 0, 0, NULL},
	{"heal-samples", 0, VQ_OPT_U32, "N", &o.heal_samples, "256", "samples of --heal", 2, 65536,
	 NULL},
	{"lora-rank", 0, VQ_OPT_U32, "N", &o.lora_rank, "8", "of --heal lora: rank of the adapters",
	 1, 256, NULL},
	{"lora-steps", 0, VQ_OPT_U32, "N", &o.lora_steps, "200", "steps of 16 samples", 1, 1000000,
	 NULL},
	{"lora-rate", 0, VQ_OPT_F64, "R", &o.lora_rate, "0.0003", "largest rate of learning", 0, 1,
	 NULL},
	{"lora-state", 0, VQ_OPT_STR, "FILE", &o.lora_state, NULL,
	 "file that a training which was stopped goes on from", 0, 0, NULL},
	{"iterative", 0, VQ_OPT_FLAG, NULL, &o.iterative, NULL,
	 "remove one block at a time and score the others again", 0, 0, NULL},
	{"no-keep", 0, VQ_OPT_FLAG, NULL, &o.no_keep, NULL,
	 "the first four blocks and the last two may go too", 0, 0, NULL},
	{"table", 0, VQ_OPT_FLAG, NULL, &o.table, NULL,
	 "print the scores of the blocks as CSV instead of the stream", 0, 0, NULL},
	VQ_OPTS_MODEL(o.from.vision, o.from.aspect, o.from.template_name),
	{0}};

static const struct vq_tool tool = {
	"vqlm-prune",
	"remove blocks of a model's decoder",
	"[options] -m MODEL [-d DATA | --text FILE] -n N > STREAM",
	"Scores the blocks (layers) of a model's decoder, removes those that matter least and\n"
	"writes what is left as a model stream, which vqlm-calib -m - takes as a checkpoint.\n",
	"  vqlm-prune -m llava-1.5-7b -d train.json -n 6 | vqlm-calib -m - -d train.json | \\\n"
	"    vqlm-entropy | vqlm-search -w 4 -a 4 | vqlm-pack > m.vqm\n"
	"  vqlm-prune -m llava-1.5-7b -d train.json --table > scores.csv\n"
	"  vqlm-prune -m llava-1.5-7b --scores scores.csv --params 5.5B -o pruned.vqs\n",
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

static int check_heal(void)
{
	if (o.lora_state && (!o.heal || strcmp(o.heal, "lora") != 0))
		return vq_cli_usage(&tool, "--lora-state wants --heal lora");
	if (!o.heal)
		return 0;
	if (!vq_healing_by_name(o.heal))
		return vq_cli_usage(&tool, "--heal wants %s; got '%s'", VQ_HEALINGS, o.heal);
	if (!o.data && !o.text)
		return vq_cli_usage(&tool, "--heal wants samples: -d DATA or --text FILE");
	if (o.table)
		return vq_cli_usage(&tool, "--table wants no --heal beside it");
	return 0;
}

/* What the blocks are judged by, and what that needs. */
static int check_scores(void)
{
	const struct vq_criterion *c = vq_prune_criterion(&o);
	int samples = o.data || o.text;

	if (!c)
		return vq_cli_usage(&tool, "--criterion wants %s; got '%s'", VQ_CRITERIA,
				    o.criterion);
	if ((o.blocks || o.scores) && (o.criterion || (samples && !o.heal) || o.iterative))
		return vq_cli_usage(&tool,
				    "%s wants no criterion, samples or --iterative beside it",
				    o.blocks ? "--blocks" : "--scores");
	if (o.blocks && o.scores)
		return vq_cli_usage(&tool, "--blocks wants no --scores beside it");
	if (o.data && o.text)
		return vq_cli_usage(&tool, "one of -d and --text is wanted, got both");
	if ((o.images || o.answers) && !o.data)
		return vq_cli_usage(&tool, "--%s wants -d DATA", o.images ? "images" : "answers");
	if (o.table && o.iterative)
		return vq_cli_usage(&tool, "--table wants no --iterative beside it");
	if (c->needs_samples && !samples && !o.blocks && !o.scores)
		return vq_cli_usage(&tool, "--criterion %s wants samples: -d DATA or --text FILE",
				    c->name);
	if (!c->needs_samples && samples && !o.heal)
		return vq_cli_usage(&tool,
				    "--criterion %s looks at no samples; -d or --text is too much",
				    c->name);
	return 0;
}

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	int rc, asked;

	vq_cli_parse(&tool, argc, argv);
	if (!o.from.model)
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
	if ((rc = check_scores()) || (rc = check_heal()))
		return rc;
	o.seed = common.seed;
	o.output = common.output;
	o.level = common.level;
	rc = vq_prune(&o, &err);
	return vq_cli_finish(&tool, rc, &err);
}
