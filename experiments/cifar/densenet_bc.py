"""DenseNet-BC-100-12 on CIFAR-10 as in Huang et al. 2016, arXiv:1608.06993: 4.51 % test error there.

    convjax train experiments/cifar/densenet_bc.py --workdir runs/densenet_bc

300 epochs of batches of 64, the rate divided by 10 after a half and three quarters; there from all 50,000 images: add
--data.validation 0. Neither hardware nor time is published. Not run here: it wants an accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("densenet_bc_100_12"),
    data=DataConfig(
        name="cifar10", validation=0.1, augment=Augment(crop=RandomCrop(padding=4), flip=HorizontalFlip(0.5))
    ),
    optim=OptimConfig(lr=0.1, weight_decay=1e-4, decay=("*",), no_decay=(), schedule="step", drops=(0.5, 0.75)),
    train=TrainConfig(length="300 epochs", batch_size=64),
)

if __name__ == "__main__":
    run_experiment(__file__)
