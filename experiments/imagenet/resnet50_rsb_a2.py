"""ResNet-50 by procedure A2 of "ResNet strikes back", Wightman et al. 2021, arXiv:2110.00476: 79.8 % top-1 there.

    convjax train experiments/imagenet/resnet50_rsb_a2.py --workdir runs/rsb_a2 --model.dtype bfloat16

300 epochs, 55 hours on four V100 GPUs there: LAMB, binary cross-entropy over labels mixed by mixup and CutMix,
RandAugment, repeated augmentation, stochastic depth. timm's RandAugment has other ranges, and takes its magnitude
from 10, not 30: this one is about as strong. Batches have 2064 images, not 2048, so that each of 688 examples is in
one three times.

Images are read as squares of 256 pixels cut out of the centre, so that the crops see less than those of whole images
do. Not run here: there is no ImageNet and no accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.boxes import RandomResizedCrop
from convjax.data.mixing import Mix
from convjax.data.policies import RandAugment
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("resnet50", drop_path=0.05),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=256,
        validation=0.01,
        augment=Augment(
            resized_crop=RandomResizedCrop(min_area=0.08),
            flip=HorizontalFlip(0.5),
            rand=RandAugment(2, 21, deviation=1.5, probability=0.5, fill="grey"),
            mix=Mix(mixup=0.1, cutmix=1.0),
            repeats=3,
        ),
    ),
    optim=OptimConfig(name="lamb", lr=0.005, weight_decay=0.02, warmup="5 epochs"),
    train=TrainConfig(length="300 epochs", batch_size=2064, loss_function="sigmoid", loss_threshold=0.2, sizes=(224,)),
)

if __name__ == "__main__":
    run_experiment(__file__)
