"""EfficientNet-B0 as in Tan and Le 2019, arXiv:1905.11946: 77.1 % top-1 there.

    convjax train experiments/imagenet/efficientnet_b0.py --workdir runs/efficientnet_b0 --model.dtype bfloat16

350 epochs on a TPU there: RMSProp as TensorFlow has it, the rate times 0.97 every 2.4 epochs, AutoAugment, stochastic
depth, smoothed labels, moving averages.

Images are read as squares of 256 pixels cut out of the centre, so that the crops see less than those of whole images
do. Not run here: there is no ImageNet and no accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.boxes import RandomResizedCrop
from convjax.data.policies import AutoAugment
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("efficientnet_b0", batch_epsilon=1e-3),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=256,
        validation=0.01,
        augment=Augment(
            resized_crop=RandomResizedCrop(min_area=0.08),
            flip=HorizontalFlip(0.5),
            auto=AutoAugment("imagenet", fill="grey"),
        ),
    ),
    optim=OptimConfig(
        name="rmsprop",
        lr=0.256,
        beta2=0.9,
        weight_decay=1e-5,
        schedule="step",
        drops=tuple(2.4 * k / 350 for k in range(1, 146)),
        drop_factor=0.97,
        warmup="5 epochs",
    ),
    train=TrainConfig(length="350 epochs", batch_size=4096, label_smoothing=0.1, ema=0.9999, sizes=(224,)),
)

if __name__ == "__main__":
    run_experiment(__file__)
