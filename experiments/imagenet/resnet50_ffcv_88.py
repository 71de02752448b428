"""ResNet-50 in 88 epochs by FFCV's recipe (Leclerc et al. 2023, arXiv:2306.12517): 78.4 % top-1 there.

    convjax train experiments/imagenet/resnet50_ffcv_88.py --workdir runs/ffcv_88 --model.dtype bfloat16

77.2 minutes there on eight A100 GPUs: images grow from 160 to 192 pixels, the rate rises for 2 epochs and falls
linearly. FFCV also blurs before it subsamples, which this ResNet does not, and tests at 256 pixels, over an image and
its mirror image: `convjax eval runs/ffcv_88 --views flip`.

Images are read as squares of 256 pixels cut out of the centre, so that the crops see less than those of whole images
do. Not run here: there is no ImageNet and no accelerator.
"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.boxes import RandomResizedCrop
from convjax.models import create
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=create("resnet50"),
    data=DataConfig(
        name="imagenet2012",
        feed="streamed",
        image_size=256,
        validation=0.01,
        augment=Augment(resized_crop=RandomResizedCrop(min_area=0.08), flip=HorizontalFlip(0.5)),
    ),
    optim=OptimConfig(lr=1.7, nesterov=False, weight_decay=1e-4, schedule="linear", warmup="2 epochs"),
    train=TrainConfig(
        length="88 epochs", batch_size=1024, label_smoothing=0.1, sizes=(160, 192), sizes_at=(70.5 / 88,)
    ),
)

if __name__ == "__main__":
    run_experiment(__file__)
