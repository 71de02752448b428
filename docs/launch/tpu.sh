#!/bin/bash
# Asks Google Cloud for a TPU slice, waits for it, trains on all of its hosts, and asks again when it has been taken back.
#
#   PROJECT=... ZONE=us-central2-b TYPE=v4-32 SHARE=... QUEUED=yes docs/launch/tpu.sh NAME EXPERIMENT.py [--FIELD VALUE ...]
#
# QUEUED=yes asks by a queued resource, which waits until there is room; without it the slice must be there at once.
# SPOT=yes takes a slice that may be taken back. SHARE, a Filestore share as 10.0.0.2:/share, is mounted on each host as
# /mnt/shared, where the run's directory and the data lie (data under /mnt/shared/tfds). The commit that is checked out here
# is what runs there. Needs gcloud, logged in.
set -eu
name=$1
shift
: "${PROJECT:?}" "${ZONE:?}" "${TYPE:?}" "${SHARE:?}"
version=${VERSION:-tpu-ubuntu2204-base}
here=(--project "$PROJECT" --zone "$ZONE")
spot=()
[[ ${SPOT:-no} == yes ]] && spot=(--spot)

create() {
    if [[ ${QUEUED:-no} == yes ]]; then
        gcloud compute tpus queued-resources create "$name" "${here[@]}" --node-id "$name" \
            --accelerator-type "$TYPE" --runtime-version "$version" "${spot[@]}"
        until [[ $(gcloud compute tpus queued-resources describe "$name" "${here[@]}" --format 'value(state.state)') == ACTIVE ]]; do
            sleep 30
        done
    else
        gcloud compute tpus tpu-vm create "$name" "${here[@]}" --accelerator-type "$TYPE" --version "$version" "${spot[@]}"
    fi
}

remove() {
    if [[ ${QUEUED:-no} == yes ]]; then
        gcloud compute tpus queued-resources delete "$name" "${here[@]}" --quiet --force
    else
        gcloud compute tpus tpu-vm delete "$name" "${here[@]}" --quiet
    fi
}

everywhere() {
    gcloud compute tpus tpu-vm ssh "$name" "${here[@]}" --worker all --command "$1"
}

# Words for the shell over there.
printf -v arguments '%q ' "$@" --workdir "/mnt/shared/runs/$name"
code=1
for try in 1 2 3 4 5; do
    create
    git archive --format tar.gz --output /tmp/convjax.tar.gz HEAD
    gcloud compute tpus tpu-vm scp /tmp/convjax.tar.gz "$name":/tmp/ "${here[@]}" --worker all
    everywhere "set -e; mkdir -p convjax; tar -xzf /tmp/convjax.tar.gz -C convjax; cd convjax
        sudo apt-get install --quiet --yes nfs-common; sudo mkdir -p /mnt/shared
        mountpoint -q /mnt/shared || sudo mount -t nfs $SHARE /mnt/shared
        make install; .venv/bin/python -m pip install --quiet 'jax[tpu]>=0.10.2,<0.11'"
    code=0
    everywhere "cd convjax; export PATH=\$PWD/.venv/bin:\$PATH TFDS_DATA_DIR=/mnt/shared/tfds
        docs/launch/tpu_worker.sh $arguments" || code=$?
    remove
    # 0: done; 2: wrong usage. All else goes on from the last checkpoint, on another slice.
    [[ $code == 0 || $code == 2 ]] && break
    echo "try $try ended with exit code $code" >&2
done
exit "$code"
