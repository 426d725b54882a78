/* Kinds of records. */
#include "stream/record.h"

const char *vq_kind_name(uint32_t kind)
{
	static const char *const names[] = {"?", "META", "INPUT", "STAT", "PLAN", "TENSOR", "GRID"};

	return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "?";
}
