"""Do residual and dense connections preserve information in deep networks? Plain, residual and dense at 8 to 56 layers.

    convjax sweep experiments/findings_depth.py --workdir sweeps/depth --jobs 2 --compare
    convjax compare sweeps/depth --metric train.accuracy

A dense network of L layers has L - 4 of 4 channels each in three blocks, a stem, two transitions and the classifier.
"""

from convjax.cli import run_experiment
from convjax.models import CifarResNet, DenseNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=CifarResNet(depth=8, width=8),
    data=DataConfig(name="cifar10_jpeg", image_size=16, examples=2500, validation=0.1),
    optim=OptimConfig(lr=0.05, warmup="20 steps"),
    train=TrainConfig(length="200 steps", batch_size=32, evaluate_every="200 steps", log_every=1),
)


def _dense(*block_sizes: int) -> DenseNet:
    return DenseNet(block_sizes=block_sizes, growth=4, stem_features=8, stem="cifar", bottleneck=False)


axes = {
    "model": {
        **{f"plain_{depth}": CifarResNet(depth=depth, width=8, shortcut="none") for depth in (8, 20, 32, 56)},
        **{f"residual_{depth}": CifarResNet(depth=depth, width=8) for depth in (8, 20, 32, 56)},
        "dense_8": _dense(1, 2, 1),
        "dense_20": _dense(5, 6, 5),
        "dense_32": _dense(9, 10, 9),
        "dense_56": _dense(17, 18, 17),
    },
    "seed": range(3),
}

if __name__ == "__main__":
    run_experiment(__file__)
