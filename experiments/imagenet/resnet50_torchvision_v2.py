"""ResNet-50 by the recipe of torchvision's second weights: 80.86 % top-1 there.

    convjax train experiments/imagenet/resnet50_torchvision_v2.py --workdir runs/torchvision_v2 --model.dtype bfloat16

The weights are called IMAGENET1K_V2; there is no paper, but the command of pytorch/vision#3995. 600 epochs on eight
V100 GPUs, without a time: TrivialAugment, mixup, CutMix, erasing, smoothed labels, repeated augmentation, moving
averages; trained at 176 pixels, tested at 224 of 232. There averages are updated every 32 steps, and keep
1 - 2e-5 * 1024 * 32 / 600: 0.999966 is the same a step. Parts of images are cut out at 224 pixels here, and shrunk on
the device.

One training image in a hundred is kept apart to choose the checkpoint by. Not run here: there is no ImageNet and no
accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.boxes import RandomErasing
from convjax.data.images import Crop
from convjax.data.mixing import Mix
from convjax.data.policies import TrivialAugmentWide
from convjax.data.random_crop import ResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("resnet50"),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=224,
        validation=0.01,
        crop=Crop(224 / 232),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(
            flip=HorizontalFlip(0.5),
            trivial=TrivialAugmentWide(1.0),
            erasing=RandomErasing(0.1, value="grey"),
            mix=Mix(mixup=0.2, cutmix=1.0),
            repeats=4,
        ),
    ),
    optim=OptimConfig(
        lr=0.5,
        nesterov=False,
        weight_decay=2e-5,
        decay=("*/kernel", "head/dense/bias"),
        no_decay=("*norm*",),
        warmup="5 epochs",
    ),
    train=TrainConfig(length="600 epochs", batch_size=1024, label_smoothing=0.1, ema=0.999966, sizes=(176,)),
)

if __name__ == "__main__":
    run_experiment(__file__)
