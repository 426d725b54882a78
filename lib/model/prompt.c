/* From a question to what the model reads. */
#include "model/prompt.h"

#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"

static const char marker[] = "<image>";

static uint32_t count_markers(const char *s)
{
	uint32_t n = 0;

	for (; (s = strstr(s, marker)); s += sizeof(marker) - 1)
		n++;
	return n;
}

/* Tokens of the whole prompt, one image token a picture.  Where the tokenizer has no such token (LLaMA
 * layouts keep it out of the vocabulary), the stretches around "<image>" are encoded one by one, as LLaVA's
 * own tokenizer_image_token does. */
static int encode(const struct vq_config *c, const struct vq_tokenizer *t, const char *text,
		  int32_t **ids, size_t *n, struct vq_err *err)
{
	const char *mark;
	int32_t *part = NULL;
	size_t n_part;
	int rc;

	if (c->image_token < 0 || vq_tokenizer_id(t, marker) == c->image_token)
		return vq_tokenizer_encode(t, text, strlen(text), 1, ids, n, err);
	mark = strstr(text, marker);
	rc = vq_tokenizer_encode(t, text, mark ? (size_t)(mark - text) : strlen(text), 1, ids, n,
				 err);
	for (; rc == VQ_OK && mark; mark = strstr(text, marker)) {
		const char *next;

		text = mark + sizeof(marker) - 1;
		next = strstr(text, marker);
		rc = vq_tokenizer_encode(t, text, next ? (size_t)(next - text) : strlen(text), 0,
					 &part, &n_part, err);
		if (rc < 0)
			break;
		rc = vq_grow((void **)ids, *n, *n + 1 + n_part, sizeof(**ids), err);
		if (rc == VQ_OK) {
			(*ids)[*n] = c->image_token;
			memcpy(*ids + *n + 1, part, n_part * sizeof(*part));
			*n += 1 + n_part;
		}
		vq_free(part);
	}
	if (rc < 0) {
		vq_free(*ids);
		*ids = NULL;
	}
	return rc;
}

/* Repeats each image token once for every row that a picture gives the decoder. */
static int expand(struct vq_prompt *p, const struct vq_config *c, const int32_t *ids, size_t n,
		  struct vq_err *err)
{
	uint64_t total = 0;
	size_t i, k, o = 0;

	for (i = 0; i < n; i++)
		total += c->image_token >= 0 && ids[i] == c->image_token ? c->n_image_tokens : 1;
	if (c->decoder.max_position && total > c->decoder.max_position)
		return vq_fail(err, VQ_E_DATA,
			       "the prompt has %llu tokens, the model reads at most %u",
			       (unsigned long long)total, c->decoder.max_position);
	p->tokens = vq_alloc(total, sizeof(*p->tokens), err);
	if (!p->tokens)
		return VQ_E_SYS;
	for (i = 0; i < n; i++) {
		size_t times =
			c->image_token >= 0 && ids[i] == c->image_token ? c->n_image_tokens : 1;

		for (k = 0; k < times; k++)
			p->tokens[o++] = ids[i];
	}
	p->n_tokens = (uint32_t)total;
	return VQ_OK;
}

/* "<image>" in the question, a picture, and a model that sees: all or none. */
static int check(const struct vq_config *c, const char *question, const char *image,
		 struct vq_err *err)
{
	uint32_t n = count_markers(question);

	if (n > 1)
		return vq_fail(err, VQ_E_DATA,
			       "the question has %u '<image>', but one picture at most is read", n);
	if (n && !image)
		return vq_fail(err, VQ_E_DATA, "the question has '<image>' but no picture");
	if (!n && image)
		return vq_fail(err, VQ_E_DATA, "%s: the question has no '<image>' for this picture",
			       image);
	if (n && (!c->has_vision || c->image_token < 0))
		return vq_fail(err, VQ_E_DATA, "%s: this model reads no pictures", image);
	return VQ_OK;
}

/* The picture's place in the text becomes what put() writes. */
static int replace_marker(char **text, void (*put)(struct vq_str *s, const void *what),
			  const void *what, struct vq_err *err)
{
	const char *mark = strstr(*text, marker);
	struct vq_str s = {0};
	char *out;

	vq_str_add(&s, *text, (size_t)(mark - *text));
	put(&s, what);
	vq_str_puts(&s, mark + sizeof(marker) - 1);
	out = s.failed ? NULL : vq_strdup(s.s, err);
	vq_str_free(&s);
	if (!out)
		return vq_fail(err, VQ_E_SYS, "memory: cannot hold a prompt");
	vq_free(*text);
	*text = out;
	return VQ_OK;
}

static const char start[] = "<im_start>", end[] = "<im_end>";

static void put_marks(struct vq_str *s, const void *what)
{
	(void)what;
	vq_str_puts(s, start);
	vq_str_puts(s, marker);
	vq_str_puts(s, end);
}

/* "<im_start><image><im_end>", as LLaVA writes it where the model was trained
 * so.  text is replaced. */
