#!/usr/bin/python3
"""SmolVLM (Idefics3) with random weights, and what PyTorch, Pillow and a few lines of BPE make of a picture and a question.
Written from the model's papers and the behaviour of its published processor.

smolvlm.py make DIR [--seed N] [--shape tiny|256m] [--type float32|bfloat16] [--set KEY=JSON] [--drop KEY] [--image KEY=JSON]
    A checkpoint; KEY a dotted path in config.json (--set, --drop) or preprocessor_config.json (--image).
smolvlm.py prompt DIR QUESTION [PICTURE]        rows and columns of tiles and the token ids, JSON
smolvlm.py pixels DIR PICTURE OUT               what the tower sees: float32 [n, 3, S, S]
smolvlm.py logits DIR QUESTION PICTURE OUT      of the last token, float32; PICTURE - for none
smolvlm.py greedy DIR QUESTION PICTURE N        the N tokens that follow, or those before the end, as JSON
smolvlm.py all DIR QUESTION N OUT PICTURE...    all of these of each picture: OUT/0.prompt, .pixels, .logits, .greedy, OUT/1.prompt ..."""
import argparse
import json
import math
import os
import re
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import layout

TOKENIZER = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'data', 'tokenizer', 'good-digits.json')
TEMPLATE = "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' " \
    "%}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}" \
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}" \
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
SHAPES = {
    'tiny': {'text': {'hidden_size': 72, 'intermediate_size': 152, 'num_hidden_layers': 3, 'num_attention_heads': 9,
                      'num_key_value_heads': 3, 'max_position_embeddings': 2048, 'vocab_size': 608},
             'vision': {'hidden_size': 48, 'intermediate_size': 96, 'num_hidden_layers': 3, 'num_attention_heads': 4,
                        'image_size': 35, 'patch_size': 8}, 'scale': 2, 'longest': 140},
    '256m': {'text': {'hidden_size': 576, 'intermediate_size': 1536, 'num_hidden_layers': 30, 'num_attention_heads': 9,
                      'num_key_value_heads': 3, 'max_position_embeddings': 8192, 'vocab_size': 49280},
             'vision': {'hidden_size': 768, 'intermediate_size': 3072, 'num_hidden_layers': 12, 'num_attention_heads': 12,
                        'image_size': 512, 'patch_size': 16}, 'scale': 4, 'longest': 2048},
}


def at_path(o, path):
    *way, last = path.split('.')
    for k in way:
        o = o[k]
    return o, last


def change(o, sets, drops):
    for s in sets:
        path, _, value = s.partition('=')
        where, key = at_path(o, path)
        where[key] = json.loads(value)
    for path in drops:
        where, key = at_path(o, path)
        del where[key]


def vocabulary(rows):
    """tokenizer.json with the tokens of pictures; their ids follow the vocabulary's."""
    t = json.load(open(TOKENIZER, encoding='utf8'))
    names = ['<fake_token_around_image>', '<global-img>', '<end_of_utterance>'] + \
        ['<row_%d_col_%d>' % (y, x) for y in range(1, rows + 1) for x in range(1, rows + 1)]
    first = 1 + max(a['id'] for a in t['added_tokens'])
    for i, name in enumerate(names):
        t['added_tokens'].append(dict(t['added_tokens'][0], id=first + i, content=name))
    return t


