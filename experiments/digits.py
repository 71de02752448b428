"""The demo: a small residual network on scikit-learn's 8 x 8 handwritten digits.

    convjax train experiments/digits.py --workdir runs/digits

The validation split has 144 images, too few to choose between checkpoints: it is scored at the end alone.

Measured: 99.44 % test accuracy with seed 0, 606 steps, about half a minute for the whole command on two virtual
cores of a 2.5 GHz Xeon.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, RandomCrop
from convjax.models import CifarResNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=CifarResNet(depth=8, width=16, num_classes=10),
    data=DataConfig(name="digits", augment=Augment(crop=RandomCrop(padding=1))),
    optim=OptimConfig(lr=0.1, warmup="1 epochs"),
    train=TrainConfig(length="30 epochs", batch_size=64, evaluate_every="30 epochs"),
)

if __name__ == "__main__":
    run_experiment(__file__)
