#!/usr/bin/python3
# Fresh cases for WUSH: wush_ref.py SEED N prints N random inputs and weights as JSON, with the factor S^1/2 V^T B^-T of
# the transform (rows have no sign of their own) by singular values, not eigenvalues, and the moments that follow.
import json
import sys

import numpy as np

rng = np.random.default_rng(int(sys.argv[1]))
out = []
for i in range(int(sys.argv[2])):
    n, tokens, rows = int(rng.choice([8, 16, 32])), int(rng.integers(20, 300)), int(rng.integers(4, 60))
    X = (rng.normal(size=(tokens, n)) * np.exp(rng.normal(size=n)) @ (np.eye(n) + .3 * rng.normal(size=(n, n)))).astype(np.float32)
    W = (rng.normal(size=(rows, n)) * np.exp(rng.normal(size=n))).astype(np.float32)
    damp = float(rng.choice([.01, .1]))
    Hx = X.T.astype(float) @ X.astype(float) / tokens
    Hx += damp * np.diag(Hx).mean() * np.eye(n)
    B = np.linalg.cholesky(Hx).T
    V, S, _ = np.linalg.svd(B @ W.T.astype(float), full_matrices=True)
    S = np.concatenate([S, np.zeros(n - len(S))]) / np.sqrt(rows)
    S += damp * S.mean()
    factor = np.diag(np.sqrt(S)) @ V.T @ np.linalg.inv(B.T)
    out.append(dict(damp=damp, X=X.tolist(), W=W.tolist(), factor=factor.tolist(), mean=S.mean(),
                    known=int(min(rows, n))))
json.dump(out, sys.stdout)
