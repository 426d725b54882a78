#!/bin/bash
# A file in lib/ may include its own folder and those to the left of it:
# base, stream, format, kernel, quant, model, task.  Nothing in lib/ includes bin/.
set -euo pipefail

order="base stream format kernel quant model task"
bad=0
rank() {
	local i=0 f
	for f in $order; do
		[ "$f" = "$1" ] && { echo $i; return; }
		i=$((i + 1))
	done
	echo 99
}

while IFS=: read -r file _ text; do
	from=${file#lib/}; from=${from%%/*}
	to=$(sed -n 's/.*"\([a-z]*\)\/.*/\1/p' <<<"$text")
	[ -n "$to" ] || { echo "lint: $file: $text names no folder"; bad=1; continue; }
	if [ "$(rank "$to")" -gt "$(rank "$from")" ]; then
		echo "lint: $file may not include $to/"
		bad=1
	fi
done < <(grep -nE '^#include "' -r lib --include='*.[ch]')
exit $bad
