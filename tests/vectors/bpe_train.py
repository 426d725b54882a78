#!/usr/bin/python3
# Byte-level BPE vocabularies for tests: bpe_train.py FOLDER writes good-*.json, tokenizer.json files that differ in how a text
# is cut.  Merges are trained on pages of this project and on lines in other scripts, by counting pairs.  Standard library only.
import collections, glob, json, re, sys

OWN = [*range(33, 127), *range(161, 173), *range(174, 256)]
CHAR = {b: chr(b) for b in OWN} | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in OWN)}
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LINES = "Привет, мир! как дела? 日本語のテキスト 語学 한국어 각각 ééé e\u0301te\u0301 🦙🦙 👩‍👩‍👧 कक्षा ไทย  \n\n\t 1234 3.14 «oui»\n"


def train(n):
    text = "".join(open(f, encoding="utf8").read() for f in ["README.md", *sorted(glob.glob("man/*.7"))]) + 40 * LINES
    words = collections.Counter(tuple(CHAR[b] for b in w.encode()) for w in re.findall(r" ?\w+| ?[^\s\w]+|\s+", text))
    merges = []
    while len(merges) < n:
        pairs = collections.Counter()
        for w, k in words.items():
            for p in zip(w, w[1:]):
                pairs[p] += k
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        new = collections.Counter()
        for w, k in words.items():
            out, i = [], 0
            while i < len(w):
                both = w[i:i + 2] == best
                out.append(w[i] + w[i + 1] if both else w[i])
                i += 1 + both
            new[tuple(out)] += k
        words = new
    return merges


def added(id, content, **flags):
    none = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return dict(id=id, content=content) | none | flags


def split(behavior, invert=False, **pattern):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def byte_level(prefix, regex):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def bos(token, id):
    one = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": one, "pair": [*one, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}}


merges = train(320)
vocab = {c: i for i, c in enumerate([CHAR[b] for b in sorted(CHAR)])}
for a, b in merges:
    vocab.setdefault(a + b, len(vocab))
n = len(vocab)
tokens = [added(n, "<|im_start|>"), added(n + 1, "<|im_end|>"), added(n + 2, "<image>")]
plain = byte_level(False, True)
files = {
    "gpt2": (None, byte_level(True, True), tokens, None, {}),
    "digits": (None, sequence({"type": "Digits", "individual_digits": True}, plain), tokens, None, {}),
    "nfc-bos": ({"type": "NFC"}, sequence(split("Isolated", Regex=QWEN), byte_level(False, False)), tokens,
                bos("<|im_start|>", n), {"ignore_merges": True}),
    "cuts": ({"type": "Sequence", "normalizers": [{"type": "NFC"}]},
             sequence(split("Removed", String="//"), split("MergedWithPrevious", Regex=r"[,;]"), split("MergedWithNext", Regex=r"\s"),
                      split("Contiguous", Regex=r"[A-Z]"), split("Removed", True, Regex=r"[^_]+|_(?=_)"), {"type": "Digits", "individual_digits": False}, byte_level(True, True)),
             tokens + [added(n + 3, "<l>", lstrip=True), added(n + 4, "<r>", rstrip=True), added(n + 5, "word", single_word=True),
                       added(n + 6, "né", normalized=True, special=False), added(n + 7, "<b>", lstrip=True, rstrip=True)], None, {}),
}
for name, (normalizer, pre, add, post, more) in files.items():
    pairs = [f"{a} {b}" for a, b in merges] if name != "cuts" else merges
    model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False,
                 byte_fallback=False, ignore_merges=False, vocab=vocab, merges=pairs) | more
    root = dict(version="1.0", truncation=None, padding=None, added_tokens=add, normalizer=normalizer, pre_tokenizer=pre,
                post_processor=post, decoder=byte_level(True, True), model=model)
    with open(f"{sys.argv[1]}/good-{name}.json", "w", encoding="utf8") as f:
        json.dump(root, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
