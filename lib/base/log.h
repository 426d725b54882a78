/* Talk on standard error: levels, and progress when it is a terminal. */
#ifndef VQ_BASE_LOG_H
#define VQ_BASE_LOG_H

#include <stdint.h>

#include "base/err.h"

/* 0 quiet, 1 normal (warnings), 2 verbose (-v), 3 very verbose (-vv).  Set once by main. */
void vq_log_setup(const char *tool, int level);

/* "tool: warning: text"; not when quiet.  Something the user should know; the work goes on. */
void vq_warn(const char *fmt, ...) VQ_PRINTF(1, 2);

/* "tool: text"; with -v and more. */
void vq_info(const char *fmt, ...) VQ_PRINTF(1, 2);

/* One line that is redrawn at most ten times a second: what, done of total, rate, time left.  Nothing
 * is written unless standard error is a terminal and the level is 1 or more. */
struct vq_progress {
	const char *what;
	uint64_t total, done;
	double t0, t_last;
	int shown;
};

void vq_progress_start(struct vq_progress *p, const char *what, uint64_t total);
void vq_progress_step(struct vq_progress *p, uint64_t done);
void vq_progress_end(struct vq_progress *p); /* clears the line */

/* Seconds on the monotonic clock. */
double vq_now(void);

#endif
