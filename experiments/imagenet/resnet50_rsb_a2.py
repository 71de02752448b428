"""ResNet-50 by procedure A2 of "ResNet strikes back", Wightman et al. 2021, arXiv:2110.00476: 79.8 % top-1 there.

    convjax train experiments/imagenet/resnet50_rsb_a2.py --workdir runs/rsb_a2 --model.dtype bfloat16

300 epochs, 55 hours on four V100 GPUs there: LAMB, binary cross-entropy over labels mixed by mixup and CutMix,
RandAugment, repeated augmentation, stochastic depth. Batches have 2064 images, not 2048, so that each of 688 examples
is in one three times. timm's RandAugment has other ranges, and takes its magnitude from 10, not 30: this one is about
as strong. Its LAMB clips the gradient, as here, and leaves the lengths of norms' and biases' updates alone, which this
one does not.

One training image in a hundred is kept apart to choose the checkpoint by. Not run here: there is no ImageNet and no
accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.images import Crop
from convjax.data.mixing import Mix
from convjax.data.policies import RandAugment
from convjax.data.random_crop import ResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("resnet50", drop_path=0.05),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=224,
        validation=0.01,
        crop=Crop(0.95, "bicubic"),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(
            flip=HorizontalFlip(0.5),
            rand=RandAugment(2, 21, deviation=1.5, probability=0.5, fill="grey"),
            mix=Mix(mixup=0.1, cutmix=1.0),
            repeats=3,
        ),
    ),
    optim=OptimConfig(name="lamb", lr=0.005, weight_decay=0.02, warmup="5 epochs", clip_norm=1.0),
    train=TrainConfig(
        length="300 epochs",
        batch_size=2064,
        loss_function="sigmoid",
        loss_threshold=0.2,
    ),
)

if __name__ == "__main__":
    run_experiment(__file__)
