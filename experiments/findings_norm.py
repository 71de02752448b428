"""Does normalisation steady training? Batch, group, layer norm and none over learning rates spanning two decades.

    convjax sweep experiments/findings_norm.py --workdir sweeps/norm --jobs 2 --compare

Nine convolutions, one after the other. With norm "none" each norm is a bias. A run whose loss does not stay finite is
stopped, and counts as diverged.
"""

from convjax.cli import run_experiment
from convjax.models import ConvNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=ConvNet(stage_widths=(8, 16, 16), depth=3, stem_stride=2),
    data=DataConfig(name="fashion_mnist", examples=2000),
    optim=OptimConfig(lr=0.1),
    train=TrainConfig(length="5 epochs", batch_size=64, evaluate_every="5 epochs", log_every=1),
)

axes = {"model.norm": ["batch", "group", "layer", "none"], "optim.lr": [0.02, 0.2, 2.0], "seed": range(3)}

if __name__ == "__main__":
    run_experiment(__file__)
