"""ResNet-50 by procedure A3 of "ResNet strikes back", Wightman et al. 2021, arXiv:2110.00476: 78.1 % top-1 there.

    convjax train experiments/imagenet/resnet50_rsb_a3.py --workdir runs/rsb_a3 --model.dtype bfloat16

100 epochs, 15 hours on four V100 GPUs there: LAMB, binary cross-entropy over labels mixed by mixup and CutMix,
RandAugment; trained at 160 pixels, tested at 224. Parts of images are cut out at 224 pixels here, and shrunk on the
device. timm's RandAugment has other ranges, and takes its magnitude from 10, not 30: this one is about as strong. Its
LAMB clips the gradient, as here, and leaves the lengths of norms' and biases' updates alone, which this one does not.

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
    model=create("resnet50"),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=224,
        validation=0.01,
        crop=Crop(0.95, "bicubic"),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(
            flip=HorizontalFlip(0.5),
            rand=RandAugment(2, 18, deviation=1.5, probability=0.5, fill="grey"),
            mix=Mix(mixup=0.1, cutmix=1.0),
        ),
    ),
    optim=OptimConfig(name="lamb", lr=0.008, weight_decay=0.02, warmup="5 epochs", clip_norm=1.0),
    train=TrainConfig(
        length="100 epochs",
        batch_size=2048,
        loss_function="sigmoid",
        loss_threshold=0.2,
        sizes=(160,),
    ),
)

if __name__ == "__main__":
    run_experiment(__file__)
