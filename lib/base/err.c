/* Error texts. */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void fill(struct vq_err *err, int code, int with_errno, const char *fmt, va_list ap)
{
	int saved = errno;
	size_t n;

	if (!err || err->code != VQ_OK)
		return;
	err->code = code;
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	n = strlen(err->text);
	if (with_errno && n + 4 < sizeof(err->text))
		snprintf(err->text + n, sizeof(err->text) - n, ": %s", strerror(saved));
}

int vq_fail(struct vq_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fill(err, code, 0, fmt, ap);
	va_end(ap);
	return code;
}

int vq_fail_errno(struct vq_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fill(err, code, 1, fmt, ap);
	va_end(ap);
	return code;
}

int vq_err_prefix(struct vq_err *err, const char *fmt, ...)
{
	char old[sizeof(err->text)];
	va_list ap;
	size_t n;

	if (!err || err->code == VQ_OK)
		return VQ_OK;
	memcpy(old, err->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	n = strlen(err->text);
	snprintf(err->text + n, sizeof(err->text) - n, ": %s", old);
	return err->code;
}

int vq_exit_status(int code)
{
	return code >= 0 ? 0 : -code;
}
