#!/usr/bin/env bats
# vqlm-prune: what goes, what is left, and what it refuses; model streams as checkpoints.
load common

CALIB=pipelines/demo/mini-sqa/llava_train_calib_CQM-A.json

# A small model of ten blocks, m.
ten_blocks() {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" --layers 10 --vision-layers 2 "$@" tiny m >/dev/null
}

# Records of a stream, whatever way they are stored.
records() { vqlm-ls --json "$1" | jq -c 'select(.name) | [.kind, .name, .shape, .raw_bytes, .xxh64, .attrs]'; }
history_of() { vqlm-ls --json "$1" | jq -c 'select(.header) | .header.history[-1].params'; }

@test "blocks by hand go, the rest is renumbered, and everything else is what it was" {
	ten_blocks
	vqlm-calib -q -m m -n 0 -o all.vqs
	vqlm-prune -q -m m --blocks 2,5-6,9 -o p.vqs
	records all.vqs | grep -vE 'decoder\.layers\.(2|5|6|9)\.' | grep TENSOR | cut -d, -f3-5 >want
	records p.vqs | grep TENSOR | cut -d, -f3-5 >got
	cmp want got
	[ "$(records p.vqs | grep -oE 'decoder\.layers\.[0-9]+' | uniq | tr '\n' ' ')" = "$(printf 'decoder.layers.%s ' {0..5})" ]
	[ "$(vqlm-ls --cat config p.vqs | jq .decoder.n_layers)" -eq 6 ]
	diff <(vqlm-ls --cat config p.vqs | jq 'del(.decoder.n_layers)') <(vqlm-ls --cat config all.vqs | jq 'del(.decoder.n_layers)')
	[ "$(history_of p.vqs | jq -c '[.criterion, .n_blocks, .kept]')" = '["hand",10,[0,1,3,4,7,8]]' ]
	# Weights are counted as the stream has them.
	[ "$(history_of p.vqs | jq .params)" -eq "$(vqlm-ls --json p.vqs | jq -s '[.[] | select(.kind == "TENSOR") | .shape | reduce .[] as $d (1; . * $d)] | add')" ]
}

@test "units and the last unit's tensors follow the renumbering" {
	ten_blocks
	vqlm-prune -q -m m --blocks 2,5-6,9 | vqlm-ls --json - | jq -r 'select(.kind == "TENSOR") | "\(.attrs.unit) \(.name)"' >units
	first=$(sed -n 's/ decoder.embed.weight//p' units)
	[ "$first" -gt 0 ]
	[ "$(tail -1 units)" = "$((first + 5)) decoder.head.weight" ]
	grep -qx "$((first + 5)) decoder.layers.5.down_proj.weight" units
	grep -qx "$((first + 2)) decoder.layers.2.q_proj.weight" units
}

@test "the lowest scores go, the first four blocks and the last two stay unless --no-keep" {
	ten_blocks
	vqlm-prune -q -m m --table >scores.csv
	[ "$(head -1 scores.csv)" = block_name,block_score ]
	[ "$(wc -l <scores.csv)" -eq 11 ]
	low() { tail -n +2 scores.csv | sed 's/model.layers.//' | sort -t, -s -g -k2,2 | cut -d, -f1 | grep -xE "$1" | head -3 | sort -n | tr '\n' ' '; }
	for keep in "[4-7]" "[0-9]"; do
		vqlm-prune -q -m m -n 3 $([ "$keep" = "[4-7]" ] || echo --no-keep) -o p.vqs
		[ "$(comm -23 <(seq 0 9) <(history_of p.vqs | jq '.kept[]')| tr '\n' ' ')" = "$(low "$keep")" ]
	done
	[ "$(history_of p.vqs | jq -r .scores_sha256)" = "$(sha256sum <scores.csv | cut -d' ' -f1)" ]
	# 3 of 10, in three ways.
	cmp <(vqlm-prune -q -m m -n 3) <(vqlm-prune -q -m m --ratio 0.39)
	cmp <(vqlm-prune -q -m m -n 3) <(vqlm-prune -q -m m --params "$(vqlm-prune -q -m m -n 3 -o q.vqs && history_of q.vqs | jq .params)")
}

@test "magnitude is the sum of absolute weights over the nine tensors of a block" {
	ten_blocks
	vqlm-prune -q -m m --table >scores.csv
	vqlm-calib -q -m m -n 0 -l 0 -o all.vqs
	python3 - <<-'END' >want
		import math, struct, subprocess
		for l in range(10):
		    total = []
		    for t in 'norm1 q_proj k_proj v_proj o_proj norm2 gate_proj up_proj down_proj'.split():
		        b = subprocess.run(['vqlm-ls', '--cat', f'decoder.layers.{l}.{t}.weight', 'all.vqs'], capture_output=True, check=True).stdout
		        total += [abs(x) for x, in struct.iter_unpack('<e', b)]
		    print(repr(math.fsum(total)))
	END
	paste -d, want <(tail -n +2 scores.csv | cut -d, -f2) | awk -F, '{ d = $1 - $2; if (d < 0) d = -d; if (d > 1e-9 * $1) exit 1 }'
}

