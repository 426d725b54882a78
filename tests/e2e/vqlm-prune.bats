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

# A text whose lines are long enough, and some that are not.
a_text() {
	jq -r '.[].conversations[0].value' "$ROOT/$CALIB" | grep -v '<image>' | paste -sd ' ' | fold -w 900 >text.txt
	printf 'short\n\nshorter' >>text.txt
}

@test "the criteria that look at samples print a score a block, the same for 1 to 3 threads, in the published columns" {
	a_text
	for opt in "-d $ROOT/$CALIB --samples 6" "-d $ROOT/$CALIB --samples 6 --answers" "--text text.txt --samples 3 --tokens 64"; do
		for c in ppl cosine angular; do
			for t in 1 2 3; do
				# shellcheck disable=SC2086 # options are words
				vqlm-prune -q -t $t -m "$DEMO/mini-llava" $opt --criterion $c --table | tee scores.csv | sha256sum
			done >sums
			[ "$(sort -u sums | wc -l)" -eq 1 ]
			[ "$(tail -n +2 scores.csv | wc -l)" -eq 5 ]
			case $c in
			ppl) [[ "$(head -1 scores.csv)" =~ ^removed_block,ppl_(llava_train_calib_CQM_A|text),num_calib_data,params$ ]] ;;
			*) [ "$(head -1 scores.csv)" = block_name,block_score ] ;;
			esac
			awk -F, 'NR > 1 && !($2 > 0 && $2 < 1e30) { exit 1 }' scores.csv
		done
	done
	# ppl is the default with samples; another seed draws others.
	cmp <(vqlm-prune -q -m "$DEMO/mini-llava" --text text.txt --table) <(vqlm-prune -q -m "$DEMO/mini-llava" --text text.txt --criterion ppl --table)
	! cmp -s <(vqlm-prune -q -m "$DEMO/mini-llava" --text text.txt --table) <(vqlm-prune -q -S 2 -m "$DEMO/mini-llava" --text text.txt --table)
}

@test "the table's perplexity without a block is that of the pruned model, and of the model's stream" {
	vqlm-prune -q -m "$DEMO/mini-llava" -d "$ROOT/$CALIB" --samples 6 --answers --table >scores.csv
	vqlm-calib -q -m "$DEMO/mini-llava" -n 0 | vqlm-prune -q -m - -d "$ROOT/$CALIB" --samples 6 --answers --table >again.csv
	cmp scores.csv again.csv
	# Without block 2 and then block 1 (2 of what is left is 3): in both orders the same model.
	one=$(vqlm-prune -q -m "$DEMO/mini-llava" --blocks 2 | vqlm-prune -q -m - -d "$ROOT/$CALIB" --samples 6 --answers --table | awk -F, '$1 == 3 { print $2 }')
	two=$(vqlm-prune -q -m "$DEMO/mini-llava" --blocks 4 | vqlm-prune -q -m - -d "$ROOT/$CALIB" --samples 6 --answers --table | awk -F, '$1 == 2 { print $2 }')
	[ "$one" = "$two" ]
}

@test "one at a time: after each removal the rest is scored anew" {
	local model="$DEMO/mini-llava" opt=(-d "$ROOT/$CALIB" --samples 8 --answers --no-keep)
	vqlm-prune -q -m "$model" "${opt[@]}" -n 3 --iterative -o i.vqs
	[ "$(history_of i.vqs | jq -c '[.criterion, .iterative, .no_keep, .answers, .samples, .seed]')" = '["ppl",true,true,true,8,0]' ]
	vqlm-prune -q -m "$model" "${opt[@]}" -n 1 \
		| vqlm-prune -q -m - "${opt[@]}" -n 1 \
		| vqlm-prune -q -m - "${opt[@]}" -n 1 -o s.vqs
	cmp <(records i.vqs) <(records s.vqs)
	[ "$(history_of i.vqs | jq -c .kept)" = "$(history_of s.vqs | jq -c .kept)" ]
	# For one block it is the same as at once.
	cmp <(vqlm-prune -q -m "$model" "${opt[@]}" -n 1 | vqlm-ls --json - | tail -n +2) <(vqlm-prune -q -m "$model" "${opt[@]}" -n 1 --iterative | vqlm-ls --json - | tail -n +2)
}

