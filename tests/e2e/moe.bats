#!/usr/bin/env bats
# Mixture-of-experts decoders (MoE-LLaVA): random experts in mini-llava, beside PyTorch and through the pipe.
load common

PY=/usr/bin/python3
QUESTIONS=$BATS_TEST_DIRNAME/../../pipelines/demo/mini-sqa

# moe NAME [options]: the demo's model with experts, its tower in ./clip-mini.
moe() {
	need_program "$PY"
	"$PY" -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"
	"$PY" "$ROOT/tests/e2e/moe_model.py" "$DEMO/mini-llava" "$@"
}

infer() {
	vqlm-infer -q --template llava-hf -d "$QUESTIONS/llava_test_CQM-A.json" "$@"
}

# beside MODEL QUESTIONS REFERENCE_OPTIONS... -- INFER_OPTIONS...: logits against PyTorch's forward.
beside() {
	local model=$1 n=$2 opts=()
	shift 2
	while [ "$1" != -- ]; do
		opts+=("$1")
		shift
	done
	"$PY" -c 'import torch' 2>/dev/null || skip "python3-torch is not installed"
	infer -t 2 --float32 --kv 32 -m "$model" --limit "$n" --logits got.vqs "${@:2}" >/dev/null
	"$PY" "$ROOT/tests/e2e/moe_reference.py" "$DEMO/mini-llava" "$model" "$QUESTIONS" got.vqs "${opts[@]}" >figures
	figure "$model ${opts[*]}: $(jq -c '[.n, .pictures, .largest]' figures) questions, pictures, largest difference"
	jq -e ".n == $n and .pictures > 0 and .n > .pictures and .largest < 1e-4 and .letters == 0" figures
}

answers() {
	infer "$@" | jq -c 'select(.text) | [.question_id, .text]'
}

# refused TEXT... -- ARGS...: vqlm-calib gives status 3, says all of it and writes nothing.
refused() {
	local texts=() t
	while [ "$1" != -- ]; do
		texts+=("$1")
		shift
	done
	run -3 --separate-stderr vqlm-calib -n 0 "${@:2}"
	[ -z "$output" ]
	for t in "${texts[@]}"; do
		[[ "$stderr" == "vqlm-calib: "*"$t"* ]] || { echo "$stderr"; false; }
	done
}

@test "logits are PyTorch's: two experts a row, dense layers between, pictures and text" {
	moe m
	beside m 16 --
	jq -e '.counts | keys == ["0", "2", "4"] and all(.[]; length == 4 and all(.[]; . > 0))' figures
}

@test "logits are PyTorch's: one expert a row, its probability the gate; experts that differ in number" {
	moe m --top-k 1 --layers 1,2,4 --experts 3,4,2
	beside m 16 --
	jq -e '.counts | map_values(length) == {"1": 3, "2": 4, "4": 2}' figures
}

@test "logits are PyTorch's where experts drop rows, and where the second one is drawn" {
	moe one --factor 0.6
	beside one 12 drop -- --moe-capacity
	jq -e '[.counts[][]] | add < 2 * 1700' figures
	cp got.vqs dropped.vqs
	moe two --top-k 1 --factor 0.7 --min-capacity 3
	beside two 12 drop -- --moe-capacity
	beside one 12 drop noise=3 -- --moe-capacity --moe-noise 3
	moe m
	beside m 12 noise=5 -- --moe-noise 5
	cp got.vqs noisy.vqs
	# Neither is the default, and the seed counts.
	infer -t 2 --float32 --kv 32 -m one --limit 12 --logits plain.vqs >/dev/null
	"$PY" "$ROOT/tests/e2e/logits.py" plain.vqs dropped.vqs | jq -e '.largest > 0.1'
	infer -t 2 --float32 --kv 32 -m m --limit 12 --moe-noise 6 --logits other.vqs >/dev/null
	"$PY" "$ROOT/tests/e2e/logits.py" noisy.vqs other.vqs | jq -e '.largest > 0.01'
}

