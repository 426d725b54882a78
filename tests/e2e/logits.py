#!/usr/bin/python3
"""logits.py A B: how far the f32 records of two streams are apart, by vqlm-stream(5) alone: number of records, largest
difference, squared difference relative to A."""
import json
import struct
import subprocess
import sys

import numpy as np


def records(path):
    b, at, found, frames = open(path, "rb").read(), 0, [], []
    while at < len(b):
        n = struct.unpack_from("<I", b, at + 4)[0]
        c = b[at + 8:at + 8 + n]
        at += 8 + n
        if c[:8] != b"VQLMRECD":
            continue
        kind, dtype, nd, codec, raw, sto, h, nn, na = struct.unpack_from("<4I3Q2I", c, 8)
        if dtype == 1:
            found.append((c[56 + 8 * nd:56 + 8 * nd + nn].decode(), codec, raw))
            frames.append(b[at:at + sto])
        at += sto
    # Frames one behind the other are the bytes one behind the other: one process for all.
    data = subprocess.run(["zstd", "-d", "-q", "-c"], input=b"".join(frames), check=True, stdout=subprocess.PIPE).stdout
    out, at = {}, 0
    for name, codec, raw in found:
        v = np.frombuffer(data, np.uint8, raw, at)
        at += raw
        if codec == 2:  # byte planes of groups of 131072 elements
            v = np.concatenate([v[g:g + 524288].reshape(4, -1).T.ravel() for g in range(0, len(v), 524288)])
        out[name] = v.view("<f4").astype(np.float64)
    assert at == len(data)
    return out


if __name__ == "__main__":
    a, b = records(sys.argv[1]), records(sys.argv[2])
    assert a and a.keys() == b.keys()
    off = max(np.abs(a[k] - b[k]).max() for k in a)
    rel = sum(((a[k] - b[k]) ** 2).sum() for k in a) / sum((a[k] ** 2).sum() for k in a)
    print(json.dumps({"n": len(a), "largest": off, "relative": rel}))
