"""An ablation in one command: does batch normalisation help a small residual network, and at which learning rate?

    convjax sweep experiments/ablation_norm.py --workdir sweeps/norm --jobs 2
    convjax compare sweeps/norm --by model.norm

With norm "none" each norm is a bias, as convolutions have none of their own: nothing else is taken away.

Measured: mean test accuracy of three seeds, in 4 min 21 s of processor time for all twelve runs (two virtual cores of
a 2.5 GHz Xeon, shared with much other work):

    norm     lr 0.02    lr 0.1
    batch    97.87 %    98.80 %
    none     94.63 %    96.85 %
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, RandomCrop
from convjax.models import CifarResNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=CifarResNet(depth=8, width=8, num_classes=10),
    data=DataConfig(name="digits", augment=Augment(crop=RandomCrop(padding=1))),
    optim=OptimConfig(lr=0.1, warmup="1 epochs"),
    train=TrainConfig(length="15 epochs", batch_size=64, evaluate_every="5 epochs"),
)

axes = {"model.norm": ["batch", "none"], "optim.lr": [0.02, 0.1], "seed": range(3)}

if __name__ == "__main__":
    run_experiment(__file__)
