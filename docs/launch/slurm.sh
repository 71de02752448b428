#!/bin/bash
# Trains on several machines with SLURM: one process a GPU, which find each other by what srun tells them.
#
#   sbatch docs/launch/slurm.sh EXPERIMENT.py --workdir /shared/runs/NAME [--FIELD VALUE ...]
#
# The work directory and the data must be visible to all machines under the same path. train.batch_size is that of all
# GPUs together. Ten minutes before the time is over (USR1), and when the job is preempted (TERM), the run saves a
# checkpoint and ends; the job is queued again and goes on from there.
#SBATCH --job-name=convjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=convjax-%j.txt
set -u
# SLURM sends SIGTERM to this shell as well as to the run: it must live on to queue the job again.
trap : TERM USR1
srun --kill-on-bad-exit=0 convjax train "$@" < /dev/null &
step=$!
code=127
while kill -0 "$step" 2> /dev/null; do
    wait "$step"
    code=$?
done
# What the step itself ended with, if a signal to this shell ended the last wait.
wait "$step"
last=$?
[[ $last == 127 ]] || code=$last
# 143 and 138 are what a run ends with that was stopped by SIGTERM and SIGUSR1, its checkpoint saved.
if [[ $code == 143 || $code == 138 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
