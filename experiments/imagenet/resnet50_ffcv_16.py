"""ResNet-50 in 16 epochs by FFCV's recipe (Leclerc et al. 2023, arXiv:2306.12517): 73.8 % top-1 there.

    convjax train experiments/imagenet/resnet50_ffcv_16.py --workdir runs/ffcv_16 --model.dtype bfloat16

14.9 minutes there on eight A100 GPUs, with 512 images on each, as libffcv/ffcv-imagenet has it: images grow from 160
to 192 pixels, the rate rises for 2 epochs and falls linearly. It tests at 256 pixels, over an image and its mirror
image: `convjax eval runs/ffcv_16 --views flip`. Here parts of images are cut out at 256 pixels, and shrunk on the
device. FFCV also blurs before it subsamples, which this ResNet does not, and lets the norms of shortcuts decay.

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
    model=create("resnet50"),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=256,
        validation=0.01,
        crop=Crop(0.875),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(flip=HorizontalFlip(0.5)),
    ),
    optim=OptimConfig(
        lr=1.7,
        nesterov=False,
        weight_decay=1e-4,
        decay=("*/kernel", "head/dense/bias"),
        no_decay=("*norm*",),
        schedule="linear",
        warmup="2 epochs",
    ),
    train=TrainConfig(length="16 epochs", batch_size=4096, label_smoothing=0.1, sizes=(160, 192), sizes_at=(12 / 16,)),
)

if __name__ == "__main__":
    run_experiment(__file__)
