/* The stream header's provenance. */
#include "stream/history.h"

#include <stdio.h>
#include <string.h>

json_t *vq_header_new(const char *tool, json_t *model, struct vq_err *err)
{
	char producer[128];
	json_t *j;

	snprintf(producer, sizeof(producer), "%s %s", tool, VQ_VERSION);
	j = json_pack("{s:s, s:O?, s:[]}", "producer", producer, "model", model, "history");
	if (!j)
		vq_fail(err, VQ_E_SYS, "memory: cannot make a stream header");
	return j;
}

json_t *vq_header_derive(const json_t *header, const char *tool, json_t *params,
			 const char *kernels, const char *blas, struct vq_err *err)
{
	json_t *j = json_deep_copy(header), *history, *line;

	if (!j) {
		vq_fail(err, VQ_E_SYS, "memory: cannot copy a stream header");
		return NULL;
	}
	history = json_object_get(j, "history");
	if (!json_is_array(history)) {
		vq_fail(err, VQ_E_DATA, "stream header: 'history' is not an array");
		json_decref(j);
		return NULL;
	}
	line = json_pack("{s:s, s:s, s:O?, s:s?, s:s?}", "tool", tool, "version", VQ_VERSION,
			 "params", params, "kernels", kernels, "blas", blas);
	if (!line || json_array_append_new(history, line) < 0) {
		vq_fail(err, VQ_E_SYS, "memory: cannot extend a stream header");
		json_decref(j);
		return NULL;
	}
	return j;
}

const json_t *vq_history_last(const json_t *header, const char *tool)
{
	const json_t *history = json_object_get(header, "history");
	size_t i;

	for (i = json_array_size(history); i-- > 0;) {
		const json_t *line = json_array_get(history, i);
		const char *name = json_string_value(json_object_get(line, "tool"));

		if (name && strcmp(name, tool) == 0)
			return json_object_get(line, "params");
	}
	return NULL;
}
