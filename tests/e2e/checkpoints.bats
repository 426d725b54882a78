#!/usr/bin/env bats
# The ways in which a checkpoint may be kept: PyTorch files, shards, archives.  Every weight is the safetensors file's.
load common

PY=/usr/bin/python3

layout() {
	need_program "$PY"
	"$PY" "$ROOT/tests/e2e/layout.py" "$DEMO/mini-llava" "$@"
}

need_torch() {
	"$PY" -c 'import torch' 2>/dev/null || skip "python3-torch is not installed"
}

# The stream of a model: names and types, then every byte of its tensors.
weights() {
	vqlm-calib -q -n 0 -m "$1" >"$T/w.vqs"
	vqlm-ls "$T/w.vqs" | awk '{print $1, $2, $3, $6}'
	vqlm-ls --cat '*.*' "$T/w.vqs" | sha256sum
}

# same MODEL...: each has the weights of the demo's checkpoint.
same() {
	local m
	weights "$DEMO/mini-llava" >want
	for m in "$@"; do
		weights "$m" | cmp want -
	done
}

# refused MODEL TEXT: status 3, nothing on standard output, the text in the message.
refused() {
	run -3 --separate-stderr vqlm-calib -m "$1" -n 0
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-calib: $1"*"$2"* ]] || { echo "$stderr"; false; }
}

answers() {
	vqlm-infer -q -t 1 -m "$1" -d "$DEMO/mini-sqa/llava_test_CQM-A.json" --limit 6 "${@:2}" | jq -c '.tokens // empty'
}

@test "a PyTorch file has the weights of its safetensors twin, bit for bit" {
	layout single
	layout shards --shards 3
	same single shards
}

@test "so has what torch.save writes" {
	need_torch
	layout single --weights torch
	layout shards --weights torch --shards 2
	same single shards single/pytorch_model.bin
}

@test "a single .pt file stands for its folder" {
	layout m
	mv m/pytorch_model.bin m/model.pt
	refused m "want model.safetensors or model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json"
	same m/model.pt
	cd m
	same model.pt
}

@test "weights in a .bin are copied to memory with --load" {
	layout m --shards 2
	answers "$DEMO/mini-llava" >want
	[ "$(wc -l <want)" -eq 6 ]
	answers m --load | cmp want -
	answers m --map | cmp want -
}

@test "views, tied and transposed tensors of torch.save are what PyTorch says they are" {
	need_torch
	layout m --weights torch
	"$PY" - <<-'E'
		import torch
		s = torch.load('m/pytorch_model.bin')
		k = 'language_model.model.layers.1.self_attn.%s_proj.weight'
		both = torch.cat([s[k % 'k'], s[k % 'v']])
		n = s[k % 'k'].shape[0]
		s[k % 'k'], s[k % 'v'] = both[:n], both[n:]
		s[k % 'q'] = s[k % 'q'].t().contiguous().t()
		s[k % 'o'] = torch.nn.Parameter(s[k % 'o'], requires_grad=False)
		torch.save(s, 'm/pytorch_model.bin')
	E
	same m
	run -0 --separate-stderr vqlm-calib -v -m m -n 0 -o m.vqs
	[[ "$stderr" == *"tensor 'language_model.model.layers.1.self_attn.q_proj.weight' is not row-major and is copied"* ]]
}

@test "the format from before PyTorch 1.6 is refused with the remedy" {
	need_torch
	layout m --weights old
	refused m "PyTorch's format from before 1.6; save it again: python3 -c"
}

@test "a pickle that would run something is refused by name, and runs nothing" {
	layout m
	"$PY" - <<-'E'
		import os, pickle, zipfile
		class Bad:
		    def __reduce__(self): return os.system, ('touch ran',)
		with zipfile.ZipFile('m/pytorch_model.bin', 'w') as z:
		    z.writestr('x/data.pkl', pickle.dumps({'a': Bad()}, 2))
	E
	refused m "pickle, offset 13: the global 'posix system' is refused (nothing was executed)"
	[ ! -e ran ]
}

@test "cut and damaged PyTorch files are refused" {
	layout m
	truncate -s -100 m/pytorch_model.bin
	refused m "cut or damaged archive"
	printf 'PK\003\004' >m/pytorch_model.bin
	refused m "cut or damaged archive"
	layout z
	(cd z && mkdir x && cd x && unzip -q ../pytorch_model.bin && zip -qr ../new . && mv ../new.zip ../pytorch_model.bin)
	refused z "is compressed, which torch.save never does"
	layout s --shards 2
	jq '.weight_map |= with_entries(.value = "../x.bin")' s/pytorch_model.bin.index.json >i && mv i s/pytorch_model.bin.index.json
	refused s "want the name of a file beside the index"
}

