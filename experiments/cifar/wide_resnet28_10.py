"""WRN-28-10 on CIFAR-10 as in Zagoruyko and Komodakis 2016, arXiv:1605.07146: 4.00 % test error there.

    convjax train experiments/cifar/wide_resnet28_10.py --workdir runs/wide_resnet28_10

200 epochs, the rate times 0.2 after 60, 120 and 160, crops with mirrored borders; the median of five runs, each from
all 50,000 images: add --data.validation 0. On a Titan X it takes about a day for CIFAR-100, by the authors' code
(szagoruyko/wide-residual-networks). Not run here: it wants an accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("wide_resnet28_10"),
    data=DataConfig(
        name="cifar10",
        validation=0.1,
        augment=Augment(crop=RandomCrop(padding=4, border="reflect"), flip=HorizontalFlip(0.5)),
    ),
    optim=OptimConfig(
        lr=0.1, weight_decay=5e-4, decay=("*",), no_decay=(), schedule="step", drops=(0.3, 0.6, 0.8), drop_factor=0.2
    ),
    train=TrainConfig(length="200 epochs", batch_size=128),
)

if __name__ == "__main__":
    run_experiment(__file__)
