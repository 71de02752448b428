"""Trains by the real command with and without the allocator's settings in turn: images a second, and peak memory.

    python benchmarks/allocator.py [NETWORK ...] [--steps 40] [--repeats 5]

On synthetic 32 x 32 images, 128 a step. A line for each network: medians, and the ratio of each pair of runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from convjax.train.events import rates

CONVJAX = Path(sys.executable).with_name("convjax")
EXPERIMENT = """
from convjax.models import create
from convjax.train.config import Config, DataConfig, TrainConfig

config = Config(
    model=create("{network}", num_classes=10),
    data=DataConfig("synthetic", validation=0.0),
    train=TrainConfig(length="{steps} steps", batch_size=128, evaluate_every="{steps} steps", log_every={steps}),
)
"""


def run(experiment: Path, workdir: Path, **environment: str) -> tuple[float, float]:
    """Returns images a second from the end of the first step, and gigabytes that the process had at its peak."""
    command = [str(CONVJAX), "train", str(experiment), "--workdir", str(workdir)]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # waited for here
    if process.returncode:
        sys.exit(f"the command failed with exit code {process.returncode}")
    return max(rates(workdir).items())[1], used.ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["lenet5", "resnet20"], metavar="NETWORK")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for network in options.networks:
        with tempfile.TemporaryDirectory() as temporary:
            experiment = Path(temporary) / "experiment.py"
            experiment.write_text(EXPERIMENT.format(network=network, steps=options.steps))
            pairs = []
            for repeat in range(options.repeats):
                ways: dict[str, dict[str, str]] = {"off": {"CONVJAX_ALLOCATOR": "off"}, "on": {}}
                both = {
                    way: run(experiment, Path(temporary) / f"{way}{repeat}", **ways[way])
                    for way in sorted(ways, reverse=bool(repeat % 2))
                }
                pairs.append((both["off"], both["on"]))
        speeds = [on[0] / off[0] for off, on in pairs]
        print(
            f"{network:12} {statistics.median(off[0] for off, _ in pairs):8.0f} images/s without, "
            f"{statistics.median(on[0] for _, on in pairs):8.0f} with: {statistics.median(speeds):.2f} times "
            f"({min(speeds):.2f} to {max(speeds):.2f}); peak "
            f"{statistics.median(off[1] for off, _ in pairs):.2f} GB without, "
            f"{statistics.median(on[1] for _, on in pairs):.2f} GB with",
            flush=True,
        )


if __name__ == "__main__":
    main()
