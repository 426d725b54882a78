#!/usr/bin/python3
"""llama_logits.py LOGITS.vqs ANSWERS.jsonl LLAMA.jsonl: the next token's log-probabilities of vqlm-infer --logits beside
those of llama.mjs, question by question: number, and the squared difference relative to ours.  Prompts must have as many
tokens in both."""
import json, os, sys
import numpy as np
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from logits import records

ours, theirs = records(sys.argv[1]), [json.loads(line) for line in open(sys.argv[3])]
asked = [a for a in map(json.loads, open(sys.argv[2])) if 'question_id' in a]
assert len(asked) == len(theirs) == len(ours) > 0
off = of = 0.0
for a, t in zip(asked, theirs):
    assert a['n_prompt'] == len(t['tokens']), (a, t['tokens'])
    v = ours['logits/' + a['question_id']].ravel()
    v = v - v.max()
    v = v - np.log(np.exp(v).sum())
    w = np.array(t['logp'])[:v.size]  # rows of the head that are no tokens are theirs alone
    w = w - np.log(np.exp(w).sum())
    off += ((w - v) ** 2).sum()
    of += (v ** 2).sum()
print(json.dumps({'n': len(asked), 'relative': off / of}))
