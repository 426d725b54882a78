/* Inside the reader of GGUF files. */
#ifndef VQ_FORMAT_GGUF_PARTS_H
#define VQ_FORMAT_GGUF_PARTS_H

#include <stddef.h>
#include <stdint.h>

size_t vq_gguf_type_size(uint32_t type); /* bytes of a number; 0 for strings and arrays */

/* The first bytes of a string as they may stand in a message. */
void vq_gguf_shown(char *buf, size_t room, const char *s, size_t n);

#endif
