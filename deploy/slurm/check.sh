#!/usr/bin/env bash
# Runs both scripts, and a job through them, on a Slurm of one node with two pretended GPUs.
#
#   LSA_BIN=target/release deploy/slurm/check.sh
#
# That Slurm has namespaces of its own, which takes root: nothing outside can reach it, no port or process of it is in the
# way of others, and the kernel ends all of it together with this script, whatever happens.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

skip() {
    printf '\n*** SKIPPED: %s ***\n\n' "$1" >&2
    exit 0
}

# ---- outside: what is needed, a folder, the namespaces

if [ "${1:-}" != --inside ]; then
    for program in slurmctld slurmd sbatch munged; do
        command -v "$program" >/dev/null || skip "$program not installed (apt-get install -y --no-install-recommends \
slurm-wlm slurm-client slurmctld slurmd munge)"
    done
    namespaces=(unshare --net --mount --pid --fork --kill-child --mount-proc)
    "${namespaces[@]}" true 2>/dev/null || skip "namespaces cannot be made here (root can)"
    bin=$(realpath "${LSA_BIN:-$root/target/release}")
    for program in lsa-coordinator lsa-worker; do
        [ -x "$bin/$program" ] || { echo "no $program in $bin; build it, or name the folder with LSA_BIN" >&2; exit 2; }
    done
    work=$(mktemp -d)
    setpriv --pdeathsig KILL "${namespaces[@]}" "$here/check.sh" --inside "$work" "$bin" &
    inside=$!
    trap '{ kill -KILL "$inside"; wait "$inside"; } 2>/dev/null || true; rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    wait "$inside"
    exit
fi

# ---- inside: how steps are told

work=$2 bin=$3
# Two coordinators on one node need two ports; whoever asks finds the one that leads.
ports=(7300 7310)
urls=http://127.0.0.1:${ports[0]},http://127.0.0.1:${ports[1]}
cd "$work"

pass() { printf 'pass  %s\n' "$1"; }
fail() {
    printf 'FAIL  %s\n' "$1"
    squeue --all || true
    tail -n 15 -- *.log
    exit 1
}
# What is no step of its own fails by its name.
trap 'fail "$BASH_COMMAND"' ERR

# step WHAT COMMAND…
step() {
    if "${@:2}" >last.log 2>&1; then pass "$1"; else fail "$1"; fi
}

# await SECONDS WHAT COMMAND…
await() {
    local end=$((SECONDS + $1))
    until "${@:3}" >last.log 2>&1; do
        [ $SECONDS -lt $end ] || fail "$2 (not within $1 s)"
        sleep 0.3
    done
    pass "$2"
}

# ---- what can be asked

field() { scontrol --oneliner show job "$1" | sed -n "s/.* $2=\([^ ]*\).*/\1/p"; }

# is JOB STATE [FIELD=VALUE…]
is() {
    local wanted
    [ "$(field "$1" JobState)" = "$2" ] || return
    for wanted in "${@:3}"; do [ "$(field "$1" "${wanted%%=*}")" = "${wanted#*=}" ] || return; done
}

ask() { "$bin/lsa-coordinator" "$1" --json --coordinator "$urls"; }
leads() { ask workers | grep -Eq "\"epoch\": *$1\b"; }
connected() { [ "$(ask workers | grep -Eo '"connected": *true' | wc -l)" = "$1" ]; }
begun() { ask jobs | grep -Eq '"units_done": *[1-9]'; }
client_runs() { kill -0 "$client"; }
preempted() {
    for task in 0 1; do
        is "${workers}_$task" PENDING Restarts=1 && return
    done
    return 1
}

# ---- a Slurm

ip link set lo up
# Names are not resolved where there are loopback addresses only.
ip address add 192.0.2.1/32 dev lo

(umask 077 && head -c 1024 /dev/urandom >munge.key)
munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munge.pid" \
    --seed-file="$work/munge.seed" --log-file="$work/munge.log" >munged.log 2>&1 &

