#!/usr/bin/env bats
# vqlm-pack on the demo model, from calibration without samples to the packed file.
load common

# The searched stream of mini-llava; arguments go to search.
searched() {
	vqlm-calib -m "$DEMO/mini-llava" -n 0 | vqlm-entropy -q | vqlm-search -q --method rtn -w 4 -a 8 "$@"
}

@test "a searched stream becomes a whole packed model, the same from run to run and through a pipe" {
	searched >s.vqs
	run -0 --separate-stderr vqlm-pack -o m.vqm <s.vqs
	[ -z "$output" ] && [ -z "$stderr" ]
	[ ! -e m.vqm.part ]
	run -0 vqlm-ls --check m.vqm
	[[ "$output" == "m.vqm: packed model ok: "*" members, "*" bytes" ]]
	cat s.vqs | vqlm-pack | cat >n.vqm
	cmp m.vqm n.vqm
	run -0 bash -c 'cat m.vqm | vqlm-ls -c'
	OMP_NUM_THREADS=1 vqlm-pack -t 1 <s.vqs | cmp - m.vqm
}

@test "tar lists it, and its JSON and card read well" {
	need_program jq tar
	searched | vqlm-pack --license cc0-1.0 --base-model demo -o m.vqm
	run -0 tar tf m.vqm
	[ "${lines[0]}" = model.json ]
	[ "${lines[-1]}" = manifest.json ]
	tar xf m.vqm
	for f in *.json; do jq -e . "$f" >/dev/null; done
	[ "$(jq -r '.history[-1].tool' model.json)" = vqlm-pack ]
	[ "$(jq -r '.members[] | select(.name == "card.md") | .sha256' manifest.json)" = "$(sha256sum <card.md | cut -d' ' -f1)" ]
	[ "$(head -4 card.md)" = "$(printf -- '---\nbase_model: "demo"\nbase_model_relation: quantized\nlibrary_name: vqlm')" ]
	grep -q '^license: "cc0-1.0"$' card.md
	grep -q '^pipeline_tag: image-text-to-text$' card.md
	grep -q 'vqlm-search .*"bits":4' card.md
	cmp tokenizer.json "$DEMO/mini-llava/tokenizer.json"
	# Where the manifest says that a member lies, there it is.
	o=$(jq '.members[] | select(.name == "decoder.norm.weight") | .offset' manifest.json)
	n=$(stat -c %s decoder.norm.weight)
	dd if=m.vqm bs=1 skip="$o" count="$n" status=none | cmp - decoder.norm.weight
}

@test "-v says the size before and after" {
	searched >s.vqs
	run -0 --separate-stderr vqlm-pack -v -o m.vqm <s.vqs
	[[ "$stderr" =~ "MB before, "[0-9.]+" MB packed, "[0-9.]+" bits a weight" ]]
	figure "mini-llava W4: ${stderr#vqlm-pack: }"
}

@test "--head 8 makes embedding and head smaller and says so in the card; other widths are usage (2)" {
	need_program tar
	searched >s.vqs
	vqlm-pack -o a.vqm <s.vqs
	vqlm-pack --head 8 -o b.vqm <s.vqs
	[ "$(stat -c %s b.vqm)" -lt "$(stat -c %s a.vqm)" ]
	vqlm-ls -c b.vqm
	[[ "$(tar xOf a.vqm card.md)" == *"| output head | 262144 | 524288 | 524288 | 16.00 |"* ]]
	[[ "$(tar xOf b.vqm card.md)" == *"| output head | 262144 | 524288 | 266240 | 8.12 |"* ]]
	run -2 --separate-stderr vqlm-pack --head 9 <s.vqs
	[[ "$stderr" == *"--head wants one of 16|8, got '9'"* ]]
}

@test "pieces of a job array pack to the tensors of one run" {
	need_program jq tar
	searched >s.vqs
	searched --blocks 0-3 >a.vqs
	searched --blocks 4-9 >b.vqs
	cat a.vqs b.vqs | vqlm-pack -o ab.vqm
	vqlm-pack -o s.vqm <s.vqs
	for m in s ab; do
		tar xOf $m.vqm manifest.json | jq -c '.members[] | select(.name | test("weight$|bias$|embed$")) | [.name, .sha256]' >$m.txt
	done
	[ -s s.txt ]
	cmp s.txt ab.txt
}

@test "a missing unit and one that comes twice are refused by number (3), and no file is left" {
	searched --blocks 0-3 >a.vqs
	searched --blocks 5-9 >b.vqs
	searched --blocks 3-9 >c.vqs
	run -3 --separate-stderr bash -c 'cat a.vqs b.vqs | vqlm-pack -o m.vqm'
	[[ "$stderr" == "vqlm-pack: stdin: units 4 are missing"* ]]
	run -3 --separate-stderr bash -c 'cat a.vqs c.vqs | vqlm-pack -o m.vqm'
	[[ "$stderr" == "vqlm-pack: stdin: unit 3 comes twice, in segments 1 and 2"* ]]
	[ ! -e m.vqm ] && [ ! -e m.vqm.part ]
}

