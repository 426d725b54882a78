#!/usr/bin/env bats
# pipelines/cluster by GNU parallel over ssh: two daemons on the loopback, each with a folder of its own for a home, one of
# which is killed at work.
load common

setup_file() {
	local h
	load common
	S=$BATS_FILE_TMPDIR/ssh
	export S
	mkdir -p "$S"
	ssh-keygen -q -t ed25519 -N '' -f "$S/key"
	ssh-keygen -q -t ed25519 -N '' -f "$S/host"
	mkdir -p /run/sshd 2>/dev/null || true
	for h in w1 w2; do start_host "$h" "$(free_port $((24200 + ${h#w} * 50)))"; done
	one_machine "$BATS_FILE_TMPDIR/one"
}

teardown_file() {
	load common
	S=$BATS_FILE_TMPDIR/ssh
	kill_host w1
	kill_host w2
}

start_host() {
	mkdir -p "$S/$1"
	cat >"$S/$1.login" <<-C
		#!/bin/bash
		export HOME=$S/$1
		cd
		exec bash -c "\$SSH_ORIGINAL_COMMAND"
	C
	chmod +x "$S/$1.login"
	/usr/sbin/sshd -f /dev/null -h "$S/host" -p "$2" -o ListenAddress=127.0.0.1 -o AuthorizedKeysFile="$S/key.pub" \
		-o StrictModes=no -o UsePAM=no -o PermitRootLogin=yes -o PidFile="$S/$1.pid" -o ForceCommand="$S/$1.login" \
		-E "$S/$1.log"
	cat >>"$S/config" <<-C
		Host $1
		  HostName 127.0.0.1
		  Port $2
		  IdentityFile $S/key
		  IdentitiesOnly yes
		  UserKnownHostsFile /dev/null
		  StrictHostKeyChecking no
		  LogLevel ERROR
	C
	echo "1/$1" >>"$S/hosts"
	wait_for 10 test -e "$S/$1.pid"
}

# The daemon, its sessions and all that they run.
kill_host() {
	# shellcheck disable=SC2046 # words on purpose
	[ ! -e "$S/$1.pid" ] || kill -9 $(tree "$(cat "$S/$1.pid")") 2>/dev/null || true
	rm -f "$S/$1.pid"
}

at_work() { [ -n "$(find "$S/w2" -name "$1" -size +0)" ]; }

@test "a host is killed, its steps run on the other, and model and answers are those of one machine" {
	local run start=$SECONDS
	export PARALLEL_SSH="ssh -F $S/config" RSYNC_RSH="ssh -F $S/config"
	"$CLUSTER/over-ssh.sh" "$S/hosts" OUT="$T/both" "${VARS[@]}"
	figure "over ssh on both hosts: $((SECONDS - start)) s"
	same_as_one_machine "$T/both" "$BATS_FILE_TMPDIR/one"
	start=$SECONDS
	"$CLUSTER/over-ssh.sh" "$S/hosts" OUT="$T/out" "${VARS[@]}" 3>&- &
	run=$!
	wait_for 120 at_work 'piece-*.part'
	kill_host w2
	wait "$run"
	same_as_one_machine "$T/out" "$BATS_FILE_TMPDIR/one"
	grep -c . "$T/out/piece.joblog"
	figure "over ssh, a host killed: $((SECONDS - start)) s"
}