mkdir state spool
printf 'Name=gpu File=/dev/%s\n' null zero >gres.conf
echo CgroupPlugin=cgroup/v1 >cgroup.conf
# cred_expire is also what a requeued job has to wait; 120 s where nothing is said.
cat >slurm.conf <<CONF
ClusterName=check
SlurmctldHost=$(hostname -s)(192.0.2.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=5
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=$(hostname -s) NodeAddr=192.0.2.1 CPUs=64 RealMemory=262144 Gres=gpu:2
PartitionName=usual Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
CONF
export SLURM_CONF=$work/slurm.conf
await 10 "munge answers" test -S munge.socket
slurmctld -D >slurmctld.log 2>&1 &
slurmd -D >slurmd.log 2>&1 &
idle() { sinfo --noheader --format=%T | grep -q idle; }
await 30 "a node is idle" idle

# ---- the scripts as they are submitted

unset "${!LSA_@}"
export LSA_STORE=$work/store LSA_BIN=$bin LSA_DEVICE=cpu XDG_CACHE_HOME=$work/cache NO_COLOR=1

step "Slurm accepts coordinator.sbatch" sbatch --test-only "$here/coordinator.sbatch"
step "Slurm accepts workers.sbatch" sbatch --test-only "$here/workers.sbatch"

coordinator=$(LSA_PORT=${ports[0]} sbatch --parsable "$here/coordinator.sbatch")
await 30 "the coordinator leads" leads 1
standby=$(LSA_PORT=${ports[1]} sbatch --parsable "$here/coordinator.sbatch")
await 30 "a second one runs" is "$standby" RUNNING
# No more threads than this machine is likely to have.
workers=$(sbatch --parsable --array=0-1 --cpus-per-task=1 "$here/workers.sbatch")
await 60 "an array of two workers finds it in the bucket" connected 2
step "each has a GPU to itself" is "${workers}_1" RUNNING TresPerNode=gres:gpu:1

# ---- a job that a worker and the coordinator leave meanwhile

grep --no-filename '[a-z]' "$root"/docs/*.md | head -n 64 >texts.txt || true
cat >grid.toml <<GRID
name = "slurm"

[grid]
models = ["$root/tests/fixtures/models/open/bert"]
pooling = ["mean", "cls", "max"]
datasets = ["file:$work/texts.txt"]

[similarity]
sample_size = 48
trials = 2000                            # enough to be at work while things happen
GRID
"$bin/lsa-coordinator" submit grid.toml --coordinator "$urls" --watch --output-dir results >client.log 2>&1 &
client=$!
await 60 "the job has begun" begun

step "a more urgent job needs a GPU" sbatch --partition=urgent --gres=gpu:1 --output=urgent.log --wrap 'sleep 1'
await 25 "a worker is preempted" preempted
step "the job goes on" client_runs
step "the coordinator is requeued" scontrol requeue "$coordinator"
await 30 "the second one leads" leads 2
step "the job goes on" client_runs
await 60 "the worker comes back" connected 2
await 60 "the coordinator comes back, to wait in its turn" is "$coordinator" RUNNING Restarts=1
await 240 "the job ends" eval '! client_runs'
step "with exit code 0" wait "$client"
step "and results" find results -name CKA.pkl -size +0 -exec true '{}' +

# ---- their ends

soon=$(date --date='+75 seconds' +%Y-%m-%dT%H:%M:%S)
scontrol update JobId="$standby" EndTime="$soon"
scontrol update JobId="${workers}_0" EndTime="$soon"
await 90 "a worker ends by itself before its time limit" is "${workers}_0" COMPLETED ExitCode=0:0
await 90 "so does a leading coordinator" is "$standby" COMPLETED ExitCode=0:0
await 30 "the other one leads again" leads 3
await 30 "the other worker finds it" connected 1
scancel "${workers}_1"
await 25 "on scancel a worker ends by itself" is "${workers}_1" CANCELLED ExitCode=0:0
scancel "$coordinator"
await 25 "so does a coordinator" is "$coordinator" CANCELLED ExitCode=0:0
step "and says so in the bucket" grep -q '"ended": *true' "$LSA_STORE/epochs/3.beat"
echo "passed"