static int add_marks(char **text, const struct vq_tokenizer *t, struct vq_err *err)
{
	if (vq_tokenizer_id(t, start) < 0 || vq_tokenizer_id(t, end) < 0)
		return vq_fail(err, VQ_E_DATA,
			       "the model wants '%s' and '%s' around a picture "
			       "('mm_use_im_start_end'), and its tokenizer has no such tokens; is "
			       "added_tokens.json or tokenizer_config.json missing?",
			       start, end);
	return replace_marker(text, put_marks, NULL, err);
}

static const char fake[] = "<fake_token_around_image>", whole[] = "<global-img>";

/* A line for each row of tiles, an empty one, the whole picture; as Idefics3's processor writes it. */
static void put_tiles(struct vq_str *s, const void *what)
{
	const struct vq_tiling *t = what;
	uint32_t y, x;

	for (y = 1; y <= t->rows; y++) {
		for (x = 1; x <= t->cols; x++)
			vq_str_printf(s, "%s<row_%u_col_%u>%s", fake, y, x, marker);
		vq_str_puts(s, "\n");
	}
	vq_str_printf(s, "%s%s%s%s%s", t->rows ? "\n" : "", fake, whole, marker, fake);
}

static int add_tiles(char **text, const struct vq_tokenizer *t, const struct vq_tiling *tiles,
		     struct vq_err *err)
{
	if (vq_tokenizer_id(t, fake) < 0 || vq_tokenizer_id(t, whole) < 0 ||
	    vq_tokenizer_id(t, marker) < 0)
		return vq_fail(err, VQ_E_DATA,
			       "pictures become tiles, and the tokenizer has no tokens '%s', '%s' "
			       "and '%s' to set them apart",
			       fake, whole, marker);
	return replace_marker(text, put_tiles, tiles, err);
}

int vq_prompt_tokens(struct vq_prompt *p, const struct vq_config *c, const struct vq_tokenizer *t,
		     const char *question, const char *image, const struct vq_tiling *tiles,
		     struct vq_err *err)
{
	struct vq_prompt q = {0};
	char *text = NULL;
	int32_t *ids = NULL;
	size_t n = 0;
	int rc = check(c, question, image, err);

	if (rc < 0)
		return rc;
	text = vq_chat_prompt(c->chat, question, err);
	rc = text ? VQ_OK : VQ_E_SYS;
	if (rc == VQ_OK && image && c->image_marks)
		rc = add_marks(&text, t, err);
	if (rc == VQ_OK && image && tiles)
		rc = add_tiles(&text, t, tiles, err);
	if (rc == VQ_OK)
		rc = encode(c, t, text, &ids, &n, err);
	if (rc == VQ_OK)
		rc = expand(&q, c, ids, n, err);
	vq_free(ids);
	vq_free(text);
	if (rc < 0)
		return rc;
	q.n_images = !image ? 0 : tiles ? tiles->n : 1;
	*p = q;
	return VQ_OK;
}

int vq_prompt_decode(const struct vq_config *c, struct vq_image *im, const char *data, size_t n,
		     const char *label, struct vq_err *err)
{
	return vq_image_decode_as(im, (const uint8_t *)data, n,
				  c->preproc.tiled ? VQ_ALPHA_WHITE : VQ_ALPHA_DROP, label, err);
}

static int read_picture(const struct vq_config *c, struct vq_image *im, const char *path,
			struct vq_err *err)
{
	char *data;
	size_t n;
	int rc = vq_file_read(path, VQ_IMAGE_MAX_FILE, VQ_E_DATA, &data, &n, err);

	if (rc < 0)
		return rc;
	rc = vq_prompt_decode(c, im, data, n, path, err);
	vq_free(data);
	return rc;
}

int vq_prompt_pixels(const struct vq_config *c, const struct vq_image *im, const char *label,
		     float *pixels, struct vq_err *err)
{
	int rc = vq_preprocess(&c->preproc, im, pixels, err);

	return rc < 0 ? vq_err_prefix(err, "%s", label) : rc;
}

int vq_prompt_build(struct vq_prompt *p, const struct vq_config *c, const struct vq_tokenizer *t,
		    const char *question, const char *image, struct vq_err *err)
{
	size_t each = 3 * (size_t)c->preproc.crop * c->preproc.crop;
	struct vq_tiling tiles = {.n = 1};
	struct vq_image im = {0};
	struct vq_prompt q = {0};
	int rc = check(c, question, image, err);

	if (rc >= 0 && image)
		rc = read_picture(c, &im, image, err);
	if (rc >= 0 && image && c->preproc.tiled) {
		rc = vq_preproc_tiling(&c->preproc, im.w, im.h, &tiles, err);
		if (rc < 0)
			vq_err_prefix(err, "%s", image);
	}
	if (rc >= 0)
		rc = vq_prompt_tokens(&q, c, t, question, image,
				      image && c->preproc.tiled ? &tiles : NULL, err);
	if (rc >= 0 && image && !(q.pixels = vq_alloc(tiles.n, each * sizeof(float), err)))
		rc = VQ_E_SYS;
	if (rc >= 0 && image)
		rc = vq_prompt_pixels(c, &im, image, q.pixels, err);
	vq_image_free(&im);
	if (rc < 0)
		vq_prompt_free(&q);
	else
		*p = q;
	return rc;
}

void vq_prompt_free(struct vq_prompt *p)
{
	vq_free(p->tokens);
	vq_free(p->pixels);
	memset(p, 0, sizeof(*p));
}