@test "scores that --table printed choose the same blocks from a file" {
	ten_blocks
	vqlm-prune -q -m m --table >scores.csv
	vqlm-prune -q -m m --scores scores.csv -n 3 -o a.vqs
	vqlm-prune -q -m m -n 3 -o b.vqs
	cmp <(records a.vqs) <(records b.vqs)
	[ "$(history_of a.vqs | jq -r .criterion)" = scores ]
	[ "$(history_of a.vqs | jq -r .scores_sha256)" = "$(history_of b.vqs | jq -r .scores_sha256)" ]
	cmp scores.csv <(vqlm-prune -q -m m --scores scores.csv --table)
}

@test "the six published folders: every file of one gives its order and its kept blocks" {
	need_data pruning
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" --text-only --layers 32 --hidden 32 --inter 32 --heads 2 --kv-heads 2 tiny m >/dev/null
	local model criterion folder file n files=0
	for model in vicuna-7b-v1.3 llama-1-7b; do
		for criterion in ppl taylor magnitude; do
			folder=$DATA/pruning/$model/$criterion
			tr ',' '\n' <"$folder/block_order.csv" | tr -d '\r' >order
			[ "$(wc -l <order)" -ge 31 ]
			for n in 6 15 20; do
				# The rule by hand: the first n in order that may go.
				comm -23 <(seq 0 31 | sort) <(grep -vxE '0|1|2|3|30|31' order | head -$n | sort) | sort -n | jq -cs . >want
				for file in "$folder"/*.csv; do
					vqlm-prune -q -m m --scores "$file" -n $n | vqlm-ls --json - | jq -c 'select(.header) | .header.history[-1].params.kept' >got
					cmp want got || { echo "$file, $n removed"; false; }
					files=$((files + 1))
				done
			done
			# Without the rule the order itself: block after block.
			for file in "$folder"/*.csv; do
				vqlm-prune -q -m m --scores "$file" -n 7 --no-keep | vqlm-ls --json - | jq -c 'select(.header) | .header.history[-1].params.kept' >got
				[ "$(cat got)" = "$(comm -23 <(seq 0 31 | sort) <(head -7 order | sort) | sort -n | jq -cs .)" ]
			done
			vqlm-prune -q -m m --scores "$folder/block_order.csv" --table | tail -n +2 | sort -t, -g -k2,2 | sed 's/model.layers.//; s/,.*//' >again
			diff <(sed '$a\' order) again
		done
	done
	figure "published scores: $files choices of kept blocks as published"
	[ "$files" -eq 78 ]
}

@test "nine tensors' scores add up to the published score of a block" {
	need_data pruning
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" --text-only --layers 32 --hidden 32 --inter 32 --heads 2 --kv-heads 2 tiny m >/dev/null
	for folder in "$DATA"/pruning/*-7b*/{taylor,magnitude}; do
		[ "$(grep -c 'model.layers.5\.' "$folder/weight_score.csv")" -eq 9 ]
		vqlm-prune -q -m m --scores "$folder/block_score_all.csv" --table >all.csv
		for file in weight_score block_score_detail; do
			vqlm-prune -q -m m --scores "$folder/$file.csv" --table \
				| paste -d, - all.csv \
				| awk -F, 'NR > 1 { d = $2 / $4 - 1; if (d < 0) d = -d; if (d > 2e-7) exit 1; n++ } END { exit n != 32 }'
		done
	done
}

@test "data, texts and score files that will not do are refused (3), absent ones fail (4)" {
	a_text
	refused() {
		local status=$1 say=$2
		shift 2
		run "-$status" --separate-stderr vqlm-prune -q -m "$DEMO/mini-llava" -o x --no-keep -n 1 "$@"
		[[ "$stderr" == "vqlm-prune: $say"* ]] || { echo "$* -> $stderr"; false; }
		[ ! -e x ] && [ ! -e x.part ]
	}
	refused 3 "text.txt: want 10000 lines of at least 128 tokens (--samples, --tokens), got " --text text.txt --samples 10000
	refused 2 "--tokens: the model reads at most " --text text.txt --tokens 60000
	refused 4 "nope.txt: cannot open" --text nope.txt
	refused 4 "nope.json: " -d nope.json
	refused 3 "$ROOT/$CALIB: want 300 samples" -d "$ROOT/$CALIB" --samples 300
	jq '[.[:12][] | .conversations = [.conversations[0]]]' "$ROOT/$CALIB" >questions.json
	refused 3 "questions.json: the samples have no answers" -d questions.json --images "$DEMO/mini-sqa" --answers
	refused 4 "nope.csv: cannot open" --scores nope.csv
	echo nonsense >bad.csv
	refused 3 "bad.csv: line 1: want the columns of --table or of a published file" --scores bad.csv
	: >empty.txt
	refused 3 "empty.txt: want 10 lines of at least 128 tokens" --text empty.txt
}

@test "mini-llava without the block that its answers need least: in W4A4 by rounding it still answers" {
	local b acc calib=(-d "$ROOT/$CALIB" --samples 64 --answers)
	vqlm-prune -q -m "$DEMO/mini-llava" "${calib[@]}" --table >scores.csv
	accuracy() { vqlm-infer -q -m "$1" -d "$DEMO/mini-sqa/llava_val_CQM-A.json" | vqlm-eval -r "$DEMO/mini-sqa/problems.json" --format tsv | awk -F'\t' '$1 == "Avg" { print $4 }'; }
	for b in 0 1 2 3 4; do
		vqlm-prune -q -m "$DEMO/mini-llava" --blocks $b -o p.vqs
		figure "mini-llava without block $b: perplexity of answers $(awk -F, -v b=$b '$1 == b { print $2 }' scores.csv), validation accuracy $(accuracy p.vqs) %"
	done
	vqlm-prune -q -m "$DEMO/mini-llava" "${calib[@]}" --no-keep -n 1 \
		| vqlm-calib -q -m - -n 0 \
		| vqlm-search -q --method rtn -w 4 -a 4 \
		| vqlm-pack -q -o p.vqm
	acc=$(accuracy p.vqm)
	figure "four of five blocks, W4A4 by rounding: validation accuracy $acc %"
	awk -v a="$acc" 'BEGIN { exit !(a >= 85) }'
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
	refused "--criterion wants ppl|taylor|magnitude|cosine|angular" -m m -n 1 --criterion beauty
	for c in ppl taylor cosine angular; do refused "--criterion $c wants samples: -d DATA or --text FILE" -m m -n 1 --criterion $c; done
	refused "--criterion magnitude looks at no samples" -m m -n 1 --criterion magnitude --text x
	refused "one of -d and --text is wanted, got both" -m m -n 1 --text x -d y
	refused "--images wants -d DATA" -m m -n 1 --text x --images y
	refused "--answers wants -d DATA" -m m -n 1 --text x --answers
	refused "--blocks wants no criterion" -m m --blocks 1 -d x
	refused "--blocks wants no criterion" -m m --blocks 1 --iterative
	refused "--scores wants no criterion" -m m -n 1 --scores x --criterion ppl
	refused "--blocks wants no --scores" -m m --blocks 1 --scores x
	refused "--table wants no --iterative" -m m --table --iterative
	for n in 0 x 65537; do refused "" -m m -n 1 --text x --samples $n; done
	for n in 1 x 65537; do refused "" -m m -n 1 --text x --tokens $n; done
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
	[[ "$stderr" == "vqlm-prune: m/config.json: want a folder with config.json and weights, an archive of one, or a model stream"*"; got a file of another kind" ]]
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
