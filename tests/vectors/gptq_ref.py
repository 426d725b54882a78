#!/usr/bin/python3
# Fresh cases for GPTQ: gptq_ref.py SEED N prints N random weights, second moments and options as JSON, with the
# codes and losses that ref.py finds for them.
import json
import sys
import types

stub = types.ModuleType("scipy.stats")  # ref.py wants scipy for NF4 alone
stub.norm = None
sys.modules.setdefault("scipy", types.ModuleType("scipy"))
sys.modules["scipy.stats"] = stub

import numpy as np  # noqa: E402
import ref  # noqa: E402

rng = np.random.default_rng(int(sys.argv[1]))
out = []
for i in range(int(sys.argv[2])):
    rows, n = int(rng.integers(1, 9)), int(rng.integers(2, 5)) * 8
    W = rng.normal(size=(rows, n))
    X = rng.normal(size=(4 * n, n)) @ (np.eye(n) + .3 * rng.normal(size=(n, n)))
    if i % 3 == 0:
        X[:, int(rng.integers(n))] = 0
    H = X.T @ X / len(X)
    o = dict(bits=int(rng.integers(2, 9)), sym=bool(rng.integers(2)), group=int(rng.choice([-1, 8, 16])),
             percdamp=float(rng.choice([.01, .1])))
    act = bool(rng.integers(2))
    # ref.py, as the authors, takes ranges as they were before the block: stale where groups are smaller.
    block = int(rng.choice([8, 16]))
    r = ref.gptq(W, H, block=block, act_order=act, static_groups=act and o["group"] > 0, **o)
    out.append(dict(o, block=block, act_order=act, W=W.tolist(), H=H.tolist(), I=r["I"].tolist(), loss=r["loss"]))
json.dump(out, sys.stdout)
