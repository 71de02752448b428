"""CIFAR-10 ResNets as in He et al. 2015, arXiv:1512.03385: test errors there of 8.75 % to 6.43 %.

    convjax train experiments/cifar/resnet.py --workdir runs/resnet

--model.depth 20, 32, 44, 56, 110 have 8.75, 7.51, 7.17, 6.97 and 6.43 % (the best of five runs; their mean is 6.61),
on two GPUs, without a time; schedule from a split of 45,000 images. The deepest begins at a tenth of the rate there:
here add --optim.warmup "400 steps". `convjax sweep` trains all depths. Not run here: it wants an accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("resnet20"),
    data=DataConfig(
        name="cifar10", validation=0.1, augment=Augment(crop=RandomCrop(padding=4), flip=HorizontalFlip(0.5))
    ),
    optim=OptimConfig(
        lr=0.1, nesterov=False, weight_decay=1e-4, decay=("*",), no_decay=(), schedule="step", drops=(0.5, 0.75)
    ),
    train=TrainConfig(length="64000 steps", batch_size=128),
)

axes = {"model.depth": [20, 32, 44, 56, 110]}

if __name__ == "__main__":
    run_experiment(__file__)
