#!/usr/bin/env bats
# A disk that is too small for what must be unpacked: status 4, one line that says how much and where, nothing left.
load common

setup() {
	places
	mkdir small
	unshare -rm mount -t tmpfs none small 2>/dev/null || skip "no user namespaces here: cannot mount a small disk"
}

# full SIZE COMMAND: it runs with TMPDIR on a disk of that size, which is empty again when it has ended with 4.
full() {
	run --separate-stderr unshare -rm bash -c "mount -t tmpfs -o size=$1 none small && cd $T && export TMPDIR=$T/small &&
		{ $2; }; s=\$?; ls -A small >left; df --output=used small | tail -1 >used; exit \$s"
	[ "$status" -eq 4 ] || { echo "$2: status $status, $stderr"; false; }
	[ -z "$output" ]
	[[ "$stderr" == *"$T/small: no room for "*" bytes: No space left on device; TMPDIR names another folder" ]] || { echo "$stderr"; false; }
	[ "$(wc -l <<<"$stderr")" -eq 1 ]
	[ ! -s left ]
	[ "$(cat used)" -eq 0 ]
	[ -z "$(find . -name 'out*')" ]
}

@test "archives: compressed, through a pipe, and a ZIP" {
	cp -r "$DEMO/mini-llava" m
	tar c m | zstd -q >m.tar.zst
	tar cf m.tar m
	zip -qr m.zip m
	full 1m "vqlm-calib -m m.tar.zst -n 0 -o out.vqs"
	full 1m "cat m.tar | vqlm-calib -m - -n 0 -o out.vqs"
	full 1m "vqlm-calib -m m.zip -n 0 -o out.vqs"
	full 1m "vqlm-infer -m m.tar.zst -d $DEMO/mini-sqa/llava_test_CQM-A.json --limit 1 -o out.jsonl"
	# What is mapped needs no room.
	unshare -rm bash -c "mount -t tmpfs -o size=4k none small && TMPDIR=$T/small vqlm-calib -q -m m.tar -n 0 -o whole.vqs"
	vqlm-ls -c whole.vqs
}

@test "model streams: from a file and through a pipe, to vqlm-calib, vqlm-infer and vqlm-prune" {
	vqlm-calib -q -m "$DEMO/mini-llava" -n 0 -l 1 -o m.vqs
	full 1m "cat m.vqs | vqlm-calib -m - -n 0 -o out.vqs"
	full 1m "vqlm-calib -m m.vqs -n 0 -o out.vqs"
	full 1m "vqlm-infer -m m.vqs -d $DEMO/mini-sqa/llava_test_CQM-A.json --limit 1 -o out.jsonl"
	full 1m "cat m.vqs | vqlm-prune -m - --blocks 1 -o out.vqs"
	# The tool behind it knows that nothing whole came.
	run -3 --separate-stderr unshare -rm bash -c "mount -t tmpfs -o size=1m none small && cd $T && export TMPDIR=$T/small
		vqlm-prune -q -m m.vqs --blocks 1 | vqlm-calib -q -m - -n 0 -o out.vqs"
	[ ! -e out.vqs ]
}

@test "checkpoints of llama2.c, and PyTorch tensors that are not row-major" {
	need_data stories260k
	cp -r "$DATA/stories260k" s
	full 16k "vqlm-calib -m s/stories260K.bin -n 0 -o out.vqs"
	full 16k "vqlm-prune -m s/stories260K.bin --blocks 1 -o out.vqs"
	/usr/bin/python3 -c 'import torch' 2>/dev/null || skip "python3-torch is not installed"
	/usr/bin/python3 "$ROOT/tests/e2e/layout.py" "$DEMO/mini-llava" m --weights torch
	/usr/bin/python3 - <<-'E'
		import torch
		s = torch.load('m/pytorch_model.bin')
		for k in s:
		    if s[k].dim() == 2:
		        s[k] = s[k].t().contiguous().t()
		torch.save(s, 'm/pytorch_model.bin')
	E
	full 1m "vqlm-calib -m m -n 0 -o out.vqs"
}
