#!/bin/bash
# Trains on one machine, on all of its GPUs, and starts again what has crashed.
#
#   docs/launch/one_machine.sh EXPERIMENT.py --workdir runs/NAME [--FIELD VALUE ...]
#
# SIGTERM (a spot machine that is taken back, `systemctl stop`), SIGINT and SIGUSR1 are passed on to the run, which saves
# a checkpoint and ends; the same command goes on from there. A run that fails for another reason than wrong usage is
# started again, from its last checkpoint, at most RETRIES times.
set -u
retries=${RETRIES:-5}
for ((try = 0; ; try++)); do
    convjax train "$@" &
    run=$!
    for signal in TERM INT USR1; do
        # shellcheck disable=SC2064 # the run as it is now
        trap "stopped=yes; kill -$signal $run 2> /dev/null" "$signal"
    done
    # A wait that a signal interrupts ends before the run does.
    while kill -0 "$run" 2> /dev/null; do
        wait "$run"
        code=$?
    done
    # What the run itself ended with, if a signal ended the last wait.
    wait "$run" 2> /dev/null
    last=$?
    [[ $last == 127 ]] || code=$last
    # 0: done; 2: wrong usage, which no other try makes right.
    if [[ $code == 0 || $code == 2 || ${stopped:-no} == yes || $try == "$retries" ]]; then
        exit "$code"
    fi
    echo "convjax ended with exit code $code; try $((try + 2)) of $((retries + 1)) in ${PAUSE:-10} s" >&2
    sleep "${PAUSE:-10}"
done
