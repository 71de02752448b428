"""What does pooling do to shift invariance? Max, average, strided convolution and none.

    convjax sweep experiments/findings_pooling.py --workdir sweeps/pooling --jobs 2 --compare
    convjax eval sweeps/pooling/runs/RUN --shift 4

The classifier sees each pixel of the last stage, as LeNet's does: a mean over all pixels would be shift-invariant by
itself. The networks have the same parameters, but for "none", whose classifier sees 16 times as many pixels.
"""

from convjax.cli import run_experiment
from convjax.models import ConvNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=ConvNet(stage_widths=(8, 16, 16), head="flat"),
    data=DataConfig(name="fashion_mnist", examples=3000),
    optim=OptimConfig(lr=0.1, warmup="20 steps"),
    train=TrainConfig(length="6 epochs", batch_size=64, evaluate_every="6 epochs"),
)

axes = {"model.pool": ["max", "average", "strided", "none"], "seed": range(3)}

if __name__ == "__main__":
    run_experiment(__file__)
