"""EfficientNet-B0 as in Tan and Le 2019, arXiv:1905.11946: 77.1 % top-1 there.

    convjax train experiments/imagenet/efficientnet_b0.py --workdir runs/efficientnet_b0 --model.dtype bfloat16

350 epochs: RMSProp as TensorFlow has it, the rate times 0.97 every 2.4 epochs, AutoAugment, stochastic depth, smoothed
labels, moving averages, decay of all but norms; on a TPU, without a time. The rate is the paper's 0.256; in the
authors' code (tensorflow/tpu), where 256 images have 0.016, that is the rate of batches of 4096.

One training image in a hundred is kept apart to choose the checkpoint by. Not run here: there is no ImageNet and no
accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.images import Crop
from convjax.data.policies import AutoAugment
from convjax.data.random_crop import ResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("efficientnet_b0", batch_epsilon=1e-3),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=224,
        validation=0.01,
        crop=Crop(0.875, "bicubic"),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(flip=HorizontalFlip(0.5), auto=AutoAugment("imagenet", fill="grey")),
    ),
    optim=OptimConfig(
        name="rmsprop",
        lr=0.256,
        beta2=0.9,
        weight_decay=1e-5,
        decay=("*/kernel", "*/squeeze_excite/*/bias", "head/dense/bias"),
        no_decay=("*norm*",),
        schedule="step",
        drops=tuple(2.4 * k / 350 for k in range(1, 146)),
        drop_factor=0.97,
        warmup="5 epochs",
    ),
    train=TrainConfig(length="350 epochs", batch_size=4096, label_smoothing=0.1, ema=0.9999),
)

if __name__ == "__main__":
    run_experiment(__file__)
