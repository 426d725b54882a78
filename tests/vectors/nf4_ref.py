#!/usr/bin/python3
# Fresh cases for NF4 and NF3: nf4_ref.py SEED N prints N random weights as JSON, with the codes, the packed bytes and
# the doubly quantized absmax that numpy in float32 finds for them.
import json
import statistics
import sys
import types

ppf = statistics.NormalDist().inv_cdf
stub = types.ModuleType("scipy.stats")
stub.norm = types.SimpleNamespace(ppf=lambda p: np.array([ppf(float(x)) for x in p]))
sys.modules.setdefault("scipy", types.ModuleType("scipy"))
sys.modules["scipy.stats"] = stub

import numpy as np  # noqa: E402
import ref  # noqa: E402

f32 = np.float32


def linspace(start, n):
    """torch.linspace(start, .5, n) in float32: counted from the nearer end."""
    start, i = f32(start), np.arange(n, dtype=f32)
    step = f32((f32(.5) - start) / f32(n - 1))
    return np.where(i < n // 2, start + step * i, f32(.5) - step * (f32(n - 1) - i)).astype(f32)


def codes(bits):
    if bits == 4:
        return ref.NF4.astype(f32)
    half, o = 2 ** (bits - 1), .5 * ((1 - 1 / 2 ** (bits + 1)) + (1 - 1 / (2 * (2 ** bits - 1))))
    quantiles = stub.norm.ppf
    up, down = quantiles(linspace(o, half + 1)[:-1]), -quantiles(linspace(o, half)[:-1])
    v = np.sort(np.concatenate([up, [0.], down]).astype(f32))
    return v / v.max()


def quantize(x, values, block):
    mid = (values[1:] + values[:-1]) / f32(2)
    idx, scales = [], []
    for at in range(0, len(x), block):
        b = x[at:at + block]
        m = np.abs(b).max()
        scaled = np.clip(b * (f32(1) / max(m, f32(1e-38))), f32(-1), f32(1))
        idx.append(np.searchsorted(mid, scaled, side="left"))  # midpoints below: a tie takes the lower code
        scales.append(m)
    return np.concatenate(idx), np.array(scales, f32)


def double(absmax):
    offset = f32(absmax.astype(np.float64).mean())
    q, scale = quantize(absmax - offset, ref.dynmap(), 256)
    back = ref.dynmap()[q] * np.repeat(scale, 256)[:len(q)] + offset
    return q, scale, offset, back


def dequantized(w, bits=4):
    """w in NF, doubly quantized absmax, and back: float32 of w's shape."""
    u, absmax = quantize(w.astype(f32).ravel(), codes(bits), 64)
    return (codes(bits)[u] * np.repeat(double(absmax)[3], 64)[:len(u)]).reshape(w.shape)


def floats(a):
    return [float(x) for x in a]


def main():
    rng = np.random.default_rng(int(sys.argv[1]))
    out = []
    for i in range(int(sys.argv[2])):
        bits, rows, n = int(rng.choice([3, 4])), int(rng.integers(1, 40)), int(rng.integers(1, 600))
        W = (rng.normal(size=rows * n) * rng.choice([1e-30, 1e-3, .05, 3])).astype(f32)
        if i % 4 == 0:
            W[:min(70, len(W))] = 0
        u, absmax = quantize(W, codes(bits), 64)
        q, scale, offset, back = double(absmax)
        value = codes(bits)[u] * np.repeat(back, 64)[:len(u)]
        even = np.concatenate([u, [0]])[:len(u) + len(u) % 2].astype(int)
        packed = bytes((even[0::2] << 4 | even[1::2]).astype(np.uint8)).hex()
        out.append(dict(bits=bits, rows=rows, n=n, W=floats(W), codes=u.tolist(), packed=packed, absmax=floats(absmax),
                        q=q.tolist(), scale=floats(scale), offset=float(offset), value=floats(value)))
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
