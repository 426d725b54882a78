#!/usr/bin/python3
# Fresh cases for AWQ: awq_ref.py SEED N prints N random weights, inputs and grids as JSON, with the losses, scales and
# clips that ref.py finds for them, and the scales of AutoAWQ's duo_scaling for ratio 0.35.
import json
import sys
import types

stub = types.ModuleType("scipy.stats")  # ref.py wants scipy for NF4 alone
stub.norm = None
sys.modules.setdefault("scipy", types.ModuleType("scipy"))
sys.modules["scipy.stats"] = stub

import numpy as np  # noqa: E402
import ref  # noqa: E402


def duo(W, X, group, ratio):
    w = np.abs(W).reshape(-1, group)
    wm = (w / (w.max(1, keepdims=True) + 1e-6)).reshape(W.shape).mean(0)
    s = np.maximum(np.abs(X).mean(0) ** ratio / (wm ** (1 - ratio) + 1e-4), 1e-4)
    s = s / np.sqrt(s.max() * s.min())
    s[~np.isfinite(s)] = 1
    return s


rng = np.random.default_rng(int(sys.argv[1]))
out = []
for i in range(int(sys.argv[2])):
    rows, n = int(rng.integers(1, 9)), int(rng.integers(1, 5)) * 16
    W = rng.normal(size=(rows, n)) * np.exp(rng.normal(size=(rows, 1)))
    # every third case has more tokens than are clipped by, and one has inputs and weights of zeros
    X = rng.normal(size=(1100 if i % 3 == 0 else 40, n)) * np.exp(rng.normal(size=n))
    X[:, int(rng.integers(n))] *= 30
    if i % 4 == 1:
        X[:, int(rng.integers(n))] = 0
        W[0, :16] = 0
    bits, group = int(rng.integers(2, 9)), int(rng.choice([8, 16]))
    (_, ratio, s), hist = ref.awq_scale(W, X, bits, group)
    clip, _ = ref.awq_clip(W * s, X / s, bits, group)
    out.append(dict(bits=bits, group=group, W=W.tolist(), X=X.tolist(), ratio=ratio, s=s.tolist(), hist=hist,
                    clip=clip.tolist(), duo=duo(W, X, group, 7 / 20).tolist()))
json.dump(out, sys.stdout)
