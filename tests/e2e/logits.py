#!/usr/bin/python3
"""logits.py A B: how far the f32 records of two streams are apart, by vqlm-stream(5) alone: number of records, largest
difference, squared difference relative to A."""
import json
import struct
import subprocess
import sys

import numpy as np


def records(path):
    b, at, out = open(path, "rb").read(), 0, {}
    while at < len(b):
        n = struct.unpack_from("<I", b, at + 4)[0]
        c = b[at + 8:at + 8 + n]
        at += 8 + n
        if c[:8] != b"VQLMRECD":
            continue
        kind, dtype, nd, codec, raw, sto, h, nn, na = struct.unpack_from("<4I3Q2I", c, 8)
        data = subprocess.run(["zstd", "-d", "-q", "-c"], input=b[at:at + sto], check=True,
                              stdout=subprocess.PIPE).stdout
        at += sto
        if dtype != 1:
            continue
        v = np.frombuffer(data, np.uint8)
        if codec == 2:  # byte planes of groups of 131072 elements
            v = np.concatenate([v[g:g + 524288].reshape(4, -1).T.ravel() for g in range(0, len(v), 524288)])
        out[c[56 + 8 * nd:56 + 8 * nd + nn].decode()] = v.view("<f4").astype(np.float64)
    return out


if __name__ == "__main__":
    a, b = records(sys.argv[1]), records(sys.argv[2])
    assert a and a.keys() == b.keys()
    off = max(np.abs(a[k] - b[k]).max() for k in a)
    rel = sum(((a[k] - b[k]) ** 2).sum() for k in a) / sum((a[k] ** 2).sum() for k in a)
    print(json.dumps({"n": len(a), "largest": off, "relative": rel}))
