#!/bin/bash
# A SLURM cluster of one node, this machine, for the tests: needs Debian's slurm-wlm and root.
#
#   tests/slurm/cluster.sh start DIR     writes its files into DIR, starts munged, slurmctld and slurmd on loopback
#   tests/slurm/cluster.sh stop DIR      ends what `start` has started
#
# Commands of SLURM find it by SLURM_CONF=DIR/slurm.conf.
set -eu
action=$1
directory=$(realpath -m "$2")

start() {
    mkdir -p "$directory"/{state,spool}
    host=$(hostname -s)
    cores=$(nproc)
    # The daemons and commands of one cluster know each other by a key, over a socket that has to be munge's own.
    [[ -f $directory/munge.key ]] || (umask 077; head -c 1024 /dev/urandom > "$directory/munge.key")
    munged --force --key-file="$directory/munge.key" --socket="$directory/munge.socket" \
        --pid-file="$directory/munged.pid" --log-file="$directory/munged.log" --seed-file="$directory/munged.seed"
    # A job that is requeued waits for as long as a credential is valid: two minutes, unless set.
    cat > "$directory/slurm.conf" << END
ClusterName=convjax
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$directory/munge.socket,cred_expire=5
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
KillWait=60
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF="$directory/slurm.conf"
    slurmctld -c
    slurmd
    for _ in $(seq 60); do
        if [[ $(sinfo --noheader --format=%T 2> /dev/null) == idle ]]; then
            return
        fi
        sleep 0.5
    done
    echo "the node does not become idle:" >&2
    sinfo >&2
    tail -n 20 "$directory"/slurm*.log >&2
    return 1
}

stop() {
    for daemon in slurmd slurmctld munged; do
        if [[ -f $directory/$daemon.pid ]]; then
            kill "$(cat "$directory/$daemon.pid")" || true
        fi
    done
}

"$action"
