#!/usr/bin/python3
"""Codes of quantized models beside those of pipelines/demo/scripts/fakequant.py.

reference.py weights MODEL_DIR STREAM.zstd STREAM.json GRID   codes of every quantized weight; STREAM.zstd: payloads, one
                                                              after the other, STREAM.json: vqlm-ls --json
reference.py acts MODEL_DIR STREAM.zstd STREAM.json GRID GOLDEN CODES_DIR forced|free
                                                              codes of every linear's input on the golden questions,
                                                              in a forward of its own
GRID is group (asymmetric, groups of 128) or token (symmetric, per channel and per token).  Prints one line of figures.

fakequant's functions are called as they are.  Their weight scales are float32; ours are rounded to float16 before the
codes are chosen, so weights are compared exactly with the same formulas given that rounding, and counted beside
fakequant's own.  Activations have float32 scales in both."""
import json, os, sys, types
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
sys.path.insert(0, os.path.join(ROOT, 'pipelines', 'demo', 'scripts'))
sys.modules['train'] = types.ModuleType('train')  # fakequant's accuracy loop wants it, its quantizers do not
import numpy as np
import torch
import fakequant, ref_numpy
from export import load_safetensors

TYPES = {'u8': np.uint8, 'f16': np.float16, 'bytes': np.uint8}
SLOTS = {'q_proj': 'self_attn.q_proj', 'k_proj': 'self_attn.k_proj', 'v_proj': 'self_attn.v_proj', 'o_proj': 'self_attn.o_proj',
         'gate_proj': 'mlp.gate_proj', 'up_proj': 'mlp.up_proj', 'down_proj': 'mlp.down_proj'}
TOWER = {'o_proj': 'self_attn.out_proj', 'up_proj': 'mlp.fc1', 'down_proj': 'mlp.fc2'}


def hf_name(name):
    """Canonical name of a linear, without .weight, to the checkpoint's."""
    p = name.split('.')
    if p[0] == 'projector':
        return 'multi_modal_projector.linear_%d' % (int(p[1]) + 1)
    if p[0] == 'vision':
        return 'vision_tower.vision_model.encoder.layers.%s.%s' % (p[2], TOWER.get(p[3], SLOTS[p[3]]))
    return 'language_model.model.layers.%s.%s' % (p[2], SLOTS[p[3]])


