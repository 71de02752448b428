"""The experiment that `convjax train` is timed on: LeNet-5 on Fashion-MNIST."""

from convjax.data.augment import Augment
from convjax.models import LeNet5
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=LeNet5(num_classes=10),
    # As large a share as the test split of the other sides: one image evaluated for six trained on.
    data=DataConfig(name="fashion_mnist", validation=1 / 7, augment=Augment()),
    optim=OptimConfig(lr=0.05),
    train=TrainConfig(length="1 epochs", batch_size=128),
)