@test "a file of a big-endian machine is refused with the remedy" {
	layout m
	"$PY" - <<-'E'
		import zipfile
		with zipfile.ZipFile('m/pytorch_model.bin', 'a') as z:
		    z.writestr('pytorch_model/byteorder', 'big')
	E
	refused m "pytorch_model.bin: 'pytorch_model/byteorder': want byte order 'little'; save the model again on a little-endian machine"
	layout n
	"$PY" -c "import zipfile; zipfile.ZipFile('n/pytorch_model.bin', 'a').writestr('pytorch_model/byteorder', 'little')"
	same n
}

@test "a ZIP's checksums: looked at where its files are unpacked; where they are mapped, by vqlm-ls --check" {
	layout m --shards 2
	zip -q0r stored.zip m
	zip -qr packed.zip m
	run -0 vqlm-ls -c stored.zip packed.zip m/pytorch_model-00001-of-00002.bin
	[[ "${lines[0]}" == "stored.zip: ZIP ok: 12 files, "*" bytes" ]]
	[[ "${lines[1]}" == "packed.zip: ZIP ok: 12 files, "*" bytes" ]]
	[[ "${lines[2]}" == "m/pytorch_model-00001-of-00002.bin: ZIP ok: "* ]]
	run -0 vqlm-ls stored.zip
	[ "$(awk '$3 == "m/tokenizer.model" {print $1}' <<<"$output")" -eq "$(stat -c %s m/tokenizer.model)" ]
	[ "$(vqlm-ls --json packed.zip | jq -c 'select(.name == "m/config.json") | .offset')" = null ]
	# The middle of the file is numbers of a weight; one of them changes.
	printf X | dd of=stored.zip bs=1 seek=3000001 conv=notrunc status=none
	vqlm-calib -q -n 0 -m stored.zip -o x.vqs
	run -3 --separate-stderr vqlm-ls -c stored.zip
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-ls: stored.zip: cut or damaged archive, in 'm/pytorch_model-00001-of-00002.bin': "*CRC* ]]
	"$PY" - <<-'E'
		import struct, zipfile
		i = zipfile.ZipFile('packed.zip').getinfo('m/pytorch_model-00002-of-00002.bin')
		data = open('packed.zip', 'rb').read()
		assert data.count(struct.pack('<I', i.CRC)) == 2
		open('packed.zip', 'wb').write(data.replace(struct.pack('<I', i.CRC), struct.pack('<I', i.CRC ^ 1)))
	E
	refused packed.zip "cut or damaged archive, in 'm/pytorch_model-00002-of-00002.bin': ZIP bad CRC"
	run -3 --separate-stderr vqlm-ls packed.zip --cat config
	[[ "$stderr" == *"got a ZIP; unzip -p reads its members" ]]
	run -3 --separate-stderr bash -c 'cat packed.zip | vqlm-ls'
	[[ "$stderr" == "vqlm-ls: stdin: want a ZIP as a plain file, not through a pipe" ]]
}

@test "archives of a folder are models: mapped, or unpacked where they are compressed" {
	layout m --shards 2
	tar cf a.tar m
	tar cf flat.tar -C m .
	tar c m | zstd -q >a.tar.zst
	tar czf a.tar.gz m
	zip -q0r stored.zip m
	zip -qr packed.zip m
	same a.tar flat.tar a.tar.zst a.tar.gz stored.zip packed.zip
	weights - <a.tar.zst | cmp want -
	answers m >letters
	answers a.tar.zst --load | cmp letters -
	answers a.tar --load | cmp letters -
	answers stored.zip | cmp letters -
	# No file is left behind.
	TMPDIR=$T/tmp && mkdir tmp && TMPDIR=$T/tmp vqlm-calib -q -n 0 -m a.tar.zst -o x.vqs
	[ -z "$(ls tmp)" ]
}

@test "archives that lead outside, hold no model or several, or are cut are refused" {
	layout m
	tar cPf out.tar --transform 's,^m/config,../config,' m
	refused out.tar "'../config.json': want a path that stays inside the archive"
	tar cPf abs.tar "$PWD/m"
	refused abs.tar "want a path that stays inside the archive"
	zip -q0r out.zip m
	"$PY" -c "import zipfile; zipfile.ZipFile('out.zip', 'a').writestr('m/../../x.bin', 'x')"
	refused out.zip "'m/../../x.bin': want a path that stays inside the archive"
	layout back
	"$PY" -c "import zipfile; zipfile.ZipFile('back/pytorch_model.bin', 'a').writestr('..\\\\x', 'x')"
	refused back "want a path that stays inside the archive"
	tar cf none.tar m/tokenizer.model
	refused none.tar "no config.json in the archive"
	cp -r m n
	tar cf two.tar m n
	refused two.tar "want one model, got 'm/config.json' and 'n/config.json'"
	ln -s config.json m/link
	tar cf link.tar m
	refused link.tar "'m/link': want plain files"
	rm m/link
	tar cf a.tar m
	head -c 100000 a.tar >cut.tar
	refused cut.tar "cut"
	zstd -q a.tar
	head -c 100000 a.tar.zst >cut.tar.zst
	refused cut.tar.zst "cut or damaged archive"
}