def read_stream(payloads, listing):
    """Name to array of the records of interest."""
    out, at, data = {}, 0, open(payloads, 'rb').read()
    for line in open(listing):
        r = json.loads(line)
        if 'raw_bytes' not in r:
            continue
        if r['dtype'] in TYPES and r['kind'] in ('TENSOR', 'GRID'):
            out[r['name']] = np.frombuffer(data, TYPES[r['dtype']], r['raw_bytes'] // TYPES[r['dtype']]().itemsize, at).reshape(r['shape'])
        at += r['raw_bytes']
    assert at == len(data), (at, len(data))
    return out


def steps(x, kind):
    """fakequant.py's scale and zero point of each group of x [..., n], bits 4: two arrays [..., groups, 1] and x in groups."""
    t = torch.from_numpy(np.array(x, np.float32))
    if kind == 'token':
        g = t.reshape(*t.shape[:-1], 1, -1)
        s = g.abs().amax(-1, keepdim=True).clamp_min(1e-8) / 7
        return g, s, torch.zeros_like(s)
    g = t.reshape(*t.shape[:-1], -1, 128)
    lo, hi = g.amin(-1, keepdim=True).clamp_max(0), g.amax(-1, keepdim=True).clamp_min(0)
    s = ((hi - lo) / 15).clamp_min(1e-8)
    return g, s, (-lo / s).round()


def codes_of(x, kind, half=False):
    """Codes as fakequant.py chooses them, unsigned 0..15, in the shape of x; half: scales rounded to float16 first."""
    g, s, z = steps(x, kind)
    if half:
        s = s.half().float()
        if kind == 'group':
            z = (-g.amin(-1, keepdim=True).clamp_max(0) / s).round()
    low, high = (-8, 7) if kind == 'token' else (0, 15)
    u = ((g / s).round() + z).clamp(low, high)
    return (u - low).reshape(x.shape).numpy().astype(np.int64)


def fake(x, kind):
    t = torch.from_numpy(np.array(x, np.float32))
    return (fakequant.sym(t, 4) if kind == 'token' else fakequant.asym(t, 4)).numpy()


def agrees_with_fakequant(x, kind):
    """The codes above are fakequant.py's own: what it dequantizes them to is the same float."""
    g, s, z = steps(x, kind)
    u = torch.from_numpy(codes_of(x, kind)).reshape(g.shape).float() + (-8 if kind == 'token' else 0)
    return np.array_equal(((u - z) * s).reshape(x.shape).numpy(), fake(x, kind))


def weights(model, stream, kind):
    ckpt, n, same, own, layers = load_safetensors(model + '/model.safetensors'), 0, 0, 0, 0
    for name, codes in stream.items():
        if not name.endswith('.weight') or codes.dtype != np.uint8:
            continue
        w = ckpt[hf_name(name[:-7]) + '.weight'].astype(np.float32)
        assert w.shape == codes.shape, name
        assert agrees_with_fakequant(w, kind), name
        n += w.size
        same += int((codes_of(w, kind, half=True) != codes).sum())
        own += int((codes_of(w, kind) != codes).sum())
        layers += 1
    print(json.dumps(dict(linears=layers, codes=n, differ=same, differ_float32_scales=own)))


def dequant(stream, name, kind):
    c, s = stream[name + '.weight'].astype(np.float32), stream[name + '.scale'].astype(np.float32)
    z = stream[name + '.zero'].astype(np.float32) if name + '.zero' in stream else np.full_like(s, 8)
    g = c.shape[1] // s.shape[1]
    return ((c.reshape(c.shape[0], -1, g) - z[..., None]) * s[..., None]).reshape(c.shape).astype(np.float32)


def read_places(path):
    """The records of act_codes: [x, codes 0..15, scale, zero 0..15 of each group]."""
    out, b, at = [], open(path, 'rb').read(), 0
    while at < len(b):
        rows, n, groups = np.frombuffer(b, np.int32, 3, at)
        at += 12
        part = []
        for t, cols in ((np.float32, n), (np.int8, n), (np.float32, groups), (np.int32, groups)):
            part.append(np.frombuffer(b, t, rows * cols, at).reshape(rows, cols))
            at += rows * cols * t().itemsize
        out.append(part)
    return out


class Fake(ref_numpy.Llava):
    """The numpy forward with fakequant.py's activations and the weights of the stream.  forced: its linears multiply
    the codes that our model had at the same place, so that each place is compared by itself and a tie that went the
    other way does not spread."""

    def quantize(s, stream, kind, forced):
        names = [n[:-7] for n in stream if n.endswith('.weight') and stream[n].dtype == np.uint8]
        s.q, s.kind, s.forced = {hf_name(n): dequant(stream, n, kind) for n in names}, kind, forced
        s.n = s.differ = s.far = s.ours = 0

    def start(s, places):
        s.places, s.last = iter(places), None

    def lin(s, name, x):
        first = not name.endswith(('k_proj', 'v_proj', 'mlp.up_proj'))  # the others read what the one before read
        if first:
            xc, q, scale, zero = next(s.places)
            assert xc.shape == x.shape, (name, xc.shape, x.shape)
            width = xc.shape[1] // scale.shape[1]
            wide = lambda a: np.repeat(a, width, 1)
            got = q.astype(np.int64) + 8  # stored less 2^(bits-1), both kinds
            # The quantizer alone, on our model's own input: fakequant.py's floats to the bit.
            value = (wide(scale) * (q.astype(np.float32) - wide(zero).astype(np.float32)))
            s.ours += int((value != fake(xc, s.kind)).sum())
            # The code of the reference's input.
            want = codes_of(x, s.kind)
            off = want != got
            s.n += got.size
            s.differ += int(off.sum())
            # A tie: our input lies within a thousandth of a step of the boundary between the two codes.
            t = xc / np.where(wide(scale) == 0, 1, wide(scale))
            tie = np.abs(np.abs(t - np.trunc(t)) - .5) < 1e-3
            s.far += int((off & ~(tie & (np.abs(want - got) == 1))).sum())
            s.last = value if s.forced else fake(x, s.kind)
        y = s.last @ s.q[name].T
        return y + s.w[name + '.bias'] if name + '.bias' in s.w else y


def acts(model, stream, kind, golden, codes, forced):
    net, g = Fake(model), load_safetensors(golden)
    net.quantize(stream, kind, forced == 'forced')
    ids, linears = sorted(k[:-10] for k in g if k.endswith('.input_ids')), 0
    for i in ids:
        places = read_places('%s/%s.codes' % (codes, i))
        linears += len(places)
        net.start(places)
        tokens = g[i + '.input_ids']
        x = net.w['language_model.model.embed_tokens.weight'][tokens].copy()
        if i + '.pixel_values' in g:
            x[tokens == net.img] = net.project(net.vision(g[i + '.pixel_values']))
        net.logits(x)
        assert next(net.places, None) is None, i
    print(json.dumps(dict(prompts=len(ids), inputs=linears, codes=net.n, quantizer_differs=net.ours, differ=net.differ, no_tie=net.far)))


if __name__ == '__main__':
    what, model, payloads, listing, kind = sys.argv[1:6]
    stream = read_stream(payloads, listing)
    weights(model, stream, kind) if what == 'weights' else acts(model, stream, kind, *sys.argv[6:])
