"""Why not a plain network on pixels? A multilayer perceptron against ConvNets of equal size and of equal work.

    convjax sweep experiments/findings_pixels.py --workdir sweeps/pixels --jobs 2 --compare

The perceptron has 197,386 parameters, and takes 197,248 multiply-accumulates an image. One ConvNet has as many
parameters to 0.2 %, the other as many multiply-accumulates to 0.5 %.
"""

from convjax.cli import run_experiment
from convjax.models import MLP, ConvNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=MLP(hidden=(64,)),
    data=DataConfig(name="cifar10_jpeg", examples=5000),
    optim=OptimConfig(lr=0.05, warmup="20 steps"),
    train=TrainConfig(length="5 epochs", batch_size=64, evaluate_every="5 epochs", log_every=1),
)

axes = {
    "model": {
        "mlp": MLP(hidden=(64,)),
        "convnet_of_equal_parameters": ConvNet(stage_widths=(46, 93, 185), stem_stride=2),
        "convnet_of_equal_products": ConvNet(stage_widths=(4, 14, 68), stem_stride=2),
    },
    "seed": range(3),
}

if __name__ == "__main__":
    run_experiment(__file__)