@test "answers, noise and dropped rows do not depend on what else is asked" {
	moe m --factor 0.6
	vqlm-calib -q -n 0 -m m | vqlm-search -q --method rtn -w 8 -a 8 | vqlm-pack -q -o m.vqm
	for opts in "" "--moe-noise 4" "--moe-capacity" "--moe-capacity --score"; do
		# shellcheck disable=SC2086 # words on purpose
		infer -m m.vqm --limit 40 $opts | jq -c 'select(.text) | [.question_id, .text]' | sort >want
		[ "$(wc -l <want)" -eq 40 ]
		for part in 1 2 3; do
			# shellcheck disable=SC2086
			infer -m m.vqm --limit 40 $opts --shard $part/3 -t $part | jq -c 'select(.text) | [.question_id, .text]'
		done | sort | cmp want -
	done
	infer -m m.vqm --limit 1 --moe-noise 4 --moe-capacity | head -1 | jq -e '.model.moe == {"noise": 4, "capacity": true}'
	infer -m m.vqm --limit 1 | head -1 | jq -e '.model | has("moe") | not'
}

@test "--moe-noise and --moe-capacity where they have no use" {
	run -2 --separate-stderr infer -m "$DEMO/mini-llava" --moe-capacity
	[[ "$stderr" == *"--moe-capacity: $DEMO/mini-llava has no layers with experts"* ]]
	run -2 --separate-stderr infer -m "$DEMO/mini-llava" --moe-noise some
	[[ "$stderr" == *"--moe-noise wants a whole number of 0 or more, got 'some'"* ]]
	moe m --top-k 1
	run -2 --separate-stderr infer -m m --moe-noise 1
	[[ "$stderr" == *"--moe-noise: it is for the second expert of a row, and m has one"* ]]
}

@test "calibration counts the rows that each expert gets" {
	moe m
	for t in 1 3; do
		vqlm-calib -q -t $t --error-stats -m m -d "$QUESTIONS/llava_train_calib_CQM-A.json" -n 16 -o $t.vqs
	done
	cmp 1.vqs 3.vqs
	# Each of the rows is counted twice, those of the probes not at all.
	vqlm-ls --cat stat/experts 1.vqs | jq -e '.rows as $n | (.layers | map(length)) == [4, 0, 4, 0, 4] and
		([.layers[] | select(length > 0) | add == 2 * $n] | all)'
	n=$(vqlm-ls --cat calib 1.vqs | jq .n_tokens)
	vqlm-ls --cat stat/experts 1.vqs | jq -e ".rows == $n"
	vqlm-calib -q -n 2 -m "$DEMO/mini-llava" -d "$QUESTIONS/llava_train_calib_CQM-A.json" | vqlm-ls - >list
	run ! grep -q stat/experts list
}

@test "a packed model or a stream whose routing is spoilt is refused" {
	moe m
	vqlm-calib -q -n 0 -m m | vqlm-search -q --method rtn -w 8 -a 8 | vqlm-pack -q -o m.vqm
	"$PY" - <<-'E'
		import io, json, tarfile
		def spoil(name, change):
		    src, out = tarfile.open('m.vqm'), tarfile.open(name, 'w', format=tarfile.PAX_FORMAT)
		    for m in src:
		        b = src.extractfile(m).read()
		        if m.name == 'model.json':
		            j = json.loads(b)
		            change(j['config']['decoder']['moe'])
		            b = json.dumps(j).encode()
		            m.size = len(b)
		        out.addfile(m, io.BytesIO(b))
		    out.close()
		spoil('a.vqm', lambda m: m.update(n_experts=[4, 0, 4, 0]))
		spoil('b.vqm', lambda m: m.update(n_experts=[4, 0, 4, 0, 65]))
		spoil('c.vqm', lambda m: m.update(n_experts=[4, 0, 4, 0, -1]))
		spoil('d.vqm', lambda m: m.update(top_k=3))
		spoil('e.vqm', lambda m: m.update(n_experts='4'))
		spoil('f.vqm', lambda m: m.update(n_experts=[1, 0, 4, 0, 4]))
		spoil('g.vqm', lambda m: m.update(n_experts=[0, 0, 0, 0, 0]))
	E
	for f in a b c d e f g; do
		run -3 --separate-stderr infer -m $f.vqm --limit 1
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-infer: $f.vqm"* ]]
	done
}

