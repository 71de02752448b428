r"""The CIFAR-10 speed record's network and recipe: Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", arXiv:2404.00498.

    convjax train experiments/cifar10_speedrun.py --workdir runs/cifar10_speedrun
    convjax train experiments/cifar10_speedrun.py --workdir runs/speedrun_jpeg --data.name cifar10_jpeg

About ten epochs of batches of 1,024 on all 50,000 training images; the paper has 94.0 % on average, with test-time
augmentation. As in the paper: a first layer that whitens patches of training images and stays frozen, kernels that
start as identities, batch norms that only shift, their biases at 64 times the learning rate, shifts by 2 pixels with
mirrored borders, label smoothing 0.2, Nesterov momentum 0.85, and a learning rate that is 1.5 for the mean loss.

Not as in the paper: each mirroring is drawn by itself rather than alternating from epoch to epoch; the rate falls by
a cosine from its highest rather than along a line; a moving average of the weights stands for look-ahead; biases do
not decay; the bias of the first layer is trained to the end; and nothing is averaged over views at test time.

Not run yet: neither accuracy nor time has been measured, nor compared with the original.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.models import AirBench
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=AirBench(),
    data=DataConfig(
        name="cifar10",
        validation=0.0,
        augment=Augment(crop=RandomCrop(padding=2, border="reflect"), flip=HorizontalFlip(probability=0.5)),
    ),
    optim=OptimConfig(
        lr=1.5,
        momentum=0.85,
        weight_decay=1.3e-3,
        decay=("group*/*/kernel", "head/kernel"),
        no_decay=("whiten/*", "*/bias"),
        rates=("group*/norm*/bias=64",),
        warmup="2.3 epochs",
    ),
    train=TrainConfig(length="9.9 epochs", batch_size=1024, label_smoothing=0.2, ema=0.95),
)

if __name__ == "__main__":
    run_experiment(__file__)