def tensors(config):
    v, t, s = config['vision_config'], config['text_config'], config['scale_factor']
    c, d, out = v['hidden_size'], t['hidden_size'], {}

    def linear(name, n_out, n_in, bias):
        out[name + '.weight'] = [n_out, n_in]
        if bias:
            out[name + '.bias'] = [n_out]

    def norm(name, n, bias):
        out[name + '.weight'] = [n]
        if bias:
            out[name + '.bias'] = [n]

    p, side = 'model.vision_model.', v['image_size'] // v['patch_size']
    out[p + 'embeddings.patch_embedding.weight'] = [c, 3, v['patch_size'], v['patch_size']]
    out[p + 'embeddings.patch_embedding.bias'] = [c]
    out[p + 'embeddings.position_embedding.weight'] = [side * side, c]
    for i in range(v['num_hidden_layers']):
        q = '%sencoder.layers.%d.' % (p, i)
        norm(q + 'layer_norm1', c, True)
        for w in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
            linear(q + 'self_attn.' + w, c, c, True)
        norm(q + 'layer_norm2', c, True)
        linear(q + 'mlp.fc1', v['intermediate_size'], c, True)
        linear(q + 'mlp.fc2', c, v['intermediate_size'], True)
    norm(p + 'post_layernorm', c, True)
    linear('model.connector.modality_projection.proj', d, c * s * s, False)
    p, kv = 'model.text_model.', t['num_key_value_heads'] * (d // t['num_attention_heads'])
    out[p + 'embed_tokens.weight'] = [t['vocab_size'], d]
    for i in range(t['num_hidden_layers']):
        q = '%slayers.%d.' % (p, i)
        norm(q + 'input_layernorm', d, False)
        for w, n in (('q_proj', d), ('k_proj', kv), ('v_proj', kv), ('o_proj', d)):
            linear(q + 'self_attn.' + w, n, d, False)
        norm(q + 'post_attention_layernorm', d, False)
        for w, n, m in (('gate', t['intermediate_size'], d), ('up', t['intermediate_size'], d), ('down', d, t['intermediate_size'])):
            linear('%smlp.%s_proj' % (q, w), n, m, False)
    norm(p + 'norm', d, False)
    if not config['tie_word_embeddings']:
        linear('lm_head', t['vocab_size'], d, False)
    return out


def random_weights(shapes, seed, kind):
    rng, out = np.random.RandomState(seed), {}
    for name, shape in shapes.items():
        if 'norm' in name:
            w = (1 if name.endswith('weight') else 0) + .1 * rng.standard_normal(shape)
        elif len(shape) > 1 and 'embed' not in name.split('.')[-2]:
            w = rng.standard_normal(shape) * 1.5 / math.sqrt(np.prod(shape[1:]))
        else:
            w = rng.standard_normal(shape) * (.1 if name.endswith('bias') else .5)
        w = np.ascontiguousarray(w, np.float32)
        if kind == 'bfloat16':
            out[name] = ('BF16', shape, ((w.view(np.uint32) + 0x8000) >> 16).astype(np.uint16).tobytes())
        else:
            out[name] = ('F32', shape, w.tobytes())
    return out


def make(a):
    shape = SHAPES[a.shape]
    tile, longest = shape['vision']['image_size'], shape['longest']
    rows = -(-longest // tile)
    tok = vocabulary(rows)
    ids = {x['content']: x['id'] for x in tok['added_tokens']}
    config = {'architectures': ['Idefics3ForConditionalGeneration'], 'model_type': 'idefics3', 'image_token_id': ids['<image>'],
              'scale_factor': shape['scale'], 'tie_word_embeddings': True, 'torch_dtype': a.type, 'vocab_size': shape['text']['vocab_size'],
              'text_config': dict(shape['text'], model_type='llama', rms_norm_eps=1e-5, rope_theta=100000, hidden_act='silu'),
              'vision_config': dict(shape['vision'], model_type='idefics3', hidden_act='gelu_pytorch_tanh', layer_norm_eps=1e-6)}
    pre = {'do_convert_rgb': True, 'do_image_splitting': True, 'do_normalize': True, 'do_pad': True, 'do_rescale': True, 'do_resize': True,
           'image_mean': [.5] * 3, 'image_std': [.5] * 3, 'image_processor_type': 'Idefics3ImageProcessor',
           'max_image_size': {'longest_edge': tile}, 'processor_class': 'Idefics3Processor', 'resample': 1,
           'rescale_factor': 0.00392156862745098, 'size': {'longest_edge': longest}}
    change(config, a.set, [])
    weights = random_weights(tensors(config), a.seed, a.type)
    change(config, [], a.drop)
    change(pre, a.image, [])
    os.mkdir(a.args[0])
    layout.write_safetensors(os.path.join(a.args[0], 'model.safetensors'), weights)
    end = ids['<end_of_utterance>']
    for name, o in (('config.json', config), ('preprocessor_config.json', pre), ('tokenizer.json', tok),
                    ('generation_config.json', {'eos_token_id': end, 'pad_token_id': 2}),
                    ('tokenizer_config.json', {'eos_token': '<end_of_utterance>', 'bos_token': '<|im_start|>',
                                               'tokenizer_class': 'GPT2Tokenizer'}),
                    ('chat_template.json', {'chat_template': TEMPLATE})):
        json.dump(o, open(os.path.join(a.args[0], name), 'w', encoding='utf8'))


# --- pictures ---

def picture(path, pre):
    """Rows, columns and the tiles: the longest edge to a length, both up to multiples of a tile, the whole one more."""
    from PIL import Image
    im, tile = Image.open(path).convert('RGBA'), pre['max_image_size']['longest_edge']
    im = Image.alpha_composite(Image.new('RGBA', im.size, (255, 255, 255)), im).convert('RGB')
    up = lambda n: -(-n // tile) * tile
    if pre['do_resize']:
        edge, (w, h) = pre['size']['longest_edge'], im.size
        w, h = (edge, int(edge / (w / h))) if w >= h else (int(edge * (w / h)), edge)
        w, h = (w, h + h % 2) if im.size[0] >= im.size[1] else (w + w % 2, h)
        im = im.resize((max(w, 1), max(h, 1)), Image.LANCZOS)
    if not pre['do_image_splitting']:
        return 0, 0, [im.resize((tile, tile), Image.LANCZOS)]
    w, h = im.size
    im = im.resize((up(w), up(int(up(w) / (w / h)))) if w >= h else (up(int(up(h) * (w / h))), up(h)), Image.LANCZOS)
    w, h = im.size
    if w <= tile and h <= tile:
        return 0, 0, [im]
    cuts = [im.crop((x, y, x + tile, y + tile)) for y in range(0, h, tile) for x in range(0, w, tile)]
    return h // tile, w // tile, cuts + [im.resize((tile, tile), Image.LANCZOS)]


def pixels(pictures):
    x = (np.stack([np.asarray(p, np.uint8) for p in pictures]) * (1 / 255)).astype(np.float32)
    return np.ascontiguousarray(((x - np.float32(.5)) / np.float32(.5)).transpose(0, 3, 1, 2))


# --- words ---

class Words:
    """Byte-level BPE of ASCII text, by trying the merge of lowest rank again and again."""

    def __init__(self, folder):
        t = json.load(open(os.path.join(folder, 'tokenizer.json'), encoding='utf8'))
        self.added = {a['content']: a['id'] for a in t['added_tokens']}
        self.vocab = t['model']['vocab']
        self.rank = {tuple(m.split(' ')): i for i, m in enumerate(t['model']['merges'])}

    def word(self, text):
        parts = [chr(b) if 32 < b < 127 else chr(256 + b) for b in text.encode('ascii')]
        while True:
            pairs = [(self.rank[p], i) for i, p in enumerate(zip(parts, parts[1:])) if p in self.rank]
            if not pairs:
                return [self.vocab[p] for p in parts]
            _, i = min(pairs)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]

    def encode(self, text):
        out = []
        for part in re.split('(' + '|'.join(re.escape(a) for a in sorted(self.added, key=len, reverse=True)) + ')', text):
            if part in self.added:
                out.append(self.added[part])
                continue
            for piece in re.split('([0-9])', part):
                for w in re.findall(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", piece):
                    out += self.word(w)
        return out


class Net:
    def __init__(self, folder):
        import torch
        self.torch, self.folder = torch, folder
        self.c = json.load(open(os.path.join(folder, 'config.json')))
        self.pre = json.load(open(os.path.join(folder, 'preprocessor_config.json')))
        self.w = {}
        for k, (kind, shape, data) in layout.read_safetensors(os.path.join(folder, 'model.safetensors')).items():
            x = np.frombuffer(data, np.float32) if kind == 'F32' else \
                (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
            self.w[k] = torch.tensor(x.astype(np.float64).reshape(shape))

    def linear(self, name, x):
        return self.torch.nn.functional.linear(x, self.w[name + '.weight'], self.w.get(name + '.bias'))

    def layernorm(self, name, x):
        return self.torch.nn.functional.layer_norm(x, x.shape[-1:], self.w[name + '.weight'], self.w[name + '.bias'],
                                                   self.c['vision_config']['layer_norm_eps'])

    def attend(self, q, k, v, dim, causal):
        q, k, v = (z.reshape(len(z), -1, dim).transpose(0, 1) for z in (q, k, v))
        if causal:
            q, k = self.rotate(q), self.rotate(k)
        k, v = (z.repeat_interleave(len(q) // len(k), 0) for z in (k, v))
        a = q @ k.transpose(1, 2) / math.sqrt(dim)
        if causal:
            a = a + self.torch.full(a.shape[1:], float('-inf'), dtype=a.dtype).triu(1)
        return (self.torch.softmax(a, -1) @ v).transpose(0, 1).reshape(q.shape[1], -1)

    def rotate(self, z):
        t, half = self.torch, z.shape[-1] // 2
        angle = t.arange(z.shape[1], dtype=t.float64)[:, None] * \
            float(self.c['text_config']['rope_theta']) ** (-t.arange(half, dtype=t.float64) / half)[None]
        a, b = z[..., :half], z[..., half:]
        return t.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def see(self, x):
        """One tile [3, S, S] -> rows for the decoder."""
        t, v, s = self.torch, self.c['vision_config'], self.c['scale_factor']
        p, c, n = 'model.vision_model.', v['hidden_size'], v['image_size'] // v['patch_size']
        h = t.nn.functional.conv2d(x[None], self.w[p + 'embeddings.patch_embedding.weight'],
                                   self.w[p + 'embeddings.patch_embedding.bias'], stride=v['patch_size'])[0]
        h = h.flatten(1).T + self.w[p + 'embeddings.position_embedding.weight']
        for i in range(v['num_hidden_layers']):
            q = '%sencoder.layers.%d.' % (p, i)
            y = self.layernorm(q + 'layer_norm1', h)
            y = self.attend(*(self.linear('%sself_attn.%s_proj' % (q, w), y) for w in 'qkv'), c // v['num_attention_heads'], False)
            h = h + self.linear(q + 'self_attn.out_proj', y)
            y = self.linear(q + 'mlp.fc1', self.layernorm(q + 'layer_norm2', h))
            y = 0.5 * y * (1 + t.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y ** 3)))
            h = h + self.linear(q + 'mlp.fc2', y)
        h = self.layernorm(p + 'post_layernorm', h).reshape(n, n, c)
        rows = [t.cat([h[y + i, x + j] for i in range(s) for j in range(s)]) for y in range(0, n, s) for x in range(0, n, s)]
        return self.linear('model.connector.modality_projection.proj', t.stack(rows))

    def prompt(self, question, path):
        rows, cols, tiles = picture(path, self.pre) if path != '-' else (0, 0, [])
        v, one = self.c['vision_config'], '<image>'
        each = (v['image_size'] // v['patch_size'] // self.c['scale_factor']) ** 2
        fake, text = '<fake_token_around_image>', ''
        for y in range(rows):
            text += ''.join('%s<row_%d_col_%d>%s' % (fake, y + 1, x + 1, one * each) for x in range(cols)) + '\n'
        text += ('\n' if rows else '') + fake + '<global-img>' + one * each + fake
        text = '<|im_start|>User:%s%s<end_of_utterance>\nAssistant:' % (text if tiles else ' ', question)
        return rows, cols, tiles, Words(self.folder).encode(text)

    def logits(self, tokens, tiles):
        t, c = self.torch, self.c['text_config']
        ids, p, d = t.tensor(tokens), 'model.text_model.', c['hidden_size']
        h = self.w[p + 'embed_tokens.weight'][ids].clone()
        if tiles:
            seen = t.cat([self.see(t.tensor(x.astype(np.float64))) for x in pixels(tiles)])
            h[ids == self.c['image_token_id']] = seen
        rms = lambda name, x: x / t.sqrt((x * x).mean(-1, keepdim=True) + c['rms_norm_eps']) * self.w[name + '.weight']
        for i in range(c['num_hidden_layers']):
            q = '%slayers.%d.' % (p, i)
            y = rms(q + 'input_layernorm', h)
            y = self.attend(*(self.linear('%sself_attn.%s_proj' % (q, w), y) for w in 'qkv'), d // c['num_attention_heads'], True)
            h = h + self.linear(q + 'self_attn.o_proj', y)
            y = rms(q + 'post_attention_layernorm', h)
            g = self.linear(q + 'mlp.gate_proj', y)
            h = h + self.linear(q + 'mlp.down_proj', g * t.sigmoid(g) * self.linear(q + 'mlp.up_proj', y))
        h = rms(p + 'norm', h[-1])
        return self.w.get('lm_head.weight', self.w[p + 'embed_tokens.weight']) @ h

    def greedy(self, tokens, tiles, n):
        added = Words(self.folder).added
        out, end, known = [], added['<end_of_utterance>'], 1 + max(added.values())  # the other rows of the head are no tokens
        while len(out) < n and end not in out:
            out.append(int(self.logits(tokens + out, tiles)[:known].argmax()))
        return [x for x in out if x != end]


def every(net, question, path, n, out):
    rows, cols, tiles, tokens = net.prompt(question, path)
    json.dump({'rows': rows, 'cols': cols, 'tokens': tokens}, open(out + '.prompt', 'w'))
    if tiles:
        pixels(tiles).tofile(out + '.pixels')
    net.logits(tokens, tiles).numpy().astype(np.float32).tofile(out + '.logits')
    json.dump(net.greedy(tokens, tiles, n), open(out + '.greedy', 'w'))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('what', choices=['make', 'prompt', 'pixels', 'logits', 'greedy', 'all'])
    p.add_argument('args', nargs='+')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--shape', default='tiny', choices=SHAPES)
    p.add_argument('--type', default='float32', choices=['float32', 'bfloat16'])
    for o in ('--set', '--drop', '--image'):
        p.add_argument(o, action='append', default=[])
    a = p.parse_args()
    if a.what == 'make':
        return make(a)
    if a.what == 'pixels':
        pre = json.load(open(os.path.join(a.args[0], 'preprocessor_config.json')))
        return pixels(picture(a.args[1], pre)[2]).tofile(a.args[2])
    net = Net(a.args[0])
    if a.what == 'all':
        for i, path in enumerate(a.args[4:]):
            every(net, a.args[1], path, int(a.args[2]), os.path.join(a.args[3], str(i)))
        return
    rows, cols, tiles, tokens = net.prompt(a.args[1], a.args[2] if len(a.args) > 2 else '-')
    if a.what == 'prompt':
        print(json.dumps({'rows': rows, 'cols': cols, 'tokens': tokens}))
    elif a.what == 'logits':
        net.logits(tokens, tiles).numpy().astype(np.float32).tofile(a.args[3])
    else:
        print(json.dumps(net.greedy(tokens, tiles, int(a.args[3]))))


if __name__ == '__main__':
    main()
