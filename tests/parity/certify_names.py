"""Compares weights that are carried under other libraries' names than those of `certify.py`.

    python tests/parity/certify_names.py

needs timm and EfficientNet-PyTorch. Prints the largest difference of the logits relative to the largest logit.
"""

import sys
from typing import Any

import drawn
import efficientnet_pytorch
import jax
import numpy as np
import timm
import torch

from convjax.interop.torch_families import Library, differing_fields
from convjax.interop.torch_names import from_torch
from convjax.models import create

CASES: tuple[tuple[str, Library, str], ...] = (
    ("vgg11", "timm", "vgg11"),
    ("vgg11_bn", "timm", "vgg11_bn"),
    ("mobilenet_v2", "timm", "mobilenetv2_100"),
    ("mobilenet_v3_small", "timm", "mobilenetv3_small_100"),
    ("mobilenet_v3_large", "timm", "mobilenetv3_large_100"),
    ("convnext_tiny", "timm", "convnext_tiny"),
    ("efficientnet_b0", "timm", "efficientnet_b0"),
    ("efficientnet_b5", "timm", "efficientnet_b5"),
    ("efficientnet_b0", "lukemelas", "efficientnet-b0"),
)
BOUND = 1e-4


def differs_by(name: str, library: Library, there: str) -> float:
    size = 224
    net = timm.create_model(there) if library == "timm" else efficientnet_pytorch.EfficientNet.from_name(there)
    batch = drawn.evaluated_images(name)[:, :, :size, :size]
    with torch.no_grad():
        for key, p in net.named_parameters():
            low, high = (0.5, 1.5) if p.ndim == 1 and not key.endswith("bias") else (-0.25, 0.25)
            bound = (6 / p[0].numel()) ** 0.5
            p.copy_(
                torch.from_numpy(drawn.uniform(key, tuple(p.shape), *((low, high) if p.ndim == 1 else (-bound, bound))))
            )
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.momentum = 1.0
        net.train()(torch.from_numpy(batch))
        state_dict = {key: value.numpy().copy() for key, value in net.state_dict().items()}
        theirs = net.double().eval()(torch.from_numpy(batch).double()).numpy()
    model = create(name)
    model = model.clone(**differing_fields(model, library))
    variables = from_torch(model, state_dict, library=library)
    logits: Any = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, batch.transpose(0, 2, 3, 1))
    return float(np.abs(logits - theirs).max() / np.abs(theirs).max())


def main() -> None:
    failed = []
    for case in CASES:
        difference = differs_by(*case)
        print(f"{case[0]:20} {case[1]:10} {difference:.0e}", flush=True)
        failed += [" ".join(case[:2])] * (not difference <= BOUND)
    if failed:
        sys.exit(f"differ by more than {BOUND}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
