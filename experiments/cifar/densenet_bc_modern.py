"""DenseNet-BC-100-12 on CIFAR-10 with a modern recipe: a cosine, TrivialAugment, cutout, CutMix, moving averages.

    convjax train experiments/cifar/densenet_bc_modern.py --workdir runs/densenet_bc_modern

To be compared with densenet_bc.py, of the same length and batches. No published result has this combination. Not run
here: it wants an accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, Cutout, HorizontalFlip, RandomCrop
from convjax.data.mixing import Mix
from convjax.data.policies import TrivialAugmentWide
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("densenet_bc_100_12"),
    data=DataConfig(
        name="cifar10",
        validation=0.1,
        augment=Augment(
            crop=RandomCrop(padding=4),
            flip=HorizontalFlip(0.5),
            trivial=TrivialAugmentWide(1.0),
            cutout=Cutout(16),
            mix=Mix(cutmix=1.0, probability=0.5),
        ),
    ),
    optim=OptimConfig(lr=0.1, weight_decay=5e-4, warmup="5 epochs"),
    train=TrainConfig(length="300 epochs", batch_size=64, label_smoothing=0.1, ema=0.999),
)

if __name__ == "__main__":
    run_experiment(__file__)
