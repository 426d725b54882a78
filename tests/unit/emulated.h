/* What tests leave out in an emulator, where a loop over like cases takes tens of times longer. */
#ifndef EMULATED_H
#define EMULATED_H

#include <stdint.h>
#include <stdlib.h>

/* Whether tests/run.sh has a command in front of this test (VQLM_LAUNCH). */
static inline int emulated(void)
{
	const char *launch = getenv("VQLM_LAUNCH");

	return launch && *launch;
}

/* The step through a loop of like cases: every one, in an emulator every n-th. */
static inline uint32_t stride(uint32_t n)
{
	return emulated() ? n : 1;
}

#endif
