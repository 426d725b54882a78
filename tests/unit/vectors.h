/* What tests/vectors holds: vectors.json, as a group's setup and teardown, and fresh cases of an independent
 * reference. */
#ifndef VECTORS_H
#define VECTORS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/json.h"

static json_t *vectors;

static inline int load_vectors(void **state)
{
	(void)state;
	vectors = vq_json_file("tests/vectors/vectors.json", VQ_E_DATA, NULL);
	return vectors ? 0 : -1;
}

static inline int free_vectors(void **state)
{
	(void)state;
	json_decref(vectors);
	return 0;
}

/* The part of the vectors called name, and that of it called key unless that is NULL. */
static inline const json_t *vector(const char *name, const char *key)
{
	const json_t *j = json_object_get(vectors, name);

	if (key)
		j = json_object_get(j, key);
	assert_non_null(j);
	return j;
}

/* The n cases that a script of tests/vectors draws from this seed and prints; the caller's.  Skips the test without
 * numpy. */
static inline json_t *fresh_cases(const char *script, unsigned seed, size_t n)
{
	char command[128];
	json_t *all;
	FILE *f;

	if (system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") != 0) {
		print_message("# SKIP python3-numpy is not installed\n");
		skip();
	}
	snprintf(command, sizeof(command), "/usr/bin/python3 tests/vectors/%s %u %zu", script, seed,
		 n);
	f = popen(command, "r");
	assert_non_null(f);
	all = json_loadf(f, 0, NULL);
	assert_int_equal(pclose(f), 0);
	assert_int_equal(json_array_size(all), n);
	return all;
}

#endif