@test "the same logits with 1 to 4 threads, and from a stream" {
	moe m
	infer -t 1 -m m --limit 6 --logits want.vqs >/dev/null
	for t in 2 3 4; do
		infer -t $t -m m --limit 6 --logits got.vqs >/dev/null
		cmp want.vqs got.vqs
	done
	vqlm-calib -q -n 0 -m m >m.vqs
	infer -m m.vqs --limit 6 --logits got.vqs >/dev/null
	cmp <(vqlm-ls --cat 'logits/*' want.vqs) <(vqlm-ls --cat 'logits/*' got.vqs)
	vqlm-ls --cat config m.vqs | jq -e '.decoder.moe == {"capacity_factor": 2.0, "min_capacity": 0, "n_experts": [4, 0, 4, 0, 4], "top_k": 2}'
}

@test "rounded to 8 bits, packed and run: the letters of full precision; routers stay float" {
	moe m
	vqlm-calib -q -n 0 -m m | vqlm-search -q --method rtn -w 8 -a 8 | vqlm-pack -q -o m.vqm
	answers -m m --limit 24 >want
	answers -m m.vqm --limit 24 >got
	[ "$(wc -l <want)" -eq 24 ]
	n=$(diff want got | grep -c '^>' || true)
	figure "of 24 letters $n differ at 8 bits"
	[ "$n" -le 1 ]
	vqlm-ls --json m.vqm >list
	jq -s -e '[.[] | select(.name? // "" | test("router.weight$"))] | length == 3' list
	tar xOf m.vqm decoder.layers.0.router.weight.json | jq -e '.layout == "plain" and .dtype == "f32" and .shape == [4, 256]'
	tar xOf m.vqm decoder.layers.4.experts.3.down_proj.weight.json | jq -e '.layout == "r32k4" and .shape == [256, 640]'
}

# calibrated MODEL SAMPLES: its stream with a plan, in e.vqs.
calibrated() {
	vqlm-calib -q -t 2 -m "$1" -d "$QUESTIONS/llava_train_calib_CQM-A.json" -n "$2" | vqlm-entropy -q >e.vqs
}

