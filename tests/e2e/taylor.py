#!/usr/bin/python3
"""taylor.py MODEL SAMPLES BATCH all|answers SCORES: Taylor scores of every tensor by PyTorch's autograd, in float64, beside those of
vqlm-prune.

SAMPLES has raw files I.tokens (int32) of a prompt, I.answer (a letter) and, for a sample with a picture, I.pixels
(float32).  Asked are all tokens of text, or those of the answer and its end alone.  SCORES is the table of
--criterion taylor --table.  Prints the largest relative difference of a score and of a block's sum.  The forward pass is
written from the formulas of lib/model/MODEL.md; vision and projector are those of the demo's numpy reference."""
import json
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../pipelines/demo/scripts'))
import ref_numpy

COLUMNS = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj', 'self_attn.o_proj', 'mlp.gate_proj',
           'mlp.up_proj', 'mlp.down_proj', 'input_layernorm', 'post_attention_layernorm']


class Decoder:
    def __init__(self, folder):
        self.ref = ref_numpy.Llava(folder, np.float64)
        self.cfg = self.ref.t
        self.words = [self.ref.tok.inv[i] for i in range(self.cfg['vocab_size'])]
        self.w = {k[len('language_model.'):]: torch.tensor(v, dtype=torch.float64, requires_grad='layers.' in k)
                  for k, v in self.ref.w.items() if k.startswith('language_model.')}

    def norm(self, name, x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.cfg['rms_norm_eps']) * self.w[name + '.weight']

    def attention(self, layer, x):
        heads, kv, dim = self.cfg['num_attention_heads'], self.cfg['num_key_value_heads'], self.cfg['head_dim']
        n = len(x)
        angle = torch.arange(n, dtype=torch.float64)[:, None] * \
            self.cfg['rope_theta'] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)[None]
        cos, sin = (torch.cat([f(angle)] * 2, 1) for f in (torch.cos, torch.sin))

        def rows(which, count):
            return (x @ self.w[layer + 'self_attn.%s_proj.weight' % which].T).view(n, count, dim).transpose(0, 1)

        def rotate(z):
            return z * cos + torch.cat([-z[..., dim // 2:], z[..., :dim // 2]], -1) * sin

        q, k, v = rotate(rows('q', heads)), rotate(rows('k', kv)), rows('v', kv)
        k, v = (z.repeat_interleave(heads // kv, 0) for z in (k, v))
        mask = torch.full((n, n), float('-inf'), dtype=torch.float64).triu(1)
        out = torch.softmax(q @ k.transpose(1, 2) / dim ** 0.5 + mask, -1) @ v
        return out.transpose(0, 1).reshape(n, -1) @ self.w[layer + 'self_attn.o_proj.weight'].T

    def loss(self, prompt, answer, pixels, answers):
        """Summed loss over the tokens that are asked for, and their number."""
        ids = [i for i, text in enumerate(self.words) if text == '\u2581' + answer]
        tokens = torch.tensor(prompt + ids + [self.cfg['eos_token_id']])
        x = self.w['model.embed_tokens.weight'][tokens].clone()
        picture = tokens == self.ref.img
        if pixels is not None:
            x[picture] = torch.tensor(self.ref.project(self.ref.vision(pixels)))
        for i in range(self.cfg['num_hidden_layers']):
            layer = 'model.layers.%d.' % i
            x = x + self.attention(layer, self.norm(layer + 'input_layernorm', x))
            y = self.norm(layer + 'post_attention_layernorm', x)
            gate, up, down = (self.w[layer + 'mlp.%s_proj.weight' % p] for p in ('gate', 'up', 'down'))
            x = x + (torch.nn.functional.silu(y @ gate.T) * (y @ up.T)) @ down.T
        logp = torch.log_softmax(self.norm('model.norm', x) @ self.w['lm_head.weight'].T, -1)
        asked = ~picture[1:]
        if answers:
            asked[:len(prompt) - 1] = False
        return -logp[:-1][asked].gather(1, tokens[1:][asked][:, None]).sum(), int(asked.sum())


def samples(folder, size):
    i = 0
    while os.path.exists('%s/%d.tokens' % (folder, i)):
        tokens = np.fromfile('%s/%d.tokens' % (folder, i), np.int32).tolist()
        answer = open('%s/%d.answer' % (folder, i)).read().strip()
        path = '%s/%d.pixels' % (folder, i)
        pixels = np.fromfile(path, np.float32).astype(np.float64).reshape(1, 3, size, size) if os.path.exists(path) else None
        yield tokens, answer, pixels
        i += 1


def main(folder, data, batch, answers, table):
    net = Decoder(folder)
    pairs = list(samples(data, net.ref.v['image_size']))
    for at in range(0, len(pairs), batch):
        parts = [net.loss(*p, answers) for p in pairs[at:at + batch]]
        (sum(p[0] for p in parts) / sum(p[1] for p in parts)).backward()  # adds to the gradients of earlier batches
    rows = [line.split(',') for line in open(table).read().split('\n')[1:-1]]
    assert len(rows) == net.cfg['num_hidden_layers'] and pairs
    worst = worst_sum = 0
    for i, row in enumerate(rows):
        want = [float((net.w['model.layers.%d.%s.weight' % (i, c)] * net.w['model.layers.%d.%s.weight' % (i, c)].grad)
                      .abs().sum()) for c in COLUMNS]
        got = [float(v) for v in row[1:]]
        assert row[0] == 'model.layers.%d' % i and len(got) == len(want)
        worst = max([worst] + [abs(g - w) / w for g, w in zip(got, want)])
        worst_sum = max(worst_sum, abs(sum(got) - sum(want)) / sum(want))
    print(json.dumps({'samples': len(pairs), 'tensor': worst, 'block': worst_sum}))


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == 'answers', sys.argv[5])
