/* The kernel table. */
#include "kernel/cpu.h"

#include <stdlib.h>
#include <string.h>

const char *vq_cpu_name(void)
{
	return "generic";
}

int vq_cpu_check(struct vq_err *err)
{
	const char *want = getenv("VQLM_CPU");

	if (want && strcmp(want, "generic") != 0)
		return vq_fail(err, VQ_E_USAGE, "VQLM_CPU wants generic, got '%s'", want);
	return VQ_OK;
}
