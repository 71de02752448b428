"""Small filters and deep stacks, or large filters? Kernels of 3, 5, 7 and dilated ones at equal parameters.

    convjax sweep experiments/findings_kernels.py --workdir sweeps/kernels --jobs 2 --compare

Two 3x3 convolutions, one 5x5 and a dilated 3x3 all see 5 x 5 pixels; three 3x3 and one 7x7 see 7 x 7 (Simonyan and
Zisserman 2014, arXiv:1409.1556, section 2.3). The widths are such that all networks have 19,000 to 20,000 parameters.
"""

from convjax.cli import run_experiment
from convjax.models import ConvNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=ConvNet(stage_widths=(32, 64)),
    data=DataConfig(name="cifar10_jpeg", image_size=16, examples=2500),
    optim=OptimConfig(lr=0.05, warmup="20 steps"),
    train=TrainConfig(length="5 epochs", batch_size=64, evaluate_every="5 epochs", log_every=1),
)

axes = {
    "model": {
        "3x3": ConvNet(stage_widths=(32, 64)),
        "3x3_two_deep": ConvNet(stage_widths=(17, 34), depth=2),
        "3x3_three_deep": ConvNet(stage_widths=(13, 26), depth=3),
        "5x5": ConvNet(stage_widths=(19, 38), kernel_size=5),
        "7x7": ConvNet(stage_widths=(13, 26), kernel_size=7),
        "3x3_dilated_by_2": ConvNet(stage_widths=(32, 64), dilation=2),
    },
    "seed": range(3),
}

if __name__ == "__main__":
    run_experiment(__file__)
