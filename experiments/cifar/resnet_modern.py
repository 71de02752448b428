"""CIFAR-10 ResNets with a modern recipe: a cosine, TrivialAugment, cutout, CutMix, smoothed labels, moving averages.

    convjax train experiments/cifar/resnet_modern.py --workdir runs/resnet_modern

To be compared with resnet.py, of the same length and batches. No published result has this combination. Not run here:
it wants an accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, Cutout, HorizontalFlip, RandomCrop
from convjax.data.mixing import Mix
from convjax.data.policies import TrivialAugmentWide
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("resnet20"),
    data=DataConfig(
        name="cifar10",
        validation=0.1,
        augment=Augment(
            crop=RandomCrop(padding=4),
            flip=HorizontalFlip(0.5),
            trivial=TrivialAugmentWide(1.0),
            cutout=Cutout(8),
            mix=Mix(cutmix=1.0, probability=0.5),
        ),
    ),
    optim=OptimConfig(lr=0.1, weight_decay=5e-4, warmup="5 epochs"),
    train=TrainConfig(length="64000 steps", batch_size=128, label_smoothing=0.1, ema=0.999),
)

axes = {"model.depth": [20, 32, 44, 56, 110]}

if __name__ == "__main__":
    run_experiment(__file__)
