#!/usr/bin/python3
"""moe_reference.py DEMO MOE DATA LOGITS [drop] [noise=SEED]: a MoE-LLaVA model by PyTorch beside vqlm-infer --logits.

MOE is a folder of moe_model.py, DEMO the llava-hf folder that it was made from, whose tower it has; DATA the demo's questions.
The gates are written from the formulas of DeepSpeed's top1gating and top2gating: no line of the C code is read.  Prints the
number of questions, the largest difference of a logit, how many letters differ, and the rows that each expert got."""
import json, os, sys
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', '..', 'pipelines', 'demo', 'scripts')]
import numpy as np
import torch
import layout, logits, ref_numpy

MASK = (1 << 64) - 1


class Rng:
    """Value i of stream (seed, purpose), as rng.h describes it."""

    def mix(s, z):
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & MASK
        z = (z ^ z >> 27) * 0x94d049bb133111eb & MASK
        return z ^ z >> 31

    def __init__(s, seed, purpose):
        s.key = s.mix((seed + 0x9e3779b97f4a7c15) & MASK)
        for c in purpose.encode():
            s.key = s.mix(s.key ^ c)

    def uniform(s, i):
        return (s.mix((s.key + (i + 1) * 0x9e3779b97f4a7c15) & MASK) >> 11) * 2. ** -53


def capacity(n_tokens, n_experts, factor, least):
    c = torch.ceil((n_tokens / n_experts) * torch.tensor(factor)).to(torch.int64)
    return max(int(c), least)


class Moe(ref_numpy.Llava):
    def __init__(s, demo, moe, drop=False, noise=None):
        super().__init__(demo)
        types = {'F16': np.float16, 'F32': np.float32}
        c = json.load(open(moe + '/config.json'))
        s.moe, s.drop, s.noise, s.counts = c['moe'], drop, noise, {}
        for k, (t, shape, b) in layout.read_safetensors(moe + '/model.safetensors').items():
            s.w['language_model.' + k] = np.frombuffer(b, types[t]).reshape(shape).astype(np.float32)

    def gumbel(s, layer, n, n_experts):
        r = Rng(s.noise, 'moe')
        u = [[r.uniform(((layer << 32) + t) * 64 + e) for e in range(n_experts)] for t in range(n)]
        return torch.tensor(-np.log(-np.log(np.array(u))), dtype=torch.float32)

    def gates(s, layer, logit):
        """[tokens, experts] combine weights."""
        n, e = logit.shape
        p = torch.softmax(logit, 1)
        first = torch.argmax(p, 1)
        m1 = torch.nn.functional.one_hot(first, e)
        factor, least = s.moe['eval_capacity_factor'], s.moe['min_capacity']
        at1 = torch.cumsum(m1, 0) - 1
        if s.moe['top_k_experts'] == 1:
            if s.drop:
                m1 = m1 * (at1 < capacity(n, e, factor, least))
            return p * m1
        noisy = logit + s.gumbel(layer, n, e) if s.noise is not None else logit
        m2 = torch.nn.functional.one_hot(torch.argmax(noisy.masked_fill(m1.bool(), -float('inf')), 1), e)
        at2 = torch.cumsum(m2, 0) - 1 + m1.sum(0, keepdim=True)
        if s.drop:
            c = capacity(n, e, 2 * factor, least)
            m1, m2 = m1 * (at1 < c), m2 * (at2 < c)
        g1, g2 = (p * m1).sum(1), (p * m2).sum(1)
        total = (g1 + g2).clamp(min=torch.finfo(torch.float32).eps)
        return (g1 / total)[:, None] * m1 + (g2 / total)[:, None] * m2

    def mlp(s, layer, x):
        q = 'language_model.model.layers.%d.mlp.' % layer
        swiglu = lambda v, w: (torch.nn.functional.silu(v @ w[0].T) * (v @ w[1].T)) @ w[2].T
        names = ('gate_proj', 'up_proj', 'down_proj')
        t = lambda n: torch.from_numpy(s.w[n + '.weight'])
        x = torch.from_numpy(x)
        wg = q + 'deepspeed_moe.gate.wg'
        if wg + '.weight' not in s.w:
            return swiglu(x, [t(q + n) for n in names]).numpy()
        g = s.gates(layer, x @ t(wg).T)
        s.counts.setdefault(layer, torch.zeros(g.shape[1], dtype=torch.int64)).add_((g > 0).sum(0))
        y = torch.zeros_like(x)
        for e in range(g.shape[1]):
            w = [t(q + 'deepspeed_moe.experts.deepspeed_experts.%d.%s' % (e, n)) for n in names]
            y += g[:, e:e + 1] * swiglu(x, w)
        return y.numpy()

    def logits(s, x):
        p, c = 'language_model.model.', s.t
        heads, kv, hd, n = c['num_attention_heads'], c['num_key_value_heads'], c['head_dim'], len(x)
        mask = np.triu(np.full((n, n), -np.inf, np.float32), 1)
        t = np.arange(n)[:, None] * (c['rope_theta'] ** (-np.arange(0, hd, 2) / hd))[None]
        cos, sin = (f(np.concatenate([t, t], 1)).astype(np.float32) for f in (np.cos, np.sin))
        rot = lambda z: z * cos + np.concatenate([-z[:, hd // 2:], z[:, :hd // 2]], 1) * sin
        for l in range(c['num_hidden_layers']):
            q = p + 'layers.%d.' % l
            y = s.rms(q + 'input_layernorm', x)
            qkv = [s.lin(q + 'self_attn.%s_proj' % k, y) for k in 'qkv']
            out = []
            for h in range(heads):
                a, b = slice(h * hd, (h + 1) * hd), slice(h * kv // heads * hd, (h * kv // heads + 1) * hd)
                w = ref_numpy.softmax(rot(qkv[0][:, a]) @ rot(qkv[1][:, b]).T * np.float32(hd ** -.5) + mask)
                out.append(w @ qkv[2][:, b])
            x = x + s.lin(q + 'self_attn.o_proj', np.concatenate(out, 1))
            x = x + s.mlp(l, s.rms(q + 'post_attention_layernorm', x))
        return s.rms(p + 'norm', x[-1:]) @ s.w['language_model.lm_head.weight'].T


def main():
    demo, moe, data, ours = sys.argv[1:5]
    opts = dict(o.split('=') if '=' in o else (o, True) for o in sys.argv[5:])
    net = Moe(demo, moe, 'drop' in opts, int(opts['noise']) if 'noise' in opts else None)
    got = logits.records(ours)
    off, n, letters, pictures = 0., 0, 0, 0
    for e in json.load(open(data + '/llava_test_CQM-A.json')):
        if 'logits/' + e['id'] not in got:
            continue
        v = got['logits/' + e['id']].ravel()
        im = ref_numpy.read_png(os.path.join(data, e['image'])) if 'image' in e else None
        want = net.run(e['conversations'][0]['value'], im)[1]['logits'][:len(v)]
        off = max(off, float(np.abs(want - v).max()))
        letters += int(want.argmax() != v.argmax())
        pictures += im is not None
        n += 1
    print(json.dumps(dict(n=n, pictures=pictures, largest=off, letters=letters,
                          counts={k: v.tolist() for k, v in sorted(net.counts.items())})))


if __name__ == '__main__':
    main()
