#!/usr/bin/env bats
# Questions and pictures that cannot be: status 3 and one line that names the question and the file.
load common

# The bytes of a row of hexadecimal digits.
bytes() {
	printf '%b' "$(sed 's/../\\x&/g' <<<"$1")"
}

# chunk TYPE HEX: a PNG chunk with its CRC, which gzip knows too.
chunk() {
	local name
	name=$(printf '%s' "$1" | od -An -tx1 | tr -d ' \n')
	bytes "$(printf '%08x' $((${#2} / 2)))$name$2"
	bytes "$(bytes "$name$2" | gzip -c | tail -c 8 | od -An -tx1 -N 4 | awk '{ print $4 $3 $2 $1 }')"
}

# png WIDTH HEIGHT: a picture of that size as its header says; of pixels it has none.
png() {
	bytes 89504e470d0a1a0a
	chunk IHDR "$(printf '%08x%08x0802000000' "$1" "$2")"
	chunk IDAT 789c030000000001
	chunk IEND ''
}

# ask IMAGE: a data file with one question about it.
ask() {
	jq -cn --arg image "$1" '[{id: "q7", image: $image, conversations: [{from: "human", value: "<image>\nWhat?\nA. x\nB. y"},
		{from: "gpt", value: "A"}]}]' >d.json
}

checkpoint() {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" tiny m >/dev/null
}

# refused FILE WORD...: a question about the file, in vqlm-infer both ways and in vqlm-calib.
refused() {
	local file=$1 w
	shift
	ask "$file"
	for w in "vqlm-infer -m m -d d.json" "vqlm-infer -m m -i $file What" "vqlm-calib -m m -n 1 -d d.json"; do
		run -3 --separate-stderr bash -c "$w >out"
		echo "$w: $stderr"
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ "$stderr" == "${w%% *}: "*"$file: "* ]]
		[[ "$w" != *d.json || "$stderr" == *"'q7'"* ]]
		check "$@"
	done
}

check() {
	local w
	for w in "$@"; do
		[[ "$stderr" == *"$w"* ]] || { echo "'$w' is not in it"; return 1; }
	done
}

@test "a picture that is gigantic, without pixels, cut, empty or none is refused by name (3)" {
	checkpoint
	png 2147483647 2147483647 >huge.png
	refused huge.png 65500 '2147483647 x 2147483647'
	png 60000 60000 >large.png
	refused large.png '60000 x 60000'
	png 0 16 >zero.png
	refused zero.png 'no pixels'
	png 16 0 >flat.png
	refused flat.png 'no pixels'
	png 16 16 >hollow.png
	refused hollow.png 'bad PNG'
	png 20000 8000 >bomb.png # within the limits, but not in so few bytes
	refused bomb.png 'cut short'
	head -c 100 "$DEMO/mini-sqa/images/test/6/image.png" >cut.png
	refused cut.png 'cut short'
	: >empty.png
	refused empty.png 'empty file'
	echo 'no picture' >text.png
	refused text.png 'PNG or JPEG'
}

@test "a picture that the command line names and that is absent is a failure (4), one that data name bad input (3)" {
	checkpoint
	run -4 --separate-stderr vqlm-infer -m m -i absent.png What
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-infer: absent.png: "*"No such file or directory" ]]
	ask absent.png
	run -3 --separate-stderr vqlm-infer -m m -d d.json
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-infer: question 'q7': "*"absent.png: No such file or directory" ]]
	run -3 --separate-stderr bash -c 'vqlm-calib -m m -n 1 -d d.json >out'
	[[ "$stderr" == *"'q7'"*"absent.png: "*"No such file or directory" ]]
}

@test "a question that speaks of a picture and has none is refused (3), and a picture elsewhere is found with --images" {
	checkpoint
	jq -cn '[{id: "q7", conversations: [{from: "human", value: "<image>\nWhat?"}]}]' >d.json
	for w in "vqlm-infer -m m -d d.json" "vqlm-calib -m m -n 1 -d d.json"; do
		run -3 --separate-stderr bash -c "$w >out"
		[[ "$stderr" == "${w%% *}: "*"'q7'"*"'<image>' but no picture" ]]
		[ "${#stderr_lines[@]}" -eq 1 ]
	done
	ask image.png
	run -3 vqlm-infer -q -m m -d d.json
	run -0 --separate-stderr vqlm-infer -m m -d d.json --images "$DEMO/mini-sqa/images/test/6" -o a.jsonl
	[ "$(jq -c 'select(.question_id) | .question_id' a.jsonl)" = '"q7"' ]
	vqlm-calib -q -m m -n 1 -d d.json --images "$DEMO/mini-sqa/images/test/6" -o c.vqs
	[ "$(vqlm-ls c.vqs | grep -c input/0/pixels)" -eq 1 ]
}

@test "data that hold no questions are refused (3) and the place is named" {
	checkpoint
	local text
	for text in '' '[' '[1]' '[{"id":"a"}]' '[{"conversations":[{"from":"human","value":"x"}]}]' '{"question_id":1,"text":5}' \
		'[{"id":"a","conversations":[{"from":"gpt","value":"x"}]}]' 'words'; do
		printf '%s' "$text" >d.json
		for w in "vqlm-infer -m m -d d.json" "vqlm-calib -m m -n 1 -d d.json"; do
			run -3 --separate-stderr bash -c "$w >out"
			[ "${#stderr_lines[@]}" -eq 1 ]
			[[ "$stderr" == "${w%% *}: d.json: "* ]]
		done
	done
}
