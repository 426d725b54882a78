/* The model of memory, disk and time. */
#include "task/calib_cost.h"

#include <stdio.h>
#include <sys/statvfs.h>

#include "base/io.h"
#include "base/mem.h"
#include "task/calib_weights.h"

/* The program, its libraries, the tokenizer, JSON: what a run over nothing takes. */
#define BASE_BYTES (16u << 20)

int vq_calib_cost(struct vq_calib_cost *c, const struct vq_calib_run *r, int level,
		  struct vq_err *err)
{
	int rc;

	(void)level;
	*c = (struct vq_calib_cost){BASE_BYTES, 0, 0};
	rc = vq_calib_weight_bytes(r->cfg, r->ckpt, &c->stream, err);
	return rc;
}

static void put_disk(const char *output, struct vq_err *err)
{
	struct statvfs fs;
	char *dir = vq_path_dir(output, err);

	if (dir && statvfs(dir, &fs) == 0)
		printf("free disk    %10.1f MiB at %s\n",
		       (double)fs.f_bavail * (double)fs.f_frsize / 1048576.0, dir);
	vq_free(dir);
}

int vq_calib_dry_run(const struct vq_calib_run *r, const char *output, int level,
		     struct vq_err *err)
{
	struct vq_calib_cost c;
	int rc = vq_calib_cost(&c, r, level, err);

	if (rc < 0)
		return rc;
	printf("memory       %10.1f MiB of own memory; the mapped checkpoint does not count\n"
	       "stream       %10.1f MiB before compression\n"
	       "time         %10.1f s at %.0f GFLOP/s (%.3g GFLOP)\n",
	       (double)c.memory / 1048576.0, (double)c.stream / 1048576.0, c.flop / 100e9, 100.0,
	       c.flop / 1e9);
	if (output)
		put_disk(output, err);
	return VQ_OK;
}