@test "every method: packed models answer, and calibrated ones come nearer than rounding" {
	moe m
	calibrated m 16
	infer -t 2 -m m --limit 40 --logits want.vqs >want.jsonl
	for m in rtn layerwise qvlm awq gptq best; do
		vqlm-search -q -t 2 --rows 1024 --method $m -w 3 -a 8 <e.vqs >s.vqs
		[ $m != awq ] || vqlm-ls --cat 'search/block/*' s.vqs >losses
		vqlm-pack -q -o $m.vqm <s.vqs
		infer -t 2 -m $m.vqm --limit 40 --logits $m.vqs >$m.jsonl
		"$PY" "$ROOT/tests/e2e/logits.py" want.vqs $m.vqs | jq .relative >$m.off
	done
	vqlm-search -q --method nf4 -w 4 -a 16 <e.vqs | vqlm-pack -q -o nf4.vqm
	[ "$(answers -m nf4.vqm --limit 24 | wc -l)" -eq 24 ]
	# The streams' routers agree on most rows, and not on all at 3 bits.
	vqlm-ls --json s.vqs | jq -r 'select(.name? // "" | startswith("search/block/")) | .name' | while read -r b; do
		vqlm-ls --cat "$b" s.vqs
	done | jq -s '[.[] | .rerouted // empty] | if length > 0 then max else -1 end' >rerouted
	figure "largest share of rows that quantized routers would send elsewhere (best): $(cat rerouted)"
	jq -e '. > 0 and . < 0.3' rerouted
	figure "squared error of logits at W3A8: $(for m in rtn layerwise qvlm awq gptq best; do echo -n "$m $(printf %.4f "$(cat $m.off)") "; done)"
	# layerwise does not at 3 bits, in mini-llava itself neither; awq's scales bring its own losses down, and as little there.
	for m in qvlm gptq best; do
		jq -n -e "$(cat $m.off) < $(cat rtn.off)"
	done
	jq -s -e '[.[] | [.loss, .loss_0] | transpose[] | select(.[0])] | length > 20 and all(.[0] <= .[1]) and any(.[0] < .9 * .[1])' losses
	# Every linear of every expert has codes; routers have their own floats.
	for e in 0 1 2 3; do
		for l in up gate down; do
			tar xOf gptq.vqm decoder.layers.2.experts.$e.${l}_proj.weight.json | jq -e '.attrs.grid.bits == 3'
		done
	done
	cmp <(tar xOf gptq.vqm decoder.layers.2.router.weight) <(vqlm-ls --cat decoder.layers.2.router.weight e.vqs)
	# Routers read what AWQ divides; a layer's scales may all be 1.
	run ! cmp <(for l in 0 2 4; do tar xOf awq.vqm decoder.layers.$l.router.weight; done) <(vqlm-ls --cat 'decoder.layers.*.router.weight' e.vqs)
}

@test "searched streams are the same with 1 to 4 threads, and when a run was interrupted" {
	moe m
	vqlm-prune -q -m m --blocks 3,4 -o p.vqs # two sparse layers and the dense one between
	calibrated p.vqs 8
	local m t opts="--parts llm --rows 256"
	# shellcheck disable=SC2086 # words on purpose
	for m in layerwise gptq awq best; do
		vqlm-search -q -t 1 $opts --method $m -w 4 -a 4 <e.vqs >want.vqs
		for t in 2 3 4; do
			vqlm-search -q -t $t $opts --method $m -w 4 -a 4 <e.vqs >got.vqs
			cmp want.vqs got.vqs
		done
		# Cut behind the first sparse layer's block, whose choice the rest depends on.
		head -c $(($(stat -c %s want.vqs) * 7 / 10)) want.vqs >cut.vqs
		vqlm-search -v -t 2 $opts --method $m -w 4 -a 4 --resume cut.vqs <e.vqs 2>said >got.vqs
		grep -q 'taken from the interrupted run' said
		cmp want.vqs got.vqs
	done
}

@test "an expert that no row chooses is searched with all rows, and named" {
	moe m --experts 5 --starve
	calibrated m 8
	vqlm-search -t 2 --method gptq -w 4 -a 4 <e.vqs 2>said | vqlm-pack -q -o m.vqm
	grep -q 'warning: decoder layer 2: expert 4 got 0 of [0-9]* calibration rows, fewer than 32: it is searched with all of them' said
	[ "$(grep -c 'expert 4 got 0' said)" -eq 3 ]
	[ "$(grep -c 'calibration rows' said)" -eq 3 ]
	answers -m m.vqm --limit 24 >got
	[ "$(wc -l <got)" -eq 24 ]
	# Its codes are not those of rounding to nearest: second moments had a part in them.
	vqlm-search -q --method gptq -w 4 -a 4 <e.vqs | vqlm-ls --cat 'decoder.layers.0.experts.4.up_proj.weight' - | sha256sum >a
	vqlm-search -q --method rtn -w 4 -a 4 <e.vqs | vqlm-ls --cat 'decoder.layers.0.experts.4.up_proj.weight' - | sha256sum >b
	[ "$(wc -c <a)" -gt 60 ]
	run ! cmp a b
}

