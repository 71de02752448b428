r"""ResNet-20 on CIFAR-10 as in He et al. 2015, arXiv:1512.03385, section 4.2: 8.75 % test error there.

    convjax train experiments/cifar10_resnet20.py --workdir runs/cifar10_resnet20

64,000 steps of 128 images, learning rate 0.1 divided by 10 at 32,000 and 48,000 steps, weight decay 1e-4 on all
parameters, momentum 0.9, crops after padding by 4 and mirroring; 45,000 images to train on and 5,000 for
validation. Written for a GPU; its 64,000 steps have not been run to their end here: an NVIDIA H200 took 28,880
of them at 29,000 images/s.

Shortened for a CPU, to the 142nd part of the recipe's length:

    convjax train experiments/cifar10_resnet20.py --workdir runs/cifar10_short --data.name cifar10_jpeg \
      --train.length "450 steps" --train.evaluate-every "225 steps" --optim.schedule cosine --optim.warmup "30 steps"

Measured: 56.32 % test accuracy on cifar10_jpeg (CIFAR-10 stored as JPEG), validation 56.12 %, seed 0, 12 min 23 s
on two virtual cores of a 2.5 GHz Xeon, with tests running beside it: 60 to 90 images/s.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.models import CifarResNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=CifarResNet(depth=20, num_classes=10, shortcut="A"),
    data=DataConfig(
        name="cifar10",
        validation=0.1,
        augment=Augment(crop=RandomCrop(padding=4), flip=HorizontalFlip(probability=0.5)),
    ),
    optim=OptimConfig(
        lr=0.1,
        nesterov=False,
        weight_decay=1e-4,
        decay=("*",),
        no_decay=(),
        schedule="step",
        drops=(0.5, 0.75),
    ),
    train=TrainConfig(length="64000 steps", batch_size=128),
)

if __name__ == "__main__":
    run_experiment(__file__)