@test "a stream is a checkpoint: calibration from it is calibration from the folder" {
	cd "$ROOT"
	vqlm-calib -q -t 1 -n 4 -m "$DEMO/mini-llava" -d $CALIB -o "$T/a.vqs"
	vqlm-calib -q -n 0 -m "$DEMO/mini-llava" | vqlm-calib -q -t 1 -n 4 -m - -d $CALIB -o "$T/b.vqs"
	vqlm-calib -q -n 0 -m "$DEMO/mini-llava" -o "$T/w.vqs"
	vqlm-calib -q -t 1 -n 4 -m "$T/w.vqs" -d $CALIB -o "$T/c.vqs"
	cd "$T"
	cmp <(records a.vqs) <(records b.vqs)
	cmp <(records a.vqs) <(records c.vqs)
	# A calibrated stream serves as well: what it brings besides weights is dropped.
	vqlm-calib -q -n 0 -m a.vqs -o d.vqs
	cmp <(records w.vqs) <(records d.vqs)
	[ "$(vqlm-ls --json d.vqs | jq -c 'select(.header) | [.header.history[].tool]')" = '["vqlm-calib","vqlm-calib"]' ]
}

@test "a model that is pruned twice keeps the numbers of the first" {
	ten_blocks
	vqlm-prune -q -m m --blocks 2,5 | vqlm-prune -q -m - --blocks 2,6 -o p.vqs
	[ "$(history_of p.vqs | jq -c '[.n_blocks, .kept]')" = '[10,[0,1,4,6,7,9]]' ]
	vqlm-prune -q -m m --blocks 2,3,5,8 -o q.vqs
	cmp <(records p.vqs) <(records q.vqs)
}

@test "a pruned model goes through the whole pipe, and its card says what is left" {
	vqlm-prune -q -m "$DEMO/mini-llava" --blocks 2 -o p.vqs
	vqlm-calib -q -m p.vqs -n 8 -d "$ROOT/$CALIB" \
		| vqlm-entropy -q \
		| vqlm-search -q -w 8 -a 8 --method rtn \
		| vqlm-pack -q -o p.vqm
	tar xOf p.vqm "$(tar tf p.vqm | grep md$)" >card
	grep -qx 'The decoder has 4 of its 5 blocks: 0-1, 3-4.' card
	grep -qx 'The model has 4202368 weights.' card
	grep -qx -- '- pruned' card
	for m in p.vqs p.vqm; do
		run -0 --separate-stderr vqlm-infer -q -m $m -d <(jq -c '.[:4]' "$DEMO/mini-sqa/llava_test_CQM-A.json") --images "$DEMO/mini-sqa"
		[ "$(grep -c question_id <<<"$output")" -eq 4 ]
	done
}

