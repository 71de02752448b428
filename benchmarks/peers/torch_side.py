"""PyTorch: eager or compiled, in float32 or under autocast to bfloat16; images and kernels channels last."""

import contextlib
from collections.abc import Iterator

import torch

from peers import batch
from peers.cases import NETWORKS, Case
from peers.side import Prepared
from peers.torch_networks import network


@contextlib.contextmanager
def prepared(case: Case, mode: str) -> Iterator[Prepared]:
    """Prepares a case; `mode` is eager or compile."""
    described = NETWORKS[case.network]
    torch.manual_seed(0)
    device = "cuda" if case.device == "gpu" else "cpu"
    # Layers are tried out before one is chosen, as XLA does by default.
    torch.backends.cudnn.benchmark = True
    net = network(described.name, described.classes).to(device)
    run = torch.compile(net) if mode == "compile" else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images, labels = batch.normalised(case)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).to(device)
    y = torch.from_numpy(labels).long().to(device)
    half = torch.autocast(device, torch.bfloat16, enabled=case.precision == "bfloat16")

    def advance() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with half:
            loss = torch.nn.functional.cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def ask() -> torch.Tensor:
        with torch.inference_mode(), half:
            return run(x)

    if case.task == "infer":
        net.eval()
    yield Prepared(
        step=advance if case.task == "train" else ask,
        wait=lambda computed: computed.ravel()[0].item(),
        parameters=sum(p.numel() for p in net.parameters()),
        peak=torch.cuda.max_memory_allocated if case.device == "gpu" else None,
    )
