/* The option table at work. */
#include "cli.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/parse.h"
#include "kernel/blas.h"
#include "kernel/cpu.h"

#define MAX_OPTS 64

static int want_help, want_version;

/* The tool's options followed by the common ones. */
static size_t all_opts(const struct vq_tool *t, struct vq_opt *out)
{
	struct vq_common *c = t->common;
	const struct vq_opt common[] = {
		{"output", 'o', VQ_OPT_STR, "FILE", &c->output, NULL,
		 "write to FILE (as FILE.part until it is whole) instead of standard output", 0, 0,
		 NULL},
		{"seed", 'S', VQ_OPT_U64, "N", &c->seed, "0", "seed of every random choice", 0,
		 1e15, NULL},
		{"threads", 't', VQ_OPT_U32, "N", &c->threads, "0",
		 "threads; 0 takes all cores, or SLURM_CPUS_PER_TASK", 0, 1024, NULL},
		{"level", 'l', VQ_OPT_U32, "N", &c->level, NULL,
		 "zstd level 0..19 (default: 0 into a pipe, 1 into a file)", 0, 19, NULL},
		{"quiet", 'q', VQ_OPT_FLAG, NULL, &c->quiet, NULL, "no warnings, no progress", 0, 0,
		 NULL},
		{"verbose", 'v', VQ_OPT_COUNT, NULL, &c->verbose, NULL,
		 "say more; twice: even more", 0, 0, NULL},
		{"help", 'h', VQ_OPT_FLAG, NULL, &want_help, NULL, "show this text", 0, 0, NULL},
		{"version", 'V', VQ_OPT_FLAG, NULL, &want_version, NULL, "show the version", 0, 0,
		 NULL},
	};
	size_t n = 0, i;

	for (i = 0; t->opts && t->opts[i].name; i++)
		out[n++] = t->opts[i];
	for (i = 0; i < sizeof(common) / sizeof(common[0]); i++)
		out[n++] = common[i];
	return n;
}

/* Prints text wrapped at 100 columns, each line but the first indented. */
static void put_wrapped(const char *text, int indent, int column)
{
	while (*text) {
		size_t n = strcspn(text, " ");

		if (column > indent && column + 1 + (int)n > 100) {
			printf("\n%*s", indent, "");
			column = indent;
		} else if (column > indent) {
			putchar(' ');
			column++;
		}
		printf("%.*s", (int)n, text);
		column += (int)n;
		text += n + strspn(text + n, " ");
	}
	putchar('\n');
}

static void put_option(const struct vq_opt *o)
{
	char left[64], right[512];
	int n;

	n = snprintf(left, sizeof(left), o->letter ? "  -%c, --%s" : "  %c   --%s",
		     o->letter ? o->letter : ' ', o->name);
	if (o->arg && n < (int)sizeof(left))
		snprintf(left + n, sizeof(left) - (size_t)n, " %s", o->arg);
	n = snprintf(right, sizeof(right), "%s", o->help);
	if (o->choices)
		n += snprintf(right + n, sizeof(right) - (size_t)n, ": %s", o->choices);
	if (o->dflt)
		snprintf(right + n, sizeof(right) - (size_t)n, " [%s]", o->dflt);
	if (strlen(left) < 30)
		printf("%-30s", left);
	else
		printf("%s\n%30s", left, "");
	put_wrapped(right, 30, 30);
}

static void put_help(const struct vq_tool *t, const struct vq_opt *opts, size_t n)
{
	size_t i;

	printf("%s - %s\n\nusage: %s %s\n\n", t->name, t->summary, t->name, t->usage);
	if (t->about)
		printf("%s\n", t->about);
	puts("options:");
	for (i = 0; i < n; i++)
		put_option(&opts[i]);
	if (t->examples)
		printf("\nexamples:\n%s", t->examples);
	printf("\nexit status: 0 done; 1 done, and the answer is no; 2 wrong command line; 3 bad, "
	       "cut or unsupported\n"
	       "input; 4 the system failed; 75 stopped and resumable.  See %s(1) and vqlm(7).\n",
	       t->name);
}

/* Returns 0, or -1 when the value is out of range or not a number at all. */
static int set_value(const struct vq_opt *o, const char *text)
{
	int pos;

	switch (o->type) {
	case VQ_OPT_FLAG: *(int *)o->dst = 1; return 0;
	case VQ_OPT_COUNT: *(int *)o->dst += 1; return 0;
	case VQ_OPT_U32: return vq_parse_u32(o->dst, text, (uint32_t)o->min, (uint32_t)o->max);
	case VQ_OPT_U64: return vq_parse_u64(o->dst, text, (uint64_t)o->min, (uint64_t)o->max);
	case VQ_OPT_F64: return vq_parse_f64(o->dst, text, o->min, o->max);
	case VQ_OPT_STR: *(const char **)o->dst = text; return 0;
	case VQ_OPT_CHOICE:
		pos = vq_parse_choice(text, o->choices);
		if (pos >= 0)
			*(int *)o->dst = pos;
		return pos < 0 ? -1 : 0;
	}
	return -1;
}

static int bad_value(const struct vq_tool *t, const struct vq_opt *o, const char *text)
{
	if (o->type == VQ_OPT_CHOICE)
		return vq_cli_usage(t, "--%s wants one of %s, got '%s'", o->name, o->choices, text);
	return vq_cli_usage(t, "--%s wants %s %.15g..%.15g, got '%s'", o->name,
			    o->type == VQ_OPT_F64 ? "a number of" : "an integer of", o->min, o->max,
			    text);
}

