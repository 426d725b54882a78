#!/usr/bin/python3
"""Byte-level tokenizers in the files of tiktoken and of GPT-2, and what their authors' algorithm makes of texts.

ranks.py make KIND DIR N      KIND: qwen, arcade100k (KIND.tiktoken), gpt2 (vocab.json, merges.txt, added_tokens.json): N merges learnt
                              from texts of this file and of the demo's questions
ranks.py texts N              N texts to try, as a JSON array
ranks.py encode KIND DIR TEXTS    ids of each text of the JSON array TEXTS, a JSON array a line"""
import base64
import collections
import json
import os
import random
import re
import sys
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = {
    'qwen': {t: 151643 + i for i, t in enumerate(['<|endoftext|>', '<|im_start|>', '<|im_end|>'] +
                                                 ['<|extra_%d|>' % i for i in range(205)])},
    'arcade100k': {'<|endoftext|>': 100257, '<|fim_pad|>': 100261, '<gh_stars>': 100262, '<reponame>': 100275,
                   '<|endofprompt|>': 100276, '<|im_start|>': 100277, '<|im_end|>': 100278, '<|pause|>': 100279,
                   '<|reg0|>': 100280, '<|reg7|>': 100287, '<|extra0|>': 100288},
}


def ranges(letter):
    """A class of the characters whose Unicode category begins with a letter, for re, which knows none."""
    out, start = [], None
    for c in range(0x110001):
        inside = c < 0x110000 and unicodedata.category(chr(c))[0] == letter
        if inside and start is None:
            start = c
        elif not inside and start is not None:
            out.append('%s-%s' % (re.escape(chr(start)), re.escape(chr(c - 1))))
            start = None
    return ''.join(out)


L, N = ranges('L'), ranges('N')
S = '\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000'
WORDS = re.compile("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n%(L)s%(N)s]?[%(L)s]+|[%(N)s]| ?[^%(S)s%(L)s%(N)s]+[\\r\\n]*|"
                   "[%(S)s]*[\\r\\n]+|[%(S)s]+(?![^%(S)s])|[%(S)s]+" % {'L': L, 'N': N, 'S': S})
GPT2 = re.compile("'s|'t|'re|'ve|'m|'ll|'d| ?[%(L)s]+| ?[%(N)s]+| ?[^%(S)s%(L)s%(N)s]+|[%(S)s]+(?![^%(S)s])|[%(S)s]+" %
                  {'L': L, 'N': N, 'S': S})


