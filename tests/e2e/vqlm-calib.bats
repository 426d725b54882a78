#!/usr/bin/env bats
# vqlm-calib: what is in the stream, and what it refuses.
load common

calib() {
	vqlm-calib -t 1 -m "$DEMO/mini-llava" -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" "$@"
}

# A copy of the demo model whose files may be changed.
copy_model() {
	mkdir bad
	cp "$DEMO"/mini-llava/* bad/
	chmod u+w bad/*
}

# Byte offset of a tensor's data in bad/model.safetensors.
data_offset() {
	local n
	n=$(od -An -tu8 -N8 bad/model.safetensors | tr -d ' ')
	echo $((8 + n + $(tail -c +9 bad/model.safetensors | head -c "$n" | jq ".[\"$1\"].data_offsets[0]")))
}

@test "weights alone: every tensor in order of execution, nothing measured" {
	run -0 --separate-stderr bash -c "vqlm-calib -m $DEMO/mini-llava -n 0 | tee w.vqs | vqlm-ls -"
	[ -z "$stderr" ]
	! grep -qE '^(INPUT|STAT|PLAN)' <<<"$output"
	grep -E '^TENSOR' <<<"$output" | awk '{print $NF, $0}' | grep -oE '(vision|projector|decoder)\.[a-z0-9_.]+' >names
	[ "$(head -1 names)" = vision.class_embed ]
	[ "$(tail -1 names)" = decoder.head.weight ]
	[ "$(sort names | uniq -d | wc -l)" -eq 0 ]
	grep -qx projector.0.weight names
	zstd -qt w.vqs
}

@test "samples travel as inputs, statistics before the first weight" {
	run -0 --separate-stderr bash -c "$(declare -f calib); DEMO=$DEMO calib -n 6 | vqlm-ls -"
	[ "$(grep -cE '^INPUT .*tokens' <<<"$output")" -eq 6 ]
	for r in joint/raw/4 joint/raw/6 joint/raw/8 joint/hadamard/4 joint/hadamard/6 joint/hadamard/8 influence \
		vision_weight; do
		grep -qE "^STAT .*stat/$r( |$)" <<<"$output"
	done
	[ "$(grep -cE '^STAT .*stat/sketch/' <<<"$output")" -eq 1 ]
	[ "$(grep -cE '^STAT .*stat/entropy_sketch/.*"bits":4' <<<"$output")" -eq 1 ]
	awk '$1 == "TENSOR" {seen = 1} $1 != "TENSOR" && seen {exit 1}' <<<"$output"
}

@test "the same bytes for 1 to 4 threads, and for another run" {
	for t in 1 2 3 4 1; do
		calib -n 4 -t $t --error-stats --checkpoint 2,5 | sha256sum
	done >sums
	[ "$(sort -u sums | wc -l)" -eq 1 ]
}

@test "another seed chooses other samples" {
	calib -n 4 -S 1 --influence-samples 0 | vqlm-ls - | grep INPUT >one
	calib -n 4 -S 2 --influence-samples 0 | vqlm-ls - | grep INPUT >two
	! cmp -s one two
}

@test "checkpoints are hidden states of every row at their unit" {
	run -0 --separate-stderr bash -c "$(declare -f calib); DEMO=$DEMO calib -n 4 --bits 4 --influence-samples 0 --checkpoint 2,4,5,8 | vqlm-ls -"
	tokens=$(grep -E '^INPUT .*tokens' <<<"$output" | awk '{s += $3} END {print s}')
	images=$(grep -cE '^INPUT .*pixels' <<<"$output")
	grep -qE "^INPUT +f32 +$((images * 50))x128 .*input/checkpoint/2" <<<"$output"
	grep -qE "^INPUT +f32 +$((images * 49))x128 .*input/checkpoint/4" <<<"$output"
	grep -qE "^INPUT +f32 +${tokens}x256 .*input/checkpoint/5" <<<"$output"
	grep -qE "^INPUT +f32 +${tokens}x256 .*input/checkpoint/8" <<<"$output"
}

@test "a NaN in a weight is refused (3) and the tensor is named" {
	copy_model
	at=$(data_offset language_model.model.layers.2.mlp.up_proj.weight)
	printf '\x00\x7e' | dd of=bad/model.safetensors bs=1 seek=$((at + 20)) conv=notrunc status=none
	run -3 --separate-stderr bash -c 'vqlm-calib -m bad -n 0 > out.vqs'
	[[ "$stderr" == "vqlm-calib: "*"decoder.layers.2.up_proj.weight"* ]]
	run -3 vqlm-ls -c out.vqs
	run -3 --separate-stderr vqlm-calib -m bad -n 0 -o x.vqs
	[ ! -e x.vqs ]
}

@test "an infinity anywhere is refused (3) by name before anything is measured with it" {
	for t in model.norm.weight:decoder.norm.weight model.layers.4.mlp.down_proj.weight:decoder.layers.4.down_proj.weight \
		model.embed_tokens.weight:decoder.embed.weight; do
		rm -rf bad
		copy_model
		at=$(data_offset "language_model.${t%:*}")
		printf '\x00\x7c' | dd of=bad/model.safetensors bs=1 seek="$at" conv=notrunc status=none
		run -3 --separate-stderr bash -c "vqlm-calib -t 1 -m bad -d $DEMO/mini-sqa/llava_train_calib_CQM-A.json -n 2 >out.vqs"
		[[ "$stderr" == "vqlm-calib: "*"${t#*:}"* ]]
		! vqlm-ls out.vqs 2>/dev/null | grep -q '^STAT'
	done
}

@test "a model whose samples have no picture gets decoder statistics only" {
	jq '[.[] | select(has("image") | not)][:8]' "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >text.json
	vqlm-calib -t 1 -m "$DEMO/mini-llava" -d text.json -n 8 >t.vqs
	! vqlm-ls t.vqs | grep -qE 'pixels|sketch'
	vqlm-entropy --table <t.vqs >table
	[ "$(awk -F'\t' '$3 == "NA" {print $1}' table | tr '\n' ' ')" = "0 1 2 3 4 9 " ]
	[ "$(awk -F'\t' 'NR > 1 && $5 == 0 {print $1}' table | tr '\n' ' ')" = "0 1 2 3 4 " ]
}

@test "more samples than the data have are refused (3), both numbers said" {
	run -3 --separate-stderr bash -c "$(declare -f calib); DEMO=$DEMO calib -n 257 | cat; exit \${PIPESTATUS[0]}"
	[ -z "$output" ]
	[[ "$stderr" == *"257"*"256"* ]]
}

@test "data that are absent are a failure of the system (4), pictures that are absent bad input (3)" {
	run -4 --separate-stderr bash -c "vqlm-calib -m $DEMO/mini-llava -d nope.json | cat; exit \${PIPESTATUS[0]}"
	[[ "$stderr" == *"nope.json"* ]]
	mkdir empty
	run -3 --separate-stderr bash -c "$(declare -f calib); DEMO=$DEMO calib -n 256 --images empty | cat; exit \${PIPESTATUS[0]}"
	[[ "$stderr" == *"sample '"*"empty"* ]]
}

@test "lists of bits and checkpoints are checked (2)" {
	for opt in "--bits 4,4" "--bits 1,4" "--bits 9" "--bits 4," "--bits x" "--checkpoint 0" "--checkpoint 10" "--checkpoint 5,2"; do
		run -2 --separate-stderr bash -c "$(declare -f calib); DEMO=$DEMO calib -n 2 $opt | cat; exit \${PIPESTATUS[0]}"
		[[ "$stderr" == "vqlm-calib: ${opt%% *} wants"* ]]
	done
	run -2 --separate-stderr vqlm-calib -n 0
	[[ "$stderr" == *"-m MODEL"* ]]
	run -2 --separate-stderr vqlm-calib -m "$DEMO/mini-llava"
	[[ "$stderr" == *"-d DATA"* ]]
}

@test "a full disk and a closed output are failures of the system (4)" {
	run -4 --separate-stderr bash -c "vqlm-calib -m $DEMO/mini-llava -n 0 > /dev/full"
	[[ "$stderr" == "vqlm-calib: stdout: "* ]]
	run -4 --separate-stderr bash -c "vqlm-calib -m $DEMO/mini-llava -n 0 >&-"
	[[ "$stderr" == "vqlm-calib: stdout: "* ]]
}

# Largest RssAnon of a process while it runs, in KiB.
watch_anon() {
	local most=0 now
	while kill -0 "$1" 2>/dev/null; do
		now=$(awk '/^RssAnon/ {print $2}' "/proc/$1/status" 2>/dev/null || true)
		if [ "${now:-0}" -gt "$most" ]; then most=$now; fi
		sleep 0.01
	done
	echo "$most"
}

@test "a dry run foretells the memory within a factor of two" {
	[ -z "${VQLM_SANITIZED:-}" ] || skip "a sanitizer takes memory of its own"
	for opts in "-n 16" "-n 64" "-n 64 --influence-samples 0"; do
		# shellcheck disable=SC2086 # options are words
		said=$(calib $opts --dry-run | awk '/^memory/ {printf "%d", $2 * 1024}')
		# shellcheck disable=SC2086
		vqlm-calib -t 1 -m "$DEMO/mini-llava" -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" $opts >/dev/null &
		got=$(watch_anon $!)
		figure "vqlm-calib $opts: $((said / 1024)) MiB foretold, $((got / 1024)) MiB measured"
		[ "$got" -le "$said" ]
		[ "$said" -le $((2 * got)) ]
	done
}

@test "a dry run writes no stream and says memory, disk and time" {
	run -0 --separate-stderr bash -c "vqlm-calib -m $DEMO/mini-llava -n 0 --dry-run -o x.vqs"
	[[ "$output" == *memory*MiB*disk*MiB*time*s*"free disk"* ]]
	[ ! -e x.vqs ] && [ ! -e x.vqs.part ]
}
