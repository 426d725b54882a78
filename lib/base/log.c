/* Talk on standard error. */
#include "base/log.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* The two process-wide settings of the suite; main sets them before any other thread exists. */
static const char *log_tool = "vqlm";
static int log_level = 1;

void vq_log_setup(const char *tool, int level)
{
	log_tool = tool;
	log_level = level;
}

static void say(const char *kind, const char *fmt, va_list ap)
{
	char line[2048];

	vsnprintf(line, sizeof(line), fmt, ap);
	fprintf(stderr, "%s: %s%s\n", log_tool, kind, line);
}

void vq_warn(const char *fmt, ...)
{
	va_list ap;

	if (log_level < 1)
		return;
	va_start(ap, fmt);
	say("warning: ", fmt, ap);
	va_end(ap);
}

void vq_info(const char *fmt, ...)
{
	va_list ap;

	if (log_level < 2)
		return;
	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
}

double vq_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

void vq_progress_start(struct vq_progress *p, const char *what, uint64_t total)
{
	p->what = what;
	p->total = total;
	p->done = 0;
	p->t0 = vq_now();
	p->t_last = 0;
	p->shown = log_level >= 1 && isatty(STDERR_FILENO);
}

void vq_progress_step(struct vq_progress *p, uint64_t done)
{
	double now, gone, left;

	p->done = done;
	if (!p->shown)
		return;
	now = vq_now();
	if (now - p->t_last < 0.1 && done < p->total)
		return;
	p->t_last = now;
	gone = now - p->t0;
	left = done ? gone / (double)done * (double)(p->total - done) : 0;
	fprintf(stderr, "\r\033[K%s: %s %llu/%llu", log_tool, p->what, (unsigned long long)done,
		(unsigned long long)p->total);
	if (done && gone > 0)
		fprintf(stderr, "  %.3g/s  %.0f s left", (double)done / gone, left);
	fflush(stderr);
}

void vq_progress_end(struct vq_progress *p)
{
	if (p->shown)
		fprintf(stderr, "\r\033[K");
}