@test "a pruned model in full precision is the model that never ran those blocks" {
	ten_blocks --text-only
	vqlm-prune -q -m m --blocks 2,5-6,9 -o p.vqs
	# The same folder with the blocks taken out by hand.
	mkdir h
	cp m/* h
	python3 - <<-'END'
		import json, struct
		b = open('m/model.safetensors', 'rb').read()
		n = struct.unpack('<Q', b[:8])[0]
		head, data, at, out, body = json.loads(b[8:8 + n]), b[8 + n:], 0, {}, b''
		kept = [0, 1, 3, 4, 7, 8]
		for name, e in head.items():
		    if name == '__metadata__': continue
		    w = name.split('.')
		    if 'layers' in w:
		        i = w.index('layers') + 1
		        if int(w[i]) not in kept: continue
		        w[i] = str(kept.index(int(w[i])))
		    d = data[slice(*e['data_offsets'])]
		    out['.'.join(w)] = dict(e, data_offsets=[len(body), len(body) + len(d)])
		    body += d
		h = json.dumps(out).encode()
		open('h/model.safetensors', 'wb').write(struct.pack('<Q', len(h)) + h + body)
		c = json.load(open('m/config.json'))
		c['num_hidden_layers'] = 6
		json.dump(c, open('h/config.json', 'w'))
	END
	vqlm-calib -q -m h -n 0 -o h.vqs
	cmp <(records p.vqs) <(records h.vqs)
}

@test "wrong command lines are refused (2), each with its reason" {
	ten_blocks
	refused() {
		local say=$1
		shift
		run -2 --separate-stderr bash -c 'vqlm-prune "$@" | cat; exit ${PIPESTATUS[0]}' prune "$@"
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-prune: $say"* ]] || { echo "$* -> $stderr"; false; }
	}
	refused "-m MODEL is wanted" -n 1
	refused "one of -n, --ratio, --params, --blocks is wanted (or --table)" -m m
	refused "one of -n, --ratio, --params, --blocks is wanted, got more" -m m -n 1 --ratio 0.5
	refused "one of -n, --ratio, --params, --blocks is wanted, got more" -m m --blocks 1 --params 1M
	refused "--table wants no --blocks" -m m --table --blocks 1
	for n in 0 x -1 1024; do refused "" -m m -n $n; done
	refused "-n: want 1..4 of the model's 10 blocks removed, got 5" -m m -n 5
	refused "-n: want 1..9 of the model's 10 blocks removed, got 10" -m m -n 10 --no-keep
	for r in x 1.5 -0.1; do refused "" -m m --ratio $r; done
	refused "--ratio: want 1..4" -m m --ratio 0.05
	for p in x 0 1T 2.7G -1 "" 1e40; do refused "--params wants a number of weights" -m m --params "$p"; done
	refused "--params: want 1..4" -m m --params 1
	for b in x 10 1-0 0-9 1,1 ""; do refused "--blocks wants blocks of 0..9" -m m --blocks "$b"; done
	refused "" -m m -n 1 --criterion beauty
	refused "--template: want " -m m -n 1 --template nope
	refused "stray argument" -m m -n 1 stray || refused "" -m m -n 1 stray
}

@test "streams that are cut, empty, quantized or of another kind are refused as checkpoints (3)" {
	ten_blocks
	vqlm-calib -q -m m -n 0 -o w.vqs
	refused() {
		run -3 --separate-stderr bash -c "$1 >out"
		[[ "$stderr" == "vqlm-"*"stdin: $2"* || "$stderr" == "vqlm-"*": stdin: "*"$2"* ]] || { echo "$1 -> $stderr"; false; }
		[ "${#stderr_lines[@]}" -eq 1 ]
	}
	for tool in "vqlm-prune -q -m - --blocks 1" "vqlm-calib -q -m - -n 0"; do
		for at in 40 1000 100000 $(($(stat -c %s w.vqs) - 20)); do
			refused "head -c $at w.vqs | $tool" ""
		done
		refused "$tool </dev/null" "an empty file"
		refused "$tool <m/model.safetensors" "a file of another kind"
		refused "vqlm-search -q --method rtn -w 4 <w.vqs | $tool" "is quantized already"
		refused "vqlm-search -q --method rtn -w 16 -a 4 <w.vqs | $tool" "is quantized already"
		refused "cat w.vqs w.vqs | $tool" "want one model, got a second segment"
	done
	run -3 --separate-stderr vqlm-prune -q -m m/config.json -n 1 -o x
	[[ "$stderr" == "vqlm-prune: m/config.json: want a folder with config.json and safetensors, or a model stream; got a file of another kind" ]]
	run -4 --separate-stderr vqlm-prune -q -m nowhere -n 1 -o x
	[[ "$stderr" == "vqlm-prune: nowhere: no such model" ]]
	[ ! -e x ] && [ ! -e x.part ]
}

@test "a full disk for the weights of a stream is a failure of the system (4) that names TMPDIR" {
	ten_blocks
	vqlm-calib -q -m m -n 0 -o w.vqs
	run -4 --separate-stderr env TMPDIR=/nowhere vqlm-prune -q -m w.vqs --blocks 1 -o x
	[[ "$stderr" == "vqlm-prune: /nowhere: cannot create a temporary file; TMPDIR names another folder: "* ]]
}

@test "a NaN in a weight is refused (3) and the tensor is named as it was" {
	ten_blocks
	vqlm-calib -q -m m -n 0 -l 0 -o w.vqs
	n=$(od -An -tu8 -N8 m/model.safetensors | tr -d ' ')
	at=$((8 + n + $(tail -c +9 m/model.safetensors | head -c "$n" | jq '.["language_model.model.layers.7.mlp.up_proj.weight"].data_offsets[0]')))
	chmod u+w m/model.safetensors
	printf '\x00\x7e' | dd of=m/model.safetensors bs=1 seek=$((at + 20)) conv=notrunc status=none
	run -3 --separate-stderr vqlm-prune -q -m m --blocks 2 -o x
	[[ "$stderr" == *"decoder.layers.7.up_proj.weight"* ]]
	vqlm-prune -q -m m --blocks 7 -o x
}
