#!/usr/bin/env bats
# The examples of the man pages run as they are printed.  Names of big checkpoints in them stand for the small
# model here; every example of a page runs in one folder, in order.
load common

# Prints the examples of a page as one shell script.
examples() {
	awk '/^\.Sh / { on = $2 == "EXAMPLES" }
		on && /^\.Bd -literal/ { inside = 1; next }
		on && /^\.Ed/ { inside = 0; print ""; next }
		on && inside { print }
		on && /^\.Dl / { print substr($0, 5) }' "$1" \
		| sed 's/\\e/\\/g; s/\\(dq/"/g; s/\\(aq/'"'"'/g; s/\\(ha/^/g; s/\\(ti/~/g; s/\\&//g; s/\\-/-/g'
}

# What the examples may name.
furnish() {
	local m
	ln -s "$ROOT/pipelines" pipelines
	for m in llava-1.5-7b llava-7b; do
		ln -s "$DEMO/mini-llava" "$m"
	done
	ln -s "$DEMO/mini-sqa/images" images
	ln -s "$DEMO/mini-sqa/problems.json" problems.json
	ln -s "$DEMO/mini-sqa/pid_splits.json" pid_splits.json
	cp "$DEMO/mini-sqa/images/test/3/image.png" cat.png
	ln -s "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" train.json
	ln -s "$DEMO/mini-sqa/llava_val_CQM-A.json" val.json
	jq -c '.[:24]' "$DEMO/mini-sqa/llava_test_CQM-A.json" >test.json
	cp test.json llava_test_CQM-A.json
	sed 's/<image>/picture/g' "$DEMO/README.md" >wiki.test.raw
	echo '{"goal":"Boil water.","sol1":"Heat it.","sol2":"Cool it.","label":0}' >piqa-validation.jsonl
	export SLURM_ARRAY_TASK_ID=3
}

# Few samples and few rows: the pages show how, not how long.
shorten() {
	sed -i 's/-d train.json/-n 8 &/; s/vqlm-search /&--rows 256 /; s/vqlm-search --rows 256 --method rtn/vqlm-search --method rtn/' "$1"
}

run_page() {
	furnish
	examples "$ROOT/man/$1" >script
	[ -s script ]
	shorten script
	"${2:-true}"
	run -0 bash -euo pipefail script
}

@test "the way in: vqlm(7)" {
	run_page vqlm.7
	[[ "$output" == *"decoder.head.weight"* ]]
}

@test "vqlm-calib(1)" {
	run_page vqlm-calib.1
	[ -s llava-w4a4.vqm ]
}

@test "vqlm-prune(1)" {
	# The page's 7B model has blocks to spare beside those that stay.
	before() { sed -i 's/-n 6 /-n 1 --no-keep /; s/--heal lora/& --lora-steps 2 --heal-samples 8/' script; }
	run_page vqlm-prune.1 before
	[ -s llava-5.5b-w4a4.vqm ]
}

@test "vqlm-entropy(1)" {
	before() { vqlm-calib -q -n 8 -m llava-7b -d train.json -o calib.vqs; }
	run_page vqlm-entropy.1 before
	[[ "$output" == "unit	"* ]]
}

@test "vqlm-search(1)" {
	# The page speaks of a 7B model, 56 units with a checkpoint at 40, and of a run that was interrupted.
	before() {
		sed -i 's/checkpoint 40/checkpoint 5/; s/blocks 0-39/blocks 0-4/; s/blocks 40-55/blocks 5-9/' script
		sed -i '/--resume/i head -c 1000000 w4a4.vqs >w4a4.vqs.part; rm w4a4.vqs' script
	}
	run_page vqlm-search.1 before
	vqlm-ls -c w4a4.vqs
	[ -s llava.vqm ]
}

@test "vqlm-pack(1)" {
	before() {
		vqlm-calib -q -n 8 -m llava-7b -d train.json | vqlm-entropy -q >plan.vqs
		vqlm-search -q --method rtn <plan.vqs >part-1.vqs
	}
	run_page vqlm-pack.1 before
}

@test "vqlm-infer(1)" {
	before() {
		vqlm-calib -q -n 0 -m llava-7b | vqlm-search -q --method rtn -w 4 -a 8 | vqlm-pack -q -o llava-w4a8.vqm
		cp llava-w4a8.vqm llava-w4a4.vqm
		cp llava-w4a8.vqm m.vqm
	}
	run_page vqlm-infer.1 before
}

@test "vqlm-eval(1)" {
	run_page vqlm-eval.1
	[[ "$output" == *"1974 right of 2000"* ]]
}

@test "vqlm-export(1)" {
	before() {
		vqlm-calib -q -n 0 -m llava-7b -o model.vqs
		vqlm-search -q --method rtn -w 4 -a 16 <model.vqs | vqlm-pack -q -o llava-w4.vqm
		vqlm-search -q --method rtn -w 4 -a 4 <model.vqs | vqlm-pack -q -o llava-w4a4.vqm
	}
	run_page vqlm-export.1 before
	[[ "$output" == *"matrices in awq, largest difference 0, promised 0"* ]]
}

@test "vqlm-ls(1)" {
	before() {
		vqlm-calib -q -n 0 -m llava-7b -o model.vqs
		cp model.vqs part-1.vqs
		cp model.vqs part-2.vqs
	}
	run_page vqlm-ls.1 before
}

@test "no page is without its examples" {
	local m
	for m in "$ROOT"/man/vqlm-*.1; do
		grep -q "\"$(basename "$m" .1)(1)\"" "$BATS_TEST_FILENAME" || { echo "${m##*/} is not run"; false; }
	done
}
