/* What checkpoints call a canonical name (names.h): the tables. */
#ifndef VQ_MODEL_NAMES_SPELL_H
#define VQ_MODEL_NAMES_SPELL_H

#include "model/config.h"

#define VQ_MAX_SPELLINGS 12
#define VQ_SPELLING_ROOM 160

struct vq_spellings {
	char s[VQ_MAX_SPELLINGS][VQ_SPELLING_ROOM];
	size_t n;
};

/* All spellings of a name in checkpoints of a family, none for a name that they do not have. */
void vq_spell(struct vq_spellings *out, enum vq_family family, const char *canonical);

#endif
