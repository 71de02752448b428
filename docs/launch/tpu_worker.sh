#!/bin/bash
# Trains on this host of a Cloud TPU slice; the same command is to be given on each of its hosts, see tpu.sh.
#
#   docs/launch/tpu_worker.sh EXPERIMENT.py --workdir /mnt/shared/NAME [--FIELD VALUE ...]
#
# Which hosts there are, and which this is, stands in the metadata of the machine: `unknown:unknown:IP` for each host,
# with commas between them. A slice of one host needs no coordinator.
set -eu
metadata() {
    curl --silent --show-error --fail --retry 5 -H 'Metadata-Flavor: Google' \
        "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
index=$(metadata agent-worker-number)
IFS=, read -r -a hosts <<< "$(metadata worker-network-endpoints)"
flags=()
if ((${#hosts[@]} > 1)); then
    flags=(--parallel.coordinator "${hosts[0]##*:}:8476" --parallel.processes "${#hosts[@]}"
        --parallel.process-id "$index")
fi
# exec: a SIGTERM, as a host gets before it is taken back, is the run's own.
exec convjax train "$@" "${flags[@]}"
