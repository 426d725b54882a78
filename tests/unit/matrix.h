/* Small matrices for the tests of quantizers: of doubles, or of what MATRIX_REAL says ahead of the inclusion. */
#ifndef MATRIX_H
#define MATRIX_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"

#ifndef MATRIX_REAL
#define MATRIX_REAL double
#endif

struct matrix {
	uint32_t rows, cols;
	MATRIX_REAL *a; /* [rows, cols]; vq_free */
};

/* Of zeros. */
static inline struct matrix new_matrix(uint32_t rows, uint32_t cols)
{
	struct matrix m = {rows, cols, vq_calloc((size_t)rows * cols, sizeof(*m.a), NULL)};

	assert_non_null(m.a);
	return m;
}

/* Of a list of rows. */
static inline struct matrix matrix_of(const json_t *j)
{
	struct matrix m = new_matrix((uint32_t)json_array_size(j),
				     (uint32_t)json_array_size(json_array_get(j, 0)));
	uint32_t r, c;

	for (r = 0; r < m.rows; r++)
		for (c = 0; c < m.cols; c++)
			m.a[(size_t)r * m.cols + c] = (MATRIX_REAL)json_number_value(
				json_array_get(json_array_get(j, r), c));
	return m;
}

#endif
