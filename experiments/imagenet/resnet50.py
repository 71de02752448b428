"""ResNet-50 in 90 epochs as in Goyal et al. 2017, arXiv:1706.02677, batches of 256: 23.60 % top-1 error there.

    convjax train experiments/imagenet/resnet50.py --workdir runs/resnet50 --model.dtype bfloat16

He's recipe with random resized crops, Nesterov's momentum, no decay of norms, and blocks that start as the identity.
There on 8 P100 GPUs, 16 minutes an epoch (figure 7); the mean of five runs, each the median of its last five epochs.
On 256 of them, in one hour, 23.74 %: add --train.batch-size 8192 --optim.lr 3.2 --optim.warmup "5 epochs".

One training image in a hundred is kept apart to choose the checkpoint by. Not run here: there is no ImageNet and no
accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.images import Crop
from convjax.data.random_crop import ResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("resnet50", zero_init=True),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=224,
        validation=0.01,
        crop=Crop(0.875, "bicubic"),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(flip=HorizontalFlip(0.5)),
    ),
    optim=OptimConfig(
        lr=0.1,
        weight_decay=1e-4,
        decay=("*/kernel", "head/dense/bias"),
        no_decay=("*norm*",),
        schedule="step",
        drops=(30 / 90, 60 / 90, 80 / 90),
    ),
    train=TrainConfig(length="90 epochs", batch_size=256),
)

if __name__ == "__main__":
    run_experiment(__file__)
