"""Do ConvNets live off neighbouring pixels? One fixed permutation of the pixels takes their neighbours away.

    convjax sweep experiments/findings_neighbours.py --workdir sweeps/neighbours --jobs 2 --compare

All images, those of the test split, too, are permuted by the same permutation: nothing that they hold is lost, and
a perceptron, which knows nothing of neighbours, learns as before. Both networks have 51,000 parameters.
"""

from convjax.cli import run_experiment
from convjax.models import MLP, ConvNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=MLP(hidden=(64,)),
    data=DataConfig(name="fashion_mnist", examples=5000),
    optim=OptimConfig(lr=0.05, warmup="20 steps"),
    train=TrainConfig(length="5 epochs", batch_size=64, evaluate_every="5 epochs"),
)

axes = {
    "model": {"convnet": ConvNet(stage_widths=(24, 47, 94), stem_stride=2), "mlp": MLP(hidden=(64,))},
    "pixels": {"in_order": {"data.crop.permute_pixels": None}, "permuted": {"data.crop.permute_pixels": 0}},
    "seed": range(3),
}

if __name__ == "__main__":
    run_experiment(__file__)