static void set_defaults(const struct vq_opt *opts, size_t n, struct vq_common *c)
{
	size_t i;

	memset(c, 0, sizeof(*c));
	c->level = -1;
	for (i = 0; i < n; i++)
		if (opts[i].dflt && set_value(&opts[i], opts[i].dflt) < 0)
			fprintf(stderr, "%s: default '%s' is not valid\n", opts[i].name,
				opts[i].dflt);
}

/* A tool may be started with a standard descriptor closed.  Something must hold it, or the first file that is
 * opened would get it, and what is said on standard error would land in the output.  What holds standard input
 * cannot be read and what holds standard output cannot be written, so that using them fails as it should. */
static void hold_standard(void)
{
	int fd;

	/* Each is the lowest that is free when its turn comes, which is the one that open gives. */
	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY);
}

/* What getopt did not like: argv[optind - 1] is not it where short options share a word. */
static int bad_option(const struct vq_tool *tool, const char *word)
{
	if (optopt > 0 && optopt < 256)
		return vq_cli_usage(tool, "unknown option '-%c'", optopt);
	if (optopt >= 256)
		return vq_cli_usage(tool, "'%s': this option takes no value", word);
	return vq_cli_usage(tool, "unknown or ambiguous option '%s'", word);
}

/* OpenMP threads that wait for work spin, by default for milliseconds.  In a pipe of tools that share the
 * cores, or beside another program, that takes the core from whoever has work (measured: products up to 20
 * times slower).  libgomp reads how long to spin before main runs, so the only way to choose is to say it
 * and start again.  About 50 microseconds of spinning cover the gap between two loops. */
static void wait_calmly(char **argv)
{
	char self[4096];
	ssize_t n;

	if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY"))
		return;
	n = readlink("/proc/self/exe", self,
		     sizeof(self) - 1); /* by its name, which ps and pkill show */
	if (n <= 0 || setenv("GOMP_SPINCOUNT", "3000", 1) < 0)
		return;
	self[n] = '\0';
	execv(self, argv); /* when it fails we go on as we are */
}

int vq_cli_parse(const struct vq_tool *tool, int argc, char **argv)
{
	struct vq_opt opts[MAX_OPTS];
	struct option longs[MAX_OPTS + 1];
	char shorts[3 * MAX_OPTS + 2] = ":";
	size_t n = all_opts(tool, opts), i, m = 1;
	struct vq_err err = {0};
	int c, at = 0;

	wait_calmly(argv);
	hold_standard();
	memset(longs, 0, sizeof(longs));
	for (i = 0; i < n; i++) {
		int has_arg = opts[i].type != VQ_OPT_FLAG && opts[i].type != VQ_OPT_COUNT;

		longs[i] = (struct option){opts[i].name, has_arg, NULL, 256 + (int)i};
		if (opts[i].letter) {
			shorts[m++] = opts[i].letter;
			if (has_arg)
				shorts[m++] = ':';
		}
	}
	shorts[m] = '\0';
	set_defaults(opts, n, tool->common);
	while ((c = getopt_long(argc, argv, shorts, longs, &at)) != -1) {
		const struct vq_opt *o = NULL;

		if (c == ':')
			exit(vq_cli_usage(tool, "%s wants a value", argv[optind - 1]));
		if (c == '?')
			exit(bad_option(tool, argv[optind - 1]));
		for (i = 0; i < n; i++)
			if (c == 256 + (int)i || c == opts[i].letter)
				o = &opts[i];
		if (o && set_value(o, optarg) < 0)
			exit(bad_value(tool, o, optarg));
	}
	if (want_help || want_version) {
		if (want_help)
			put_help(tool, opts, n);
		else
			printf("%s %s\n", tool->name, VQ_VERSION);
		exit(vq_cli_finish(tool, VQ_OK, &err));
	}
	if (tool->no_operands && optind < argc)
		exit(vq_cli_usage(tool, "'%s' is not an option", argv[optind]));
	vq_log_setup(tool->name, tool->common->quiet ? 0 : 1 + tool->common->verbose);
	vq_threads_setup(tool->common->threads);
	if (vq_cpu_check(&err) < 0)
		exit(vq_cli_usage(tool, "%s", err.text));
	return optind;
}

int vq_cli_usage(const struct vq_tool *tool, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", tool->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; try '%s --help'\n", tool->name);
	return 2;
}

int vq_cli_finish(const struct vq_tool *tool, int rc, struct vq_err *err)
{
	int lost = ferror(stdout); /* a buffer that is empty now, so that nothing is left to fail */

	/* A full disk shows only when the last bytes go out, so closing is part of the work. */
	if (fflush(stdout) != 0 || (close(STDOUT_FILENO) < 0 && rc >= 0)) {
		if (rc >= 0)
			rc = vq_fail_errno(err, VQ_E_SYS, "stdout: cannot write");
	} else if (lost && rc >= 0) {
		rc = vq_fail(err, VQ_E_SYS, "stdout: cannot write");
	}
	if (rc < 0 && err->code != VQ_OK)
		fprintf(stderr, "%s: %s\n", tool->name, err->text);
	return vq_exit_status(rc);
}
