"""LeNet-5 on Fashion-MNIST as Flax's MNIST example does it: the set in memory, permuted, indexed batch by batch.

python -m peers.epoch_linen EPOCHS TFDS_DATA_DIR
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from peers.linen_networks import network
from peers.linen_side import create_state, predict, train_step

BATCH = 128


def images_and_labels(directory: str, split: str) -> tuple[Any, Any]:
    source = tfds.builder("fashion_mnist", data_dir=directory).as_data_source(split)
    images = np.stack([example["image"] for example in source]).astype(np.float32) / 255
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return padded, np.array([example["label"] for example in source], np.int32)


def main() -> None:
    images, labels = images_and_labels(sys.argv[2], "train")
    test_images, test_labels = images_and_labels(sys.argv[2], "test")
    state = create_state(network("lenet5", 10, jnp.float32), (32, 32, 1), 0.05)
    rng = np.random.default_rng(0)
    for _ in range(int(sys.argv[1])):
        order = rng.permutation(len(images))
        losses = []
        for begin in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[begin : begin + BATCH]
            state, loss = train_step(state, images[chosen], labels[chosen])
            losses.append(loss)
        right = 0
        for begin in range(0, len(test_images), BATCH):
            logits = predict(state, test_images[begin : begin + BATCH])
            right += int((jnp.argmax(logits, -1) == test_labels[begin : begin + BATCH]).sum())
        print(float(np.mean(jax.device_get(losses))), right / len(test_images))


if __name__ == "__main__":
    main()