@test "pruned: whole layers, sparse or dense; every criterion" {
	moe m
	for c in ppl taylor cosine; do
		vqlm-prune -q -m m -n 2 --no-keep --criterion $c -d "$QUESTIONS/llava_train_calib_CQM-A.json" --samples 4 >p.vqs
		vqlm-ls --cat config p.vqs | jq -e '.decoder.n_layers == 3 and (.decoder.moe.n_experts | length) == 3'
		infer -m p.vqs --limit 2 >/dev/null
	done
	vqlm-prune -q -m m --blocks 0,3 >p.vqs
	vqlm-ls --cat config p.vqs | jq -e '.decoder.moe.n_experts == [0, 4, 4]'
	# Logits of the rest by PyTorch: the checkpoint without those layers.
	cmp <(vqlm-ls --cat 'decoder.layers.1.experts.2.down_proj.weight' p.vqs) <(vqlm-calib -q -n 0 -m m | vqlm-ls --cat 'decoder.layers.2.experts.2.down_proj.weight' -)
	# 4 experts are 3 MLPs and a router more than a dense layer.
	vqlm-prune -q -m m -n 1 --no-keep --criterion ppl -d "$QUESTIONS/llava_train_calib_CQM-A.json" --samples 2 --table >table
	awk -F, 'NR > 1 {p[$1] = $4} END {exit p[1] - p[0] != 3 * 3 * 256 * 640 + 4 * 256}' table
	vqlm-prune -q -m m --blocks 0,2,4 | vqlm-ls --cat config - | jq -e '.decoder.n_layers == 2 and .decoder.moe == null'
}

@test "healed: the map goes into every expert before what went, adapters into all of them; nearer to the whole model" {
	local way
	moe m
	vqlm-prune -q -m m --blocks 1 -o cut.vqs
	heal() { vqlm-prune -m m -d "$QUESTIONS/llava_train_calib_CQM-A.json" --answers --heal-samples 48 --blocks 1 "$@"; }
	weights() { vqlm-ls --json "$1" | jq -c 'select(.kind == "TENSOR") | [.name, .dtype, .xxh64]'; }
	changed() { diff <(weights cut.vqs) <(weights "$1") | grep '^>' | jq -Rr '.[2:] | fromjson | .[0]' | sort; }
	for way in linear "lora --lora-steps 3"; do
		# shellcheck disable=SC2086 # words on purpose
		heal -t 1 -v --heal $way -o "${way%% *}.vqs" 2>>said
		# shellcheck disable=SC2086
		heal -t 3 -q --heal $way -o again.vqs
		cmp "${way%% *}.vqs" again.vqs
	done
	# The map alone: to fit the projections anew would take the moments of all experts' inputs.
	grep -q 'block 0, map, ridge [0-9.]*, a share of' said
	run ! grep -q refit said
	changed linear.vqs | cmp - <(printf 'decoder.layers.0.experts.%s.down_proj.weight\n' 0 1 2 3)
	changed lora.vqs | cmp - <(weights cut.vqs | jq -r '.[0]' | grep -E '^decoder.layers.*proj.weight' | sort)
	grep -oE 'held-out divergence [0-9.]+$' said | grep -oE '[0-9.]+$' | tr '\n' ' ' >divergences
	figure "held-out divergence without block 1, by shares of the map, then by steps of lora: $(cat divergences)"
	infer -t 2 -m m --limit 40 --logits want.vqs >/dev/null
	for way in cut linear lora; do
		infer -t 2 -m $way.vqs --limit 40 --logits got.vqs >/dev/null
		"$PY" "$ROOT/tests/e2e/logits.py" want.vqs got.vqs | jq .relative >$way.off
	done
	figure "squared error of logits: $(for way in cut linear lora; do echo -n "$way $(cat $way.off) "; done)"
	jq -n -e "$(cat linear.off) < $(cat cut.off) and $(cat lora.off) < $(cat cut.off)"
}

