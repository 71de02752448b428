"""ResNet-50 in 90 epochs as in Goyal et al. 2017, arXiv:1706.02677, batches of 256: 23.60 % top-1 error there.

    convjax train experiments/imagenet/resnet50.py --workdir runs/resnet50 --model.dtype bfloat16

He's recipe with random resized crops, without decay of norms and biases, and with blocks that start as the identity.
There on 8 P100 GPUs; with batches of 8192 and a rate of 3.2 after 5 epochs of warm-up, on 256 of them, in one hour.

Images are read as squares of 256 pixels cut out of the centre, so that the crops see less than those of whole images
do. Not run here: there is no ImageNet and no accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.boxes import RandomResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("resnet50", zero_init=True),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=256,
        validation=0.01,
        augment=Augment(resized_crop=RandomResizedCrop(min_area=0.08), flip=HorizontalFlip(0.5)),
    ),
    optim=OptimConfig(lr=0.1, nesterov=False, weight_decay=1e-4, schedule="step", drops=(30 / 90, 60 / 90, 80 / 90)),
    train=TrainConfig(length="90 epochs", batch_size=256, sizes=(224,)),
)

if __name__ == "__main__":
    run_experiment(__file__)
