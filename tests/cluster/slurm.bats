#!/usr/bin/env bats
# pipelines/cluster under Slurm: two nodes on this machine, one of which is killed at work.  Everything is private: sockets,
# key and state in the test's folder, ports on the loopback.
load common

setup_file() {
	local p h n
	load common
	S=$BATS_FILE_TMPDIR/slurm h=$(hostname -s) p=$(free_port 26817)
	export S SLURM_CONF=$S/slurm.conf
	mkdir -p "$S"/{state,log,run} "$S"/{spool,tmp}/{n1,n2}
	head -c 1024 /dev/urandom >"$S/munge.key" && chmod 400 "$S/munge.key" && chmod 711 "$S" "$S/run"
	munged --force --socket="$S/run/munge.socket" --key-file="$S/munge.key" --pid-file="$S/run/munge.pid" \
		--log-file="$S/log/munged.log" --seed-file="$S/munge.seed"
	cat >"$SLURM_CONF" <<-C
		ClusterName=vqlm
		SlurmctldHost=$h(127.0.0.1)
		SlurmctldPort=$p
		SlurmUser=$(id -un)
		SlurmdUser=$(id -un)
		AuthType=auth/munge
		AuthInfo=socket=$S/run/munge.socket,cred_expire=5
		CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
		SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		JobAcctGatherType=jobacct_gather/none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU_Memory
		ReturnToService=2
		SlurmdTimeout=6
		TmpFS=$S/tmp/%n
		StateSaveLocation=$S/state
		SlurmdSpoolDir=$S/spool/%n
		SlurmctldPidFile=$S/run/slurmctld.pid
		SlurmdPidFile=$S/run/slurmd.%n.pid
		SlurmctldLogFile=$S/log/slurmctld.log
		SlurmdLogFile=$S/log/slurmd.%n.log
		NodeName=n1 NodeHostname=$h NodeAddr=127.0.0.1 Port=$((p + 1)) CPUs=1 RealMemory=4000 State=UNKNOWN
		NodeName=n2 NodeHostname=$h NodeAddr=127.0.0.1 Port=$((p + 2)) CPUs=1 RealMemory=4000 State=UNKNOWN
		PartitionName=batch Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
	C
	slurmctld -f "$SLURM_CONF"
	for n in n1 n2; do start_node "$n"; done
	wait_for 30 idle 2
	one_machine "$BATS_FILE_TMPDIR/one"
}

ended() { ! kill -0 "$1" 2>/dev/null; }

teardown_file() {
	local f p
	load common
	S=$BATS_FILE_TMPDIR/slurm
	scancel -u "$(id -un)" 2>/dev/null || true
	kill_node n1
	kill_node n2
	for f in slurmctld munge; do
		[ -e "$S/run/$f.pid" ] || continue
		p=$(cat "$S/run/$f.pid")
		kill "$p" && wait_for 60 ended "$p" || kill -9 "$p"
	done
}

start_node() { slurmd -f "$SLURM_CONF" -N "$1"; }
idle() { [ "$(sinfo -h -t idle -o %D | awk '{ n += $1 } END { print n + 0 }')" -ge "$1" ]; }

# The processes of jobs on a node: they carry its name, and the configuration of this test.
jobs_of() {
	local e
	for e in $(grep -lszxF "SLURMD_NODENAME=$1" /proc/[0-9]*/environ); do
		! grep -qszxF "SLURM_CONF=$S/slurm.conf" "$e" || basename "${e%/environ}"
	done
}

# As if its plug were pulled: the daemon first, so that it tells nobody, then the keepers of its steps and the steps.
kill_node() {
	local steps
	[ ! -e "$S/run/slurmd.$1.pid" ] || kill -9 "$(cat "$S/run/slurmd.$1.pid")" 2>/dev/null || true
	steps=$(jobs_of "$1")
	[ -n "$steps" ] || return 0
	# shellcheck disable=SC2086,SC2046 # words on purpose
	kill -9 $(ps -o ppid=,pid= -p "$(echo $steps | tr ' ' ,)" | while read -r pp p; do
		[ "$(ps -o comm= -p "$pp")" != slurmstepd ] || echo "$pp"; echo "$p"; done | sort -u) 2>/dev/null || true
}

restart_node() {
	rm -f "$S/run/slurmd.$1.pid"
	start_node "$1"
	wait_for 60 idle 2
}

# The longest piece is searched on a node, VICTIM, and has written something.
at_work() {
	local n p
	[ -s "$1/piece-4.vqs.part" ] || return 1
	for n in n1 n2; do
		for p in $(jobs_of "$n"); do
			if [[ "$(tr '\0' ' ' 2>/dev/null <"/proc/$p/cmdline")" == *vqlm-search\ --blocks\ 7-* ]]; then
				VICTIM=$n
				return 0
			fi
		done
	done
	return 1
}

@test "arrays: a node is killed, its task goes on elsewhere, and the last job has the score of one machine" {
	local start=$SECONDS
	PIECE='--mem=500M' ANSWERS='--mem=500M' SMALL='--mem=500M' "$CLUSTER/array.sh" OUT="$T/out" "${VARS[@]}"
	wait_for 120 at_work "$T/out"
	kill_node "$VICTIM"
	wait_for 300 test -e "$T/out/score.json"
	same_as_one_machine "$T/out" "$BATS_FILE_TMPDIR/one"
	grep -qi requeue "$S/log/slurmctld.log"
	figure "arrays, a node killed: $((SECONDS - start)) s"
	restart_node "$VICTIM"
	# Again: nothing is made a second time.
	local before
	before=$(stat -c '%n %Y' "$T"/out/piece-* "$T"/out/model.vqm "$T"/out/answers-*)
	rm "$T/out/score.json"
	start=$SECONDS
	"$CLUSTER/array.sh" OUT="$T/out" "${VARS[@]}"
	wait_for 120 test -e "$T/out/score.json"
	[ "$before" = "$(stat -c '%n %Y' "$T"/out/piece-* "$T"/out/model.vqm "$T"/out/answers-*)" ]
	figure "arrays that find all but the score made: $((SECONDS - start)) s"
}

@test "make with RUN=srun: a node is killed, make says that a step failed, and the same line goes on to the model of one machine" {
	local start=$SECONDS status=0 first
	wait_for 60 idle 2
	at_srun() { graph -j2 OUT="$T/out" RUN='srun -Q -n1 -c1 --mem=500M' "$@"; }
	at_srun >first.log 2>&1 &
	first=$!
	wait_for 180 at_work "$T/out"
	kill_node "$VICTIM"
	wait "$first" || status=$?
	cat first.log
	[ "$status" -eq 2 ]
	grep -q "piece-4.vqs\] Error" first.log
	[ ! -e "$T/out/piece-4.vqs" ]
	[ -s "$T/out/piece-4.vqs.part" ]
	figure "make with srun, a node killed, until make gave up: $((SECONDS - start)) s"
	restart_node "$VICTIM"
	# What is whole is not made again; what was cut goes on.
	start=$SECONDS
	at_srun score
	same_as_one_machine "$T/out" "$BATS_FILE_TMPDIR/one"
	figure "the same line again, to the score: $((SECONDS - start)) s"
}
