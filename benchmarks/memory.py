"""Memory of a training step of ResNet-50 at 224 pixels, by XLA's own analysis; nothing is computed.

    python benchmarks/memory.py [--batch 256]

For each way to save memory: what a device holds at the peak of a step, which is its part of state and batch, plus
what is live in between, as the compiler of this machine's devices plans it: an accelerator's, where there is one. Ways
for eight devices are left out where there are fewer; JAX_PLATFORMS=cpu has eight.
"""

import argparse
import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import numpy as np

from convjax.data.loader import Batch, Streamed
from convjax.data.sources import Split
from convjax.data.splits import DataInfo, Normalise
from convjax.models import resnet
from convjax.train.config import Config, OptimConfig, ParallelConfig, TrainConfig
from convjax.train.evaluate import build
from convjax.train.parallel import Advance, Placement

INFO = DataInfo(
    name="imagenet",
    version="5.1.0",
    image=(224, 224, 3),
    class_names=tuple(map(str, range(1000))),
    examples={"train": 1_281_167, "validation": 0, "test": 50_000},
    normalise=Normalise((0.5,) * 3, (0.25,) * 3),
    fingerprint={},
)
ONE = ParallelConfig(devices=1)
EIGHT = ParallelConfig(devices=8)


@dataclasses.dataclass(frozen=True)
class Way:
    name: str
    parallel: ParallelConfig = ONE
    accumulate: int = 1
    fields: tuple[tuple[str, Any], ...] = ()


def peak(batch: int, way: Way) -> tuple[float, float, float]:
    """Returns gigabytes of one device: state and batch, what is live in between at the most, and both."""
    config = Config(
        model=resnet.ResNet(num_classes=1000, **dict(way.fields)),
        optim=OptimConfig(name="adamw", lr=1e-3),
        train=TrainConfig(batch_size=batch, accumulate=way.accumulate),
        parallel=way.parallel,
    )
    placement = Placement.of(config)
    step, shapes = build(config, INFO, placement)
    nothing = Split(np.zeros((0, 224, 224, 3), np.uint8), np.zeros(0, np.int32))
    advance = Advance(placement, step, Streamed(nothing, placement), shapes)

    def rows(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placement.divided)

    given: Any = Batch(rows((batch, 224, 224, 3), np.uint8), rows((batch,), np.int32), rows((batch,), np.int32))
    found = advance.lower(shapes, given).compile().memory_analysis()
    # The new state takes the place of the old one, which is donated.
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return held / 1e9, found.temp_size_in_bytes / 1e9, (held + found.temp_size_in_bytes) / 1e9


WAYS = (
    Way("one device"),
    Way("one device, --model.remat", fields=(("remat", True),)),
    Way("one device, --model.dtype bfloat16", fields=(("dtype", "bfloat16"),)),
    Way("one device, --model.dtype bfloat16 --model.remat", fields=(("dtype", "bfloat16"), ("remat", True))),
    Way("one device, --train.accumulate 8", accumulate=8),
    Way("one device, --train.accumulate 8 --model.remat", accumulate=8, fields=(("remat", True),)),
    Way("each of eight devices", EIGHT),
    Way("each of eight, --parallel.shard-optimizer", ParallelConfig(devices=8, shard_optimizer=True)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="images a step, over all devices (default 256)")
    batch = parser.parse_args().batch
    print(f"ResNet-50, 224 pixels, batch {batch}, AdamW; GB by the compiler for {jax.devices()[0].device_kind}\n")
    print("| | state and batch | in between | peak |\n|---|---:|---:|---:|")
    ways = [way for way in WAYS if way.parallel == ONE or jax.device_count() >= 8]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for way, (held, between, both) in zip(ways, pool.map(lambda way: peak(batch, way), ways), strict=True):
            print(f"| {way.name} | {held:.2f} | {between:.2f} | {both:.2f} |", flush=True)


if __name__ == "__main__":
    main()
