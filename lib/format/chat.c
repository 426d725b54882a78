/* Chat templates that are known by name or by text. */
#include "format/chat.h"

#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "base/str.h"

/* LLaVA's conversation.py: "vicuna_v1", "llava_v1" and "llava_v0". */
#define SYSTEM_USER                                                                \
	"A chat between a curious user and an artificial intelligence assistant. " \
	"The assistant gives helpful, detailed, and polite answers to the user's questions. "
#define SYSTEM_HUMAN                                                                \
	"A chat between a curious human and an artificial intelligence assistant. " \
	"The assistant gives helpful, detailed, and polite answers to the human's questions."

static const char llava_hf_text[] =
	"{% for message in messages %}{% if message['role'] == 'user' %}{{ 'USER: ' }}"
	"{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
	"{{ '<image>\\n' }}{% endfor %}"
	"{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
	"{{ content['text'] + ' ' }}{% endfor %}{% else %}{{ 'ASSISTANT: ' }}"
	"{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
	"{{ content['text'] + '</s>' }}{% endfor %}{% endif %}{% endfor %}"
	"{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

static const char smolvlm_text[] =
	"<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
	"{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
	"{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
	"{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
	"<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}"
	"{% endif %}";

static const struct vq_chat chats[] = {
	{"llava-hf", "USER: ", " ASSISTANT:", NULL, llava_hf_text, NULL},
	{"vicuna_v1", SYSTEM_USER "USER: ", " ASSISTANT:", NULL, NULL, NULL},
	{"llava_v1", SYSTEM_HUMAN " USER: ", " ASSISTANT:", NULL, NULL, NULL},
	{"llava_v0", SYSTEM_HUMAN "###Human: ", "###Assistant:", "###", NULL, NULL},
	/* MoE-LLaVA's conversation.py: they differ in the end token, which is the model's. */
	{"stablelm", SYSTEM_USER "USER: ", " ASSISTANT:", NULL, NULL, NULL},
	{"phi", SYSTEM_USER "USER: ", " ASSISTANT:", NULL, NULL, NULL},
	{"qwen", SYSTEM_USER "USER: ", " ASSISTANT:", NULL, NULL, NULL},
	{"smolvlm", "<|im_start|>User: ", "<end_of_utterance>\nAssistant:", NULL, smolvlm_text,
	 "<|im_start|>User:"},
	{"plain", "", "", NULL, NULL, NULL},
};

#define N_CHATS (sizeof(chats) / sizeof(chats[0]))

/* Texts of published checkpoints, by the SHA-256 of their normalised form. */
static const struct {
	const char *sha256;
	const char *name;
} known[] = {
	/* llava-hf/llava-1.5-7b-hf and 13b-hf, chat_template.json */
	{"6fef09c05345e88b9f85e80bcb3491003332050750586568bdf91cfa81965d0c", "llava-hf"},
	/* HuggingFaceTB/SmolVLM2-256M-Video-Instruct, 500M, 2.2B: SmolVLM's with a place for videos */
	{"36a47ed97c18667acf1150e4fa25e2e2b0e87d468307dd593874f152373c2c5b", "smolvlm"},
};

const struct vq_chat *vq_chat_by_name(const char *name)
{
	size_t i;

	for (i = 0; i < N_CHATS; i++)
		if (strcmp(chats[i].name, name) == 0)
			return &chats[i];
	return NULL;
}

const char *vq_chat_names(void)
{
	return "llava-hf|vicuna_v1|llava_v1|llava_v0|stablelm|phi|qwen|smolvlm|plain";
}

/* One form for texts that mean the same: the Jinja escape \n becomes a line end, blanks around the text go. */
static void normalise(struct vq_str *out, const char *s)
{
	size_t n = strlen(s), i;

	while (n > 0 && strchr(" \t\r\n", s[n - 1]))
		n--;
	for (i = 0; i < n && strchr(" \t\r\n", s[i]); i++)
		;
	for (; i < n; i++) {
		if (s[i] == '\\' && i + 1 < n && s[i + 1] == 'n') {
			vq_str_add(out, "\n", 1);
			i++;
		} else {
			vq_str_add(out, &s[i], 1);
		}
	}
}

static const struct vq_chat *match(const char *text)
{
	char hex[VQ_SHA256_HEX];
	size_t i;

	for (i = 0; i < N_CHATS; i++) {
		struct vq_str own = {0};
		int same;

		if (!chats[i].tmpl)
			continue;
		normalise(&own, chats[i].tmpl);
		same = own.s && strcmp(own.s, text) == 0;
		vq_str_free(&own);
		if (same)
			return &chats[i];
	}
	vq_sha256_of(text, strlen(text), hex);
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].sha256, hex) == 0)
			return vq_chat_by_name(known[i].name);
	return NULL;
}

/* The text on one line, cut where an error message would burst. */
static void one_line(struct vq_str *out, const char *s)
{
	size_t n = 0;

	for (; *s && n < 600; s++, n++) {
		if (*s == '\n')
			vq_str_puts(out, "\\n");
		else
			vq_str_add(out, (unsigned char)*s < ' ' ? " " : s, 1);
	}
	if (*s)
		vq_str_puts(out, "...");
}

int vq_chat_match(const struct vq_chat **out, const char *text, const char *label,
		  struct vq_err *err)
{
	int rc = VQ_OK;
	struct vq_str norm = {0}, shown = {0};
	const struct vq_chat *c;

	if (text)
		normalise(&norm, text);
	if (norm.failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot hold a chat template");
	if (rc == VQ_OK) {
		c = norm.s ? match(norm.s) : &chats[0];
		if (c) {
			*out = c;
		} else {
			one_line(&shown, norm.s);
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: unknown chat template; choose one with --template %s; "
				     "its text: %s",
				     label, vq_chat_names(), shown.s ? shown.s : "");
		}
	}
	vq_str_free(&norm);
	vq_str_free(&shown);
	return rc;
}

char *vq_chat_prompt(const struct vq_chat *c, const char *question, struct vq_err *err)
{
	static const char marker[] = "<image>";
	const char *mark = c->image_prefix ? strstr(question, marker) : NULL;
	const char *prefix = mark == question ? c->image_prefix : c->prefix;
	const char *before = mark ? mark : question, *after = before;
	struct vq_str s = {0};
	char *out = NULL;

	if (mark) {
		after = mark + sizeof(marker) - 1;
		after += *after == '\n';
		before -= before > question && before[-1] == '\n';
	}
	vq_str_puts(&s, prefix ? prefix : c->prefix);
	vq_str_add(&s, question, (size_t)(before - question));
	vq_str_puts(&s, mark ? marker : "");
	vq_str_puts(&s, after);
	vq_str_puts(&s, c->suffix);
	if (s.failed)
		vq_fail(err, VQ_E_SYS, "memory: cannot hold a prompt");
	else
		out = vq_strdup(s.s ? s.s : "", err);
	vq_str_free(&s);
	return out;
}
