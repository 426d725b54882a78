/* vqlm-ls: list or check a tensor stream or a packed model. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "cli.h"
#include "task/ls.h"

static struct vq_ls ls;
static struct vq_common common;

static const struct vq_opt opts[] = {
	{"check", 'c', VQ_OPT_FLAG, NULL, &ls.check, NULL,
	 "read everything, verify every hash, print one summary line", 0, 0, NULL},
	{"json", 0, VQ_OPT_FLAG, NULL, &ls.json, NULL, "one JSON object a line", 0, 0, NULL},
	{"cat", 0, VQ_OPT_STR, "NAME", &ls.cat, NULL,
	 "write the payloads of the records of a stream whose names match NAME, which may hold *",
	 0, 0, NULL},
	{0},
};

static const struct vq_tool tool = {
	.name = "vqlm-ls",
	.summary = "list or check a tensor stream or a packed model",
	.usage = "[options] [FILE...]",
	.about =
		"Lists what a tensor stream or a packed model (.vqm) holds, from FILE or standard\n"
		"input: kind, type, shape, raw and stored bytes, name, attributes of every "
		"record;\n"
		"size, offset and name of every member.  A stream that is cut or damaged is\n"
		"refused (3); --check also reads and verifies every payload.\n",
	.examples = "  vqlm-ls llava-w4a4.vqm\n"
		    "  vqlm-calib -m llava-1.5-7b -n 0 | vqlm-ls\n"
		    "  vqlm-ls --check part-*.vqs\n"
		    "  vqlm-ls --cat 'search/block/*' llava-w4a4.vqs\n",
	.opts = opts,
	.common = &common,
};

/* One operand, or standard input. */
static int one(const char *path, FILE *out, struct vq_err *err)
{
	int fd = STDIN_FILENO, rc;

	if (!path || strcmp(path, "-") == 0)
		return vq_ls_run(&ls, fd, "stdin", out, err);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", path);
	rc = vq_path_is_dir(path) ? vq_fail(err, VQ_E_SYS, "%s: want a file, got a folder", path)
				  : vq_ls_run(&ls, fd, path, out, err);
	close(fd);
	return rc;
}

int main(int argc, char **argv)
{
	struct vq_err err = {0};
	struct vq_output o;
	FILE *out = stdout;
	int at = vq_cli_parse(&tool, argc, argv), rc;

	ls.wide = common.verbose > 0;
	rc = vq_output_open(&o, common.output, &err);
	if (rc == VQ_OK && o.path && !(out = fdopen(dup(o.fd), "w")))
		rc = vq_fail_errno(&err, VQ_E_SYS, "%s: cannot write", o.label);
	if (rc == VQ_OK && at == argc)
		rc = one(NULL, out, &err);
	for (; rc == VQ_OK && at < argc; at++)
		rc = one(argv[at], out, &err);
	if (out && out != stdout && fclose(out) != 0 && rc == VQ_OK)
		rc = vq_fail_errno(&err, VQ_E_SYS, "%s: cannot write", o.label);
	if (rc == VQ_OK)
		rc = vq_output_commit(&o, &err);
	else
		vq_output_abort(&o, 0);
	return vq_cli_finish(&tool, rc, &err);
}
