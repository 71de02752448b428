"""WRN-28-10 on CIFAR-10 with TrivialAugment, as in Müller and Hutter 2021, arXiv:2103.10158: 97.46 % accuracy there.

    convjax train experiments/cifar/wide_resnet28_10_modern.py --workdir runs/wide_resnet28_10_modern

200 epochs, a cosine without warm-up, cutout of 16 pixels, on one GPU, without a time; there from all 50,000 images: add
--data.validation 0. The authors' code (automl/trivialaugment) has TrivialAugment before crop and mirroring, which come
first here. Not run here: it wants an accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, Cutout, HorizontalFlip, RandomCrop
from convjax.data.policies import TrivialAugmentWide
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("wide_resnet28_10"),
    data=DataConfig(
        name="cifar10",
        validation=0.1,
        augment=Augment(
            crop=RandomCrop(padding=4), flip=HorizontalFlip(0.5), trivial=TrivialAugmentWide(1.0), cutout=Cutout(16)
        ),
    ),
    optim=OptimConfig(lr=0.1, weight_decay=5e-4),
    train=TrainConfig(length="200 epochs", batch_size=128),
)

if __name__ == "__main__":
    run_experiment(__file__)
