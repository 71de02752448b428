"""Does batch norm need large batches? The norms at batches of 4, 32 and 256 images.

    convjax sweep experiments/findings_batch_size.py --workdir sweeps/batch_size --jobs 2 --compare

The network and the data are those of findings_norm.py. All runs see the same number of images; the learning rate is
proportional to the batch size (Goyal et al. 2017, arXiv:1706.02677), 0.1 at 64.
"""

from convjax.cli import run_experiment
from convjax.models import ConvNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=ConvNet(stage_widths=(8, 16, 16), depth=3, stem_stride=2),
    data=DataConfig(name="fashion_mnist", examples=2000),
    optim=OptimConfig(lr=0.1, warmup="1 epochs"),
    train=TrainConfig(length="5 epochs", batch_size=64, evaluate_every="5 epochs", log_every=1),
)

axes = {
    "model.norm": ["batch", "group", "layer", "none"],
    "batch": {str(size): {"train.batch_size": size, "optim.lr": 0.1 * size / 64} for size in (4, 32, 256)},
    "seed": range(3),
}

if __name__ == "__main__":
    run_experiment(__file__)