@test "which layers have experts: a list, or a mode" {
	moe m --set moe_layers_idx=null
	want() {
		vqlm-calib -q -n 0 -m m | vqlm-ls --cat config - | jq -e -c ".decoder.moe.n_experts == $1"
	}
	want '[4,0,4,0,4]'
	rm -r m
	moe m --layers 2,3,4 --set moe_layers_idx=null --set 'moe_mode="second_half"'
	want '[0,0,4,4,4]'
	rm -r m
	moe m --layers 0,1 --set moe_layers_idx=null --set 'moe_mode="first_half"' --set 'num_experts=4'
	want '[4,4,0,0,0]'
}

@test "a configuration that is not that of the weights is refused with key, tensor, both numbers and what to do" {
	moe m --tensors 3
	refused "m/config.json: moe: 'num_experts': want 4 for layer 0, the checkpoint has 3" \
		"model.layers.0.mlp.deepspeed_moe.experts.deepspeed_experts.2.up_proj.weight" "take the config.json that belongs" -- -m m
	rm -r m
	moe m --tensors 5
	refused "'num_experts': want 4 for layer 0, the checkpoint has 5" "deepspeed_experts.4.up_proj.weight" -- -m m
	rm -r m
	moe m --set 'moe_layers_idx=[0,1,2,4]'
	refused "m/config.json: moe: 'num_experts': want one number of 2..64, or a list of 4, got [4,4,4]" -- -m m
	rm -r m
	moe m --set 'moe_layers_idx=[0,1,2,4]' --set num_experts=4
	refused "'num_experts': want 4 for layer 1, the checkpoint has 0" "model.layers.1.mlp.deepspeed_moe" -- -m m
	rm -r m
	moe m --set 'moe_layers_idx=[0,2]' --set num_experts=4
	refused "'moe_layers_idx': layer 4 is not among them, but the checkpoint has 4 experts of it" -- -m m
	rm -r m
	moe m --set moe_enable=false
	refused "'moe_layers_idx': layer 0 is not among them" -- -m m
}

@test "bad values of the moe dictionary" {
	moe m
	cp m/config.json plain.json
	bad() {
		jq "$1" plain.json >m/config.json
		refused "m/config.json: " "$2" -- -m m
	}
	bad '.moe.use_residual = true' "moe: 'use_residual': residual experts are not supported"
	bad '.moe = 3' "'moe': want an object, got 3"
	bad '.moe.top_k_experts = 3' "'top_k_experts'"
	bad '.moe.top_k_experts = "2"' "'top_k_experts'"
	bad '.moe.num_experts = [4,4,1]' "'num_experts': want one number of 2..64, or a list of 3"
	bad '.moe.num_experts = 1e9' "'num_experts'"
	bad '.moe.num_experts = [4,4,70000]' "'num_experts'"
	bad '.moe.num_experts = {}' "'num_experts'"
	bad 'del(.moe.num_experts)' "'num_experts'"
	bad '.moe.moe_layers_idx = [0,2,5]' "'moe_layers_idx': want different layers of 0..4, got 5"
	bad '.moe.moe_layers_idx = [0,2,2]' "'moe_layers_idx': want different layers of 0..4, got 2"
	bad '.moe.moe_layers_idx = [-1]' "'moe_layers_idx'"
	bad '.moe.moe_layers_idx = "all"' "'moe_layers_idx'"
	bad '.moe.moe_layers_idx = []' "'moe_layers_idx'"
	bad '.moe.moe_mode = "odd"' "'moe_mode'"
	bad '.moe.eval_capacity_factor = 0' "'eval_capacity_factor'"
	bad '.moe.eval_capacity_factor = 1e300' "'eval_capacity_factor'"
	bad '.moe.min_capacity = -1' "'min_capacity'"
	bad '.moe.moe_enable = 1' "'moe_enable'"
}
