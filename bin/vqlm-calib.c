/* vqlm-calib: checkpoint and samples in, model stream out. */
#include "cli.h"

#include <stddef.h>

#include "task/calib.h"

static struct vq_common common;
static struct vq_calib_opts o;

static const struct vq_opt opts[] = {
	{"model", 'm', VQ_OPT_STR, "MODEL", &o.from.model, NULL,
	 "checkpoint: a folder, an archive of one, a PyTorch file in one; or a model stream; - "
	 "reads an archive or a stream from standard input",
	 0, 0, NULL},
	{"data", 'd', VQ_OPT_STR, "DATA", &o.data, NULL,
	 "samples: LLaVA conversation JSON or JSON Lines", 0, 0, NULL},
	{"images", 0, VQ_OPT_STR, "DIR", &o.images, NULL,
	 "folder that image names in DATA are relative to (default: that of DATA)", 0, 0, NULL},
	{"samples", 'n', VQ_OPT_U32, "N", &o.n, "64",
	 "samples, a seeded choice of DATA; 0 sends weights only", 0, 1 << 20, NULL},
	VQ_OPTS_MODEL(o.from.vision, o.from.aspect, o.from.template_name),
	{"checkpoint", 0, VQ_OPT_STR, "U,...", &o.checkpoints, NULL,
	 "units whose full-precision input is sent too, so that search may start there", 0, 0,
	 NULL},
	{"bits", 0, VQ_OPT_STR, "B,...", &o.bits, "4,6,8", "bit widths of the joint matrices, 2..8",
	 0, 0, NULL},
	{"error-stats", 0, VQ_OPT_FLAG, NULL, &o.error_stats, NULL,
	 "also measure each layer's rounding error, for vqlm-entropy --proxy error", 0, 0, NULL},
	{"influence-samples", 0, VQ_OPT_U32, "N", &o.influence_samples, "8",
	 "at most N samples for the influence of layers, weights of pictures' tokens and sketches "
	 "of "
	 "the vision features; 0 leaves them out",
	 0, 256, NULL},
	{"dry-run", 0, VQ_OPT_FLAG, NULL, &o.dry_run, NULL,
	 "print the memory, disk and time needed, and stop", 0, 0, NULL},
	{0}};

static const struct vq_tool tool = {
	"vqlm-calib",
	"run a model on samples and send statistics, then its weights",
	"[options] -m MODEL -d DATA > STREAM",
	"Reads a checkpoint, runs it in full precision on a seeded choice of samples, and\n"
	"writes a model stream: configuration, tokenizer, samples, statistics, then every\n"
	"weight in order of execution.  Progress goes to standard error.\n",
	"  vqlm-calib -m llava-1.5-7b -d train.json | vqlm-entropy | \\\n"
	"    vqlm-search -w 4 -a 4 | vqlm-pack > m.vqm\n"
	"  vqlm-calib -m llava-1.5-7b -n 0 | vqlm-entropy | vqlm-search --method rtn -w 4 | "
	"vqlm-pack > m.vqm\n",
	opts,
	&common,
	1};

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	int rc;

	vq_cli_parse(&tool, argc, argv);
	if (!o.from.model)
		return vq_cli_usage(&tool, "-m MODEL is wanted");
	if (o.n > 0 && !o.data)
		return vq_cli_usage(&tool, "-d DATA is wanted (or -n 0 for weights only)");
	o.seed = common.seed;
	o.output = common.output;
	o.level = common.level;
	rc = vq_calib(&o, &err);
	return vq_cli_finish(&tool, rc, &err);
}
