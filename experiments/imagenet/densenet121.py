"""DenseNet-121 as in Huang et al. 2016, arXiv:1608.06993: 25.02 % top-1 error there.

    convjax train experiments/imagenet/densenet121.py --workdir runs/densenet121 --model.dtype bfloat16

90 epochs of batches of 256, the rate divided by 10 after 30 and 60; on 4 GPUs, without a time. Augmentation, Nesterov's
momentum and the decay of all parameters are those of fb.resnet.torch, which the authors' code is built on; its noise
along the principal components of colours is missing here.

One training image in a hundred is kept apart to choose the checkpoint by. Not run here: there is no ImageNet and no
accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.colour import ColourJitter
from convjax.data.images import Crop
from convjax.data.random_crop import ResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("densenet121"),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=224,
        validation=0.01,
        crop=Crop(0.875, "bicubic"),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(flip=HorizontalFlip(0.5), colour=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4)),
    ),
    optim=OptimConfig(lr=0.1, weight_decay=1e-4, decay=("*",), no_decay=(), schedule="step", drops=(30 / 90, 60 / 90)),
    train=TrainConfig(length="90 epochs", batch_size=256),
)

if __name__ == "__main__":
    run_experiment(__file__)
