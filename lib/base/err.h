/* Errors: the library returns a code and fills a struct vq_err; it never prints and never exits. */
#ifndef VQ_BASE_ERR_H
#define VQ_BASE_ERR_H

#include <stdarg.h>

#define VQ_MUST_CHECK   __attribute__((warn_unused_result))
#define VQ_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Return codes.  Zero or positive is success.  Each negative code is one exit status of the tools. */
enum vq_code {
	VQ_OK = 0,
	VQ_E_NO = -1,    /* done, and the answer is no */
	VQ_E_USAGE = -2, /* wrong command line */
	VQ_E_DATA = -3,  /* bad, cut or unsupported input */
	VQ_E_SYS = -4,   /* the system failed: memory, disk, a file named on the command line */
	VQ_E_STOP = -75, /* stopped by a signal; can be resumed */
};

struct vq_err {
	int code; /* VQ_OK until something failed */
	char text
		[1024]; /* one line: the thing, the place, what was wanted, what came, the remedy */
};

/* Fills err (which may be NULL) unless it holds an earlier error, and returns code. */
int vq_fail(struct vq_err *err, int code, const char *fmt, ...) VQ_PRINTF(3, 4);

/* The same with ": strerror(errno)" appended. */
int vq_fail_errno(struct vq_err *err, int code, const char *fmt, ...) VQ_PRINTF(3, 4);

/* Puts "prefix: " in front of the text of an error that is already set. Returns err->code. */
int vq_err_prefix(struct vq_err *err, const char *fmt, ...) VQ_PRINTF(2, 3);

/* The exit status of a tool for a return code. */
int vq_exit_status(int code);

#endif
