"""ConvNeXt-T as in Liu et al. 2022, arXiv:2201.03545: 82.1 % top-1 there.

    convjax train experiments/imagenet/convnext_tiny.py --workdir runs/convnext_tiny --model.dtype bfloat16

300 epochs of batches of 4096, by the authors' TRAINING.md on 32 GPUs (or 8), without a time: AdamW, RandAugment, mixup,
CutMix, erasing, smoothed labels, stochastic depth, moving averages. timm's RandAugment has other ranges, and takes its
magnitude from 10, not 30: this one is about as strong.

One training image in a hundred is kept apart to choose the checkpoint by. Not run here: there is no ImageNet and no
accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.boxes import RandomErasing
from convjax.data.images import Crop
from convjax.data.mixing import Mix
from convjax.data.policies import RandAugment
from convjax.data.random_crop import ResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("convnext_tiny", drop_path=0.1),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=224,
        validation=0.01,
        crop=Crop(0.875, "bicubic"),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(
            flip=HorizontalFlip(0.5),
            rand=RandAugment(2, 27, deviation=1.5, probability=0.5, fill="grey"),
            erasing=RandomErasing(0.25),
            mix=Mix(mixup=0.8, cutmix=1.0),
        ),
    ),
    optim=OptimConfig(name="adamw", lr=4e-3, weight_decay=0.05, warmup="20 epochs", final=1e-6 / 4e-3),
    train=TrainConfig(length="300 epochs", batch_size=4096, label_smoothing=0.1, ema=0.9999),
)

if __name__ == "__main__":
    run_experiment(__file__)
