/* vqlm-entropy: puts the plan into a model stream. */
#include "cli.h"

#include "base/parse.h"
#include "task/entropy.h"

static struct vq_common common;
static struct vq_entropy_opts o;
static int partition, proxy, space;
static const char *h0, *quantile;

static const struct vq_opt opts[] = {
	{"h0", 0, VQ_OPT_STR, "X", &h0, NULL,
	 "threshold of the mean dependency within a block (default: the mean over all pairs)", 0, 0,
	 NULL},
	{"h0-quantile", 0, VQ_OPT_STR, "Q", &quantile, NULL,
	 "instead: that quantile of the pairs, 0 to 1 (0.5 is the median)", 0, 0, NULL},
	{"depth", 0, VQ_OPT_U32, "N", &o.depth, "3", "layers a block at most", 1, 64, NULL},
	{"partition", 0, VQ_OPT_CHOICE, "NAME", &partition, "entropy", "how blocks are cut", 0, 0,
	 VQ_PARTITIONS},
	{"offset", 0, VQ_OPT_U32, "N", &o.offset, "0",
	 "layers of each tower's first block (fixed); 0 is as the others", 0, 64, NULL},
	{"proxy", 0, VQ_OPT_CHOICE, "NAME", &proxy, "entropy", "what stands for the dependency", 0,
	 0, VQ_PROXIES},
	{"acts", 'a', VQ_OPT_U32, "BITS", &o.bits, "4", "bits of the levels; those of the search",
	 2, 8, NULL},
	{"space", 0, VQ_OPT_CHOICE, "NAME", &space, "raw", "outputs as they are, or rotated", 0, 0,
	 VQ_SPACES},
	{"table", 0, VQ_OPT_FLAG, NULL, &o.table, NULL,
	 "print the numbers of every unit as TSV instead of the stream", 0, 0, NULL},
	{0}};

static const struct vq_tool tool = {
	"vqlm-entropy",
	"cut a model into blocks by activation entropy",
	"[options] < STREAM > STREAM",
	"Reads the statistics of a model stream, works out how much neighbouring layers depend\n"
	"on each other, and puts the plan (which layers are searched together) before the first\n"
	"weight.  Everything else passes as it came.\n",
	"  vqlm-calib -m llava-1.5-7b -d train.json | vqlm-entropy | vqlm-search -w 4 -a 4 > "
	"m.vqs\n"
	"  vqlm-calib -m llava-1.5-7b -d train.json | vqlm-entropy --table -a 6 > depend.tsv\n",
	opts,
	&common,
	1};

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	int rc;

	vq_cli_parse(&tool, argc, argv);
	o.h0 = -1;
	if (h0 && vq_parse_f64(&o.h0, h0, 0, 1e6) < 0)
		return vq_cli_usage(&tool, "--h0 wants a number of 0..1000000, got '%s'", h0);
	o.quantile = -1;
	if (quantile && (h0 || vq_parse_f64(&o.quantile, quantile, 0, 1) < 0))
		return vq_cli_usage(&tool,
				    h0 ? "--h0-quantile wants no --h0 beside it"
				       : "--h0-quantile wants a number of 0..1, got '%s'",
				    quantile);
	o.partition = (enum vq_partition)partition;
	o.proxy = (enum vq_proxy)proxy;
	o.space = (enum vq_space)space;
	o.seed = common.seed;
	o.output = common.output;
	o.level = common.level;
	rc = vq_entropy(&o, &err);
	return vq_cli_finish(&tool, rc, &err);
}
