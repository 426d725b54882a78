/* What every tool shares: the option table, help, output, exit. */
#ifndef VQ_BIN_CLI_H
#define VQ_BIN_CLI_H

#include <stdint.h>

#include "base/err.h"

enum vq_opt_type {
	VQ_OPT_FLAG,   /* int, set to 1; dst gets 0 first */
	VQ_OPT_COUNT,  /* int, one more each time */
	VQ_OPT_U32,    /* uint32_t in min..max */
	VQ_OPT_U64,    /* uint64_t in min..max */
	VQ_OPT_F64,    /* double in min..max */
	VQ_OPT_STR,    /* const char * */
	VQ_OPT_CHOICE, /* int, position in choices */
};

/* One option.  The table of a tool is the only place that knows it: parsing, --help and the test against
 * the man page read it.  A table ends with {0}. */
struct vq_opt {
	const char *name; /* long name */
	char letter;      /* 0: none */
	enum vq_opt_type type;
	const char *arg; /* metavariable, NULL for flags */
	void *dst;
	const char *dflt; /* default as the user would write it; NULL: dst is 0 or NULL */
	const char *help;
	double min, max;     /* U32, U64, F64 */
	const char *choices; /* CHOICE: "a|b|c" */
};

/* Rows of a tool that opens a model: --vision, --aspect, --template. */
#define VQ_OPTS_MODEL(vision, aspect, template)                                                    \
	{"vision",                                                                                 \
	 0,                                                                                        \
	 VQ_OPT_STR,                                                                               \
	 "PATH",                                                                                   \
	 &(vision),                                                                                \
	 NULL,                                                                                     \
	 "checkpoint of the vision tower, of a model that lacks it: a folder, of a GGUF file its " \
	 "mmproj (default: beside the model, by its name)",                                        \
	 0,                                                                                        \
	 0,                                                                                        \
	 NULL},                                                                                    \
		{"aspect",                                                                         \
		 0,                                                                                \
		 VQ_OPT_CHOICE,                                                                    \
		 "HOW",                                                                            \
		 &(aspect),                                                                        \
		 "model",                                                                          \
		 "what pictures go through that are not square: as the model has it, cut to the "  \
		 "middle, or padded",                                                              \
		 0,                                                                                \
		 0,                                                                                \
		 VQ_ASPECTS},                                                                      \
	{                                                                                          \
		"template", 0, VQ_OPT_STR, "NAME", &(template), NULL,                              \
			"chat template instead of the model's: llava-hf, vicuna_v1, llava_v1, "    \
			"llava_v0, stablelm, phi, qwen, smolvlm or plain",                         \
			0, 0, NULL                                                                 \
	}

struct vq_common {
	uint32_t threads;   /* -t, 0 = all */
	int level;          /* -l, -1 = auto */
	const char *output; /* -o, NULL = stdout */
	uint64_t seed;      /* -S */
	int quiet, verbose; /* -q, -v */
};

struct vq_tool {
	const char *name;     /* "vqlm-calib" */
	const char *summary;  /* one line */
	const char *usage;    /* "[options] -m MODEL [-d DATA] > STREAM" */
	const char *about;    /* a paragraph or two, shown by --help */
	const char *examples; /* shown by --help */
	const struct vq_opt *opts;
	struct vq_common *common;
	int no_operands; /* 1: words after the options are an error */
};

/* Parses argv into the destinations, handles --help and --version, sets up logging, threads and the kernel
 * set.  Returns the index of the first operand, or exits (0 after help, 2 on a wrong command line). */
int vq_cli_parse(const struct vq_tool *tool, int argc, char **argv);

/* Says what is wrong with the command line and returns 2. */
int vq_cli_usage(const struct vq_tool *tool, const char *fmt, ...) VQ_PRINTF(2, 3);

/* Closes standard output, prints the error if there is one, and returns the exit status. */
int vq_cli_finish(const struct vq_tool *tool, int rc, struct vq_err *err);

#endif
