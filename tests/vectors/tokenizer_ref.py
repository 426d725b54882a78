#!/usr/bin/python3
# Reference token ids by sentencepiece (python3-sentencepiece), one line a text: the text in hexadecimal, a tab,
# the ids.  Two uses:
#   tokenizer_ref.py MODEL prompts FILE...   the demo prompts of LLaVA conversation files; stretches around <image>
#                                            are encoded one by one, as LLaMA's legacy tokenizer does
#   tokenizer_ref.py MODEL random N          N random texts: words, spaces, many scripts, bytes
#   tokenizer_ref.py MODEL hash FILE...      SHA-256 of the ids (int32) of all prompts of each file: tokens.tsv
import hashlib, json, random, sys
import numpy as np
import sentencepiece

sp = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
IMAGE = 1022


def prompt(item):
    return "USER: " + item["conversations"][0]["value"] + " ASSISTANT:"


def encode(text):
    ids = [1]
    for i, part in enumerate(text.split("<image>")):
        ids += [IMAGE] * (i > 0) + (sp.encode(part) if part else [])
    return ids


def show(text, ids):
    print(text.encode().hex(), " ".join(map(str, ids)), sep="\t")


def some_text(rnd):
    words = ["hello", "World", "the", "  ", " ", "\n", "\t", "1", "23", "4567", "é", "ü", "я", "Привет", "日本", "語", "🦙", "👩‍👩‍👧",
             "\u2581", "\u2581\u2581", "aaaaaaaaaaaa", "...", "!!", "ﬁ", "\u0301", "\ufeff", "\x7f", "\x01", "½", "کتاب", "กขค", "<0x0A>",
             "\U0010ffff", "\ufffd", "ing", "tion", "==", "->", "//", "\r\n", "'", '"']
    kind = rnd.random()
    if kind < 0.7:
        return "".join(rnd.choice(words) for _ in range(rnd.randint(0, 12)))
    if kind < 0.9:
        return "".join(rnd.choice("ab c\n▁eéx") for _ in range(rnd.randint(0, 40)))
    return "".join(chr(rnd.choice([rnd.randint(1, 0x2FF), rnd.randint(0x300, 0xD7FF), rnd.randint(0xE000, 0x10FFFF)]))
                   for _ in range(rnd.randint(1, 20)))


if sys.argv[2] == "random":
    rnd = random.Random(20)
    for _ in range(int(sys.argv[3])):
        text = some_text(rnd)
        show(text, sp.encode(text))
else:
    for name in sys.argv[3:]:
        texts = [prompt(item) for item in json.load(open(name, encoding="utf8"))]
        if sys.argv[2] == "prompts":
            for text in texts:
                show(text, encode(text))
        else:
            ids = np.array([i for text in texts for i in encode(text)], "<i4")
            print(name, len(texts), hashlib.sha256(ids.tobytes()).hexdigest(), sep="\t")