def learn(text, pattern, n):
    """The n merges that are most frequent one after the other (Sennrich et al., 2016), the first of equals."""
    words = collections.Counter(tuple(bytes([b]) for b in w.encode()) for w in pattern.findall(text))
    merges = []
    while len(merges) < n:
        pairs = collections.Counter()
        for w, count in words.items():
            for pair in zip(w, w[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        new = collections.Counter()
        for w, count in words.items():
            out, i = [], 0
            while i < len(w):
                if w[i:i + 2] == best:
                    out.append(w[i] + w[i + 1])
                    i += 2
                else:
                    out.append(w[i])
                    i += 1
            new[tuple(out)] += count
        words = new
    return merges


def corpus():
    demo = os.path.join(HERE, '../../pipelines/demo/mini-sqa/llava_train_calib_CQM-A.json')
    talk = ' '.join(t['value'] for s in json.load(open(demo)) for t in s['conversations'])
    return talk[:20000] + open(__file__).read() + ' Grüße aus Köln, naïve café, Ελλάδα, Москва, 東京 日本語 ' * 20 + '    ' * 9


def byte_chars():
    """GPT-2's characters for bytes."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    out, n = {}, 0
    for b in range(256):
        out[b] = chr(b) if b in own else chr(256 + n)
        n += b not in own
    return out


def make(kind, folder, n):
    os.makedirs(folder, exist_ok=True)
    order = list(range(256))
    random.Random(1).shuffle(order)  # ranks of bytes are in no order either
    tokens = [bytes([b]) for b in order]
    merges = learn(corpus(), GPT2 if kind == 'gpt2' else WORDS, n)
    for a, b in merges:
        if a + b not in tokens:
            tokens.append(a + b)
    if kind != 'gpt2':
        with open(os.path.join(folder, kind + '.tiktoken'), 'w') as f:
            f.writelines('%s %d\n' % (base64.b64encode(t).decode(), i) for i, t in enumerate(tokens))
        return
    chars = byte_chars()
    text = lambda t: ''.join(chars[b] for b in t)
    vocab = {text(t): i for i, t in enumerate(tokens)}
    vocab['<|endoftext|>'] = len(vocab)
    json.dump(vocab, open(os.path.join(folder, 'vocab.json'), 'w'))
    with open(os.path.join(folder, 'merges.txt'), 'w') as f:
        f.write('#version: 0.2\n' + ''.join('%s %s\n' % (text(a), text(b)) for a, b in merges))
    json.dump({' ' * k: len(vocab) + 5 - k for k in range(5, 1, -1)}, open(os.path.join(folder, 'added_tokens.json'), 'w'))


def merge(parts, rank):
    """Joins the neighbours of the lowest rank, the first of equals, as long as there are some."""
    while True:
        best = min(((r, i) for i, r in enumerate(rank(a, b) for a, b in zip(parts, parts[1:])) if r is not None),
                   default=None)
        if best is None:
            return parts
        i = best[1]
        parts[i:i + 2] = [parts[i] + parts[i + 1]]


class Tiktoken:
    def __init__(self, kind, folder):
        lines = open(os.path.join(folder, kind + '.tiktoken')).read().split('\n')
        self.rank = {base64.b64decode(t): int(r) for t, r in (line.split() for line in lines if line)}
        self.special = SPECIAL[kind]

    def encode(self, text):
        text = unicodedata.normalize('NFC', text)
        out = []
        for part in re.split('(%s)' % '|'.join(map(re.escape, self.special)), text):
            if part in self.special:
                out.append(self.special[part])
                continue
            for word in WORDS.findall(part):
                b = word.encode()
                parts = [b] if b in self.rank else merge([b[i:i + 1] for i in range(len(b))],
                                                         lambda x, y: self.rank.get(x + y))
                out += [self.rank[p] for p in parts]
        return out


class Gpt2:
    def __init__(self, _, folder):
        read = lambda f: open(os.path.join(folder, f), encoding='utf-8').read()
        self.vocab, self.added = json.loads(read('vocab.json')), json.loads(read('added_tokens.json'))
        self.added['<|endoftext|>'] = self.vocab['<|endoftext|>']
        self.rank = {tuple(line.split(' ')): i for i, line in enumerate(read('merges.txt').split('\n')[1:-1])}
        self.chars = byte_chars()

    def encode(self, text):
        out = []
        longest = sorted(self.added, key=len, reverse=True)
        for part in re.split('(%s)' % '|'.join(map(re.escape, longest)), text):
            if part in self.added:
                out.append(self.added[part])
                continue
            for word in GPT2.findall(part):
                out += [self.vocab[p] for p in merge([self.chars[b] for b in word.encode()],
                                                     lambda x, y: self.rank.get((x, y)))]
        return out


def texts(n):
    r = random.Random(7)
    words = corpus().replace('<image>', '').split(' ')
    odd = ['  ', '\n', '\r\n', '\t', "'S", "'re", '12345', 'é', 'e\u0301', '한국어', '😀👍🏽', '\u00a0', 'ﬁ', '////', 'aaaaaaaaaaa',
           '!!!!!!?', '<|endoftext|>', '<|im_start|>', '<|extra_7|>', '<|reg0|>', '  x', '\u3000', '=' * 30, '٣٤', 'ǅ', '½']
    for _ in range(n):
        k = r.randrange(1, 30)
        yield ('' if r.random() < .5 else ' ').join(r.choice(words if r.random() < .6 else odd) for _ in range(k)).strip() or 'x'


def main():
    what = sys.argv[1]
    if what == 'make':
        make(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif what == 'texts':
        print(json.dumps(list(texts(int(sys.argv[2])))))
    else:
        t = (Gpt2 if sys.argv[2] == 'gpt2' else Tiktoken)(sys.argv[2], sys.argv[3])
        for text in json.load(open(sys.argv[4])):
            print(json.dumps(t.encode(text), separators=(',', ':')))


if __name__ == '__main__':
    main()
