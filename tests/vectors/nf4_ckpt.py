#!/usr/bin/python3
# nf4_ckpt.py FROM TO: a copy of a checkpoint in which every linear of the towers and the projector is float32 and what
# NF4 with double quantization makes of it by nf4_ref.py; embeddings, head, norms and biases are as they were.
import json
import os
import shutil
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import nf4_ref  # noqa: E402
import numpy as np  # noqa: E402

WORDS = ("_proj.weight", "fc1.weight", "fc2.weight", "linear_1.weight", "linear_2.weight")
src, dst = sys.argv[1:]
shutil.copytree(src, dst)
with open(os.path.join(src, "model.safetensors"), "rb") as f:
    head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    data = f.read()
head.pop("__metadata__", None)
out, body, n = {}, b"", 0
for name, t in sorted(head.items()):
    a, b = t["data_offsets"]
    raw = data[a:b]
    if name.endswith(WORDS):
        assert t["dtype"] == "F16"
        w = np.frombuffer(raw, np.float16).reshape(t["shape"])
        raw, t["dtype"], n = nf4_ref.dequantized(w).astype("<f4").tobytes(), "F32", n + 1
    out[name] = dict(t, data_offsets=[len(body), len(body) + len(raw)])
    body += raw + bytes(-len(raw) % 8)
    out[name]["data_offsets"][1] = out[name]["data_offsets"][0] + len(raw)
text = json.dumps(out).encode()
text += b" " * (-len(text) % 8)
with open(os.path.join(dst, "model.safetensors"), "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + body)
print(n)
