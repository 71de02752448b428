"""What is measured: networks, what is done with them, and the systems that do it."""

import dataclasses
from typing import Literal, TypeAlias

Task: TypeAlias = Literal["train", "infer"]
"""One step of SGD with momentum on one batch, or the logits of one batch in evaluation mode."""
Precision: TypeAlias = Literal["float32", "bfloat16"]
"""What convolutions compute in; parameters are float32 everywhere."""
Device: TypeAlias = Literal["cpu", "gpu"]


@dataclasses.dataclass(frozen=True)
class Network:
    """Attributes:
    name: convjax's.
    batch: images of a step on a CPU.
    gpu_batch: images of a step on a GPU.
    image: height, width, channels.
    classes: number of logits.
    guess: seconds that a step may take, as long as none was measured.
    """

    name: str
    batch: int
    gpu_batch: int
    image: tuple[int, int, int]
    classes: int
    guess: float


NETWORKS = {
    network.name: network
    for network in (
        Network("lenet5", 128, 128, (32, 32, 1), 10, 0.05),
        Network("resnet20", 128, 128, (32, 32, 3), 10, 0.3),
        Network("resnet18_cifar", 128, 512, (32, 32, 3), 10, 2.0),
        Network("resnet50", 16, 128, (224, 224, 3), 1000, 2.5),
        Network("densenet121", 8, 64, (224, 224, 3), 1000, 2.5),
        Network("mobilenet_v2", 16, 128, (224, 224, 3), 1000, 2.5),
    )
}


@dataclasses.dataclass(frozen=True)
class Case:
    network: str
    task: Task
    precision: Precision
    device: Device = "cpu"

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the others on its device, in results as well."""
        return self.network, self.task, self.precision

    @property
    def batch(self) -> int:
        """Images of a step."""
        network = NETWORKS[self.network]
        return network.batch if self.device == "cpu" else network.gpu_batch

    def __str__(self) -> str:
        return f"{self.network} {self.task} {self.precision}"


@dataclasses.dataclass(frozen=True)
class System:
    """Attributes:
    name: as it stands in results.
    side: the module of this package that knows it.
    mode: what that module is to do.
    precisions: those that it is measured at.
    memory: whether the process takes memory by the settings of convjax's commands.
    torch: whether it needs the interpreter that has PyTorch.
    devices: where it is measured.
    """

    name: str
    side: str
    mode: str
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    memory: bool = True
    torch: bool = False
    devices: tuple[Device, ...] = ("cpu", "gpu")

    def measures(self, case: Case) -> bool:
        return case.precision in self.precisions and case.device in self.devices


SYSTEMS = {
    system.name: system
    for system in (
        System("convjax native", "convjax_side", "native", devices=("cpu",)),
        System("convjax pure", "convjax_side", "pure", devices=("cpu",)),
        System("convjax off", "convjax_side", "off", devices=("cpu",)),
        System("convjax", "convjax_side", "off", devices=("gpu",)),
        System("linen", "linen_side", "", memory=False),
        System("linen, same memory settings", "linen_side", "", devices=("cpu",)),
        System("torch eager", "torch_side", "eager", ("float32",), torch=True),
        System("torch compile", "torch_side", "compile", ("float32",), torch=True),
        System("torch autocast", "torch_side", "eager", ("bfloat16",), torch=True),
        System("torch autocast compile", "torch_side", "compile", ("bfloat16",), torch=True),
    )
}

OURS: dict[Device, str] = {"cpu": "convjax native", "gpu": "convjax"}
"""The system that is compared with others."""

MATRIX_MULTIPLY = System("matrix multiply", "matrix_side", "", torch=True)
"""What the machine can do at its best."""
MATRIX: dict[Device, int] = {"cpu": 2048, "gpu": 8192}
"""Rows and columns of its matrices."""
