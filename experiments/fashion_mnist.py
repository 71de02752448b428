"""A residual network on Fashion-MNIST, in minutes on a CPU.

    convjax train experiments/fashion_mnist.py --workdir runs/fashion_mnist

Ten layers: the stem halves the image, four stages of one block each follow. Few epochs leave no time for
strong augmentation; mirroring is all.

Measured: 93.28 % test accuracy (validation 93.47 %), seed 0, 2,672 steps (6 epochs of 57,000 images), 14 min 53 s
wall time for the whole command on two virtual cores of a 2.5 GHz Xeon (AVX-512), shared with other work: 400 to
500 images/s.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.models import ResNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=ResNet(num_classes=10, block="basic", stage_sizes=(1, 1, 1, 1), width=32, stem="cifar", stem_stride=2),
    data=DataConfig(name="fashion_mnist", validation=0.05, augment=Augment(flip=HorizontalFlip(probability=0.5))),
    optim=OptimConfig(lr=0.2, weight_decay=5e-4, warmup="1 epochs"),
    train=TrainConfig(length="6 epochs", batch_size=128),
)

if __name__ == "__main__":
    run_experiment(__file__)
