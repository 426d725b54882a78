/* format/chat: known templates by name and by text. */
#include "folder.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/parse.h"
#include "format/chat.h"

static void prompt_is(const char *name, const char *question, const char *want)
{
	const struct vq_chat *c = vq_chat_by_name(name);
	struct vq_err err = {0};
	char *s;

	assert_non_null(c);
	s = vq_chat_prompt(c, question, &err);
	assert_non_null(s);
	assert_string_equal(s, want);
	vq_free(s);
}

static void prompts_are_those_of_the_models_authors(void **state)
{
	static const char *const moe_llava[] = {"stablelm", "phi", "qwen"};
	uint32_t i;

	(void)state;
	prompt_is("llava-hf", "<image>\nWhy?", "USER: <image>\nWhy? ASSISTANT:");
	prompt_is("vicuna_v1", "Why?",
		  "A chat between a curious user and an artificial intelligence assistant. The "
		  "assistant gives helpful, detailed, and polite answers to the user's questions. "
		  "USER: Why? ASSISTANT:");
	prompt_is("llava_v0", "Why?",
		  "A chat between a curious human and an artificial intelligence assistant. The "
		  "assistant gives helpful, detailed, and polite answers to the human's "
		  "questions.###Human: Why?###Assistant:");
	prompt_is("llava_v1", "Why?",
		  "A chat between a curious human and an artificial intelligence assistant. The "
		  "assistant gives helpful, detailed, and polite answers to the human's questions. "
		  "USER: Why? ASSISTANT:");
	prompt_is("plain", "Why?", "Why?");
	/* MoE-LLaVA's conversation.py: conv_stablelm, and conv_phi for both others */
	for (i = 0; i < 3; i++)
		prompt_is(moe_llava[i], "Why?",
			  "A chat between a curious user and an artificial intelligence assistant. "
			  "The assistant gives helpful, detailed, and polite answers to the user's "
			  "questions. USER: Why? ASSISTANT:");
	prompt_is("smolvlm", "<image>\nWhy?",
		  "<|im_start|>User:<image>Why?<end_of_utterance>\nAssistant:");
	prompt_is("smolvlm", "<image>Why?\n",
		  "<|im_start|>User:<image>Why?\n<end_of_utterance>\nAssistant:");
	prompt_is("smolvlm", "Why?\n<image>",
		  "<|im_start|>User: Why?<image><end_of_utterance>\nAssistant:");
	prompt_is("smolvlm", "Why?", "<|im_start|>User: Why?<end_of_utterance>\nAssistant:");
}

static void every_name_that_is_offered_is_known(void **state)
{
	char names[128], *save, *n;
	size_t count = 0;

	(void)state;
	snprintf(names, sizeof(names), "%s", vq_chat_names());
	for (n = strtok_r(names, "|", &save); n; n = strtok_r(NULL, "|", &save), count++)
		assert_string_equal(vq_chat_by_name(n)->name, n);
	assert_int_equal(count, 9);
	assert_null(vq_chat_by_name("llama-3"));
	assert_null(vq_chat_by_name(""));
}

/* chat_template.json of the published llava-1.5 checkpoints, with the escape and with a line end. */
#define LLAVA_15(newline)                                                                      \
	"{% for message in messages %}{% if message['role'] != 'system' %}"                    \
	"{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}"          \
	"{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"     \
	"{{ '<image>" newline "' }}{% endfor %}{# Render all text next #}"                     \
	"{% if message['role'] != 'assistant' %}"                                              \
	"{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"      \
	"{{ content['text'] + ' '}}{% endfor %}{% else %}"                                     \
	"{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"      \
	"{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}" \
	"{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"

static void the_text_of_llava_15_is_known(void **state)
{
	const struct vq_chat *c = NULL;
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(vq_chat_match(&c, LLAVA_15("\\n"), "x", &err), VQ_OK);
	assert_string_equal(c->name, "llava-hf");
	assert_int_equal(vq_chat_match(&c, LLAVA_15("\n") "\n", "x", &err), VQ_OK);
	assert_string_equal(c->name, "llava-hf");
	assert_int_equal(vq_chat_match(&c, LLAVA_15(""), "x", &err), VQ_E_DATA);
}

/* chat_template.json of the published SmolVLM checkpoints; the second version has a place for videos. */
#define SMOLVLM(videos)                                                                         \
	"<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"             \
	"{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}" \
	"{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"   \
	"{% elif line['type'] == 'image' %}{{ '<image>' }}" videos "{% endif %}{% endfor %}"    \
	"<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% "   \
	"endif %}"

static void the_texts_of_smolvlm_are_known(void **state)
{
	static const char *const texts[] = {
		SMOLVLM(""), SMOLVLM("{% elif line['type'] == 'video' %}{{ '<video>' }}")};
	struct vq_err err = {0};
	const struct vq_chat *c = NULL;
	int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		assert_int_equal(vq_chat_match(&c, texts[i], "x", &err), VQ_OK);
		assert_string_equal(c->name, "smolvlm");
	}
}

static void the_demo_models_text_is_known(void **state)
{
	struct vq_err err = {0};
	const struct vq_chat *c = NULL;
	json_t *j = vq_json_file("pipelines/demo/mini-llava/tokenizer_config.json", VQ_E_SYS, &err);

	(void)state;
	assert_non_null(j);
	assert_int_equal(vq_chat_match(&c, json_string_value(json_object_get(j, "chat_template")),
				       "x", &err),
			 VQ_OK);
	assert_string_equal(c->name, "llava-hf");
	assert_non_null(c->tmpl);
	json_decref(j);
}

static void no_text_is_the_default(void **state)
{
	struct vq_err err = {0};
	const struct vq_chat *c = NULL;

	(void)state;
	assert_int_equal(vq_chat_match(&c, NULL, "x", &err), VQ_OK);
	assert_string_equal(c->name, "llava-hf");
	assert_int_equal(vq_chat_match(&c, " \n", "x", &err), VQ_OK);
	assert_string_equal(c->name, "llava-hf");
}

static void an_unknown_text_is_shown_with_the_remedy(void **state)
{
	const struct vq_chat *c = NULL;
	struct vq_err err = {0};
	char longest[3000];

	(void)state;
	assert_int_equal(vq_chat_match(&c, "{{ bos }}\n[INST] {{ q }}", "f.json", &err), VQ_E_DATA);
	assert_null(c);
	assert_says(&err,
		    SAYS("f.json", "{{ bos }}\\n[INST] {{ q }}", "--template", vq_chat_names()));
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	err.code = VQ_OK;
	assert_int_equal(vq_chat_match(&c, longest, "f.json", &err), VQ_E_DATA);
	assert_says(&err, SAYS("xxx...", "--template"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prompts_are_those_of_the_models_authors),
		cmocka_unit_test(every_name_that_is_offered_is_known),
		cmocka_unit_test(the_text_of_llava_15_is_known),
		cmocka_unit_test(the_texts_of_smolvlm_are_known),
		cmocka_unit_test(the_demo_models_text_is_known),
		cmocka_unit_test(no_text_is_the_default),
		cmocka_unit_test(an_unknown_text_is_shown_with_the_remedy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
