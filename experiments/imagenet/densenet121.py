"""DenseNet-121 as in Huang et al. 2016, arXiv:1608.06993: 25.02 % top-1 error there.

    convjax train experiments/imagenet/densenet121.py --workdir runs/densenet121 --model.dtype bfloat16

90 epochs of batches of 256, the rate divided by 10 after 30 and 60.

Images are read as squares of 256 pixels cut out of the centre, so that the crops see less than those of whole images
do. Not run here: there is no ImageNet and no accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.boxes import RandomResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("densenet121"),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=256,
        validation=0.01,
        augment=Augment(resized_crop=RandomResizedCrop(min_area=0.08), flip=HorizontalFlip(0.5)),
    ),
    optim=OptimConfig(lr=0.1, weight_decay=1e-4, decay=("*",), no_decay=(), schedule="step", drops=(30 / 90, 60 / 90)),
    train=TrainConfig(length="90 epochs", batch_size=256, sizes=(224,)),
)

if __name__ == "__main__":
    run_experiment(__file__)
