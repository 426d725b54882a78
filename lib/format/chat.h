/* Chat templates: how a question becomes the prompt.  Known templates by name; the chat_template text of a
 * checkpoint where it is one of those.  No template language is executed. */
#ifndef VQ_FORMAT_CHAT_H
#define VQ_FORMAT_CHAT_H

#include "base/err.h"

struct vq_chat {
	const char *
		name; /* "llava-hf", "vicuna_v1", "llava_v1", "llava_v0", "stablelm", "phi", "qwen", "smolvlm", "plain" */
	const char *prefix; /* before the question: "USER: ", or the system sentence and "USER: " */
	const char *suffix; /* after it: " ASSISTANT:" */
	const char *stop;   /* text that ends an answer besides the end token, or NULL */
	const char *tmpl;   /* the Jinja text it stands for, or NULL */
	/* Before a question that begins with a picture, where that is another; NULL where it is not.  Picture and words
	 * then stand together: the line end that LLaVA's data have between them goes. */
	const char *image_prefix;
};

const struct vq_chat *vq_chat_by_name(const char *name); /* NULL when unknown */
const char *vq_chat_names(void); /* "llava-hf|vicuna_v1|..." for messages and options */

/* The template of a checkpoint's text.  Unknown text: VQ_E_DATA with the text in the message and
 * `--template` as the remedy.  text NULL or empty: the default, "llava-hf". */
VQ_MUST_CHECK int vq_chat_match(const struct vq_chat **out, const char *text, const char *label,
				struct vq_err *err);

/* prefix + question + suffix; "<image>" in the question is the picture's place.  Given. */
char *vq_chat_prompt(const struct vq_chat *c, const char *question, struct vq_err *err);

#endif
