r"""The CIFAR-10 speed record: Jordan's airbench94_muon (github.com/KellerJordan/cifar10-airbench, arXiv:2404.00498).

convjax train experiments/cifar10_speedrun.py --workdir runs/cifar10_speedrun
convjax eval runs/cifar10_speedrun --split test --views flip_shift

"""

from convjax.cli import run_experiment
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.models import AirBench
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

BATCH = 2000
LR, BIAS_LR, HEAD_LR = 0.24, 0.053 * BATCH, 0.67 * BATCH
HEAD = (16 * 3**0.5) ** 2

config = Config(
    model=AirBench(whitening_bias="uniform", logit_scale=3**0.5 / 16),
    data=DataConfig(
        name="cifar10",
        validation=0.0,
        augment=Augment(
            crop=RandomCrop(padding=2, border="reflect"), flip=HorizontalFlip(probability=0.5, alternate=True)
        ),
    ),
    optim=OptimConfig(
        name="muon_sgd",
        lr=LR,
        muon=("group*/conv*/kernel",),
        muon_steps=3,
        momentum=0.6,
        sgd_momentum=0.85,
        rates=(f"*/bias={BIAS_LR / LR:.9g}", f"head/kernel={HEAD_LR / HEAD / LR:.9g}"),
        weight_decay=2e-6 * BATCH / LR,
        decay_by_rates=False,
        decay=("*/bias", "head/kernel"),
        no_decay=("whiten/kernel", "group*/kernel"),
        ends=("whiten/bias=3 epochs",),
        schedule="linear",
    ),
    train=TrainConfig(length="8 epochs", batch_size=BATCH, label_smoothing=0.2),
)

if __name__ == "__main__":
    run_experiment(__file__)