@test "a cut stream is refused (3) wherever it is cut; what went out is refused by readers" {
	searched >s.vqs
	size=$(stat -c %s s.vqs)
	for n in 0 10 1000 $((size / 3)) $((size / 2)) $((size - 50)) $((size - 1)); do
		run -3 --separate-stderr bash -c "head -c $n s.vqs | vqlm-pack >m.vqm"
		[[ "$stderr" == "vqlm-pack: stdin: "* ]]
		run -3 vqlm-ls m.vqm
	done
	run -3 --separate-stderr bash -c "head -c $((size / 2)) s.vqs | vqlm-pack -o o.vqm"
	[ ! -e o.vqm ] && [ ! -e o.vqm.part ]
}

@test "a program before it that is killed midway is noticed (3)" {
	searched >s.vqs
	run -3 --separate-stderr bash -c '{ head -c 2000000 s.vqs; sleep 0.2; kill -9 $BASHPID; } 2>/dev/null | vqlm-pack -o o.vqm'
	[ ! -e o.vqm ]
}

@test "a packed model with a wrong byte or a missing end is refused (3) and the member named" {
	need_program jq tar
	searched | vqlm-pack -o m.vqm
	o=$(tar xOf m.vqm manifest.json | jq '.members[] | select(.name == "decoder.layers.1.up_proj.weight") | .offset')
	printf '\377\000\377' | dd of=m.vqm bs=1 seek=$((o + 100)) conv=notrunc status=none
	run -3 --separate-stderr vqlm-ls m.vqm
	[[ "$stderr" == "vqlm-ls: m.vqm: 'decoder.layers.1.up_proj.weight' is damaged (SHA-256 differs)" ]]
	searched | vqlm-pack -o m.vqm
	tar --delete -f m.vqm manifest.json
	run -3 --separate-stderr vqlm-ls m.vqm
	[[ "$stderr" == *"no manifest.json"* ]]
}

@test "a full disk is a failure of the system (4), another format is bad input (3)" {
	allow_libarchive_leak
	searched >s.vqs
	run -4 --separate-stderr bash -c 'vqlm-pack <s.vqs >/dev/full'
	[[ "$stderr" == "vqlm-pack: stdout: cannot write"* ]]
	run -4 --separate-stderr bash -c 'vqlm-pack <s.vqs >&-'
	run -3 --separate-stderr bash -c 'echo no stream | vqlm-pack -o m.vqm'
	run -3 --separate-stderr bash -c ': | vqlm-pack -o m.vqm'
	[[ "$stderr" == *"the input is empty"* ]]
}

@test "packed models do not go to a terminal (2)" {
	need_program script
	searched >s.vqs
	run script -qec 'vqlm-pack <s.vqs; echo "status $?"' /dev/null
	[[ "$output" == *"will not write a packed model to a terminal"*"status 2"* ]]
}

@test "inputs that are doubled ahead of weights that are halved give the same answers" {
	need_program jq tar
	searched -l 0 >s.vqs
	python3 "$ROOT/tests/e2e/stream.py" transform none <s.vqs >t.vqs
	vqlm-ls t.vqs | grep -q '^GRID *f32 *256 .* decoder.layers.1.q_proj.transform_scale$'
	for m in s t; do
		vqlm-pack -o $m.vqm <$m.vqs
		vqlm-infer -q -m $m.vqm -d "$DEMO/mini-sqa/llava_test_CQM-A.json" --limit 100 | jq -c 'select(.text) | [.question_id, .text]' >$m.txt
	done
	[ "$(wc -l <s.txt)" = 100 ]
	cmp s.txt t.txt
	vqlm-ls t.vqm | grep -q ' decoder.layers.1.q_proj.transform_scale$'
	[[ "$(tar xOf t.vqm card.md)" == *"The inputs of 61 of them go through a scale alone first"* ]]
}

@test "a transform that is wrong is refused (3) and its record named" {
	searched -l 0 >s.vqs
	while read -r fault says; do
		python3 "$ROOT/tests/e2e/stream.py" transform "$fault" <s.vqs >t.vqs
		run -3 --separate-stderr bash -c 'vqlm-pack -o t.vqm <t.vqs'
		[[ "$stderr" == "vqlm-pack: stdin: "*"decoder.layers.1.q_proj"* && "$stderr" == *"$says"* ]] || { echo "$fault: $stderr"; false; }
		[ ! -e t.vqm ]
	done <<-'END'
		nan transform_scale': element 3 is nan
		zero transform_scale': element 3 is 0
		short transform_scale': want f32 [256], got f32 [255]
		missing want GRID 'decoder.layers.1.q_proj.transform_scale', got TENSOR 'decoder.layers.1.k_proj.weight'
		kind want kind scale, hadamard or matrix, got 'zigzag'
		block want a block of 2..256 that divides 256 inputs, got 96
		from its transform is that of 'nobody', which has none ahead of it
	END
}
