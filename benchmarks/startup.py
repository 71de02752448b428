"""Times a command from its start to the first step of ResNet-20 on CIFAR-10: the first time, and from what that kept.

    TFDS_DATA_DIR=... python benchmarks/startup.py [--repeats 3] [--data cifar10_jpeg]

Each repeat begins with an empty directory for what convjax keeps between processes ($XDG_CACHE_HOME). Seconds until
the first step is logged, by the clock and of the processors (which other processes hardly change), and ratios.
Processor seconds of `convjax --help` besides.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONVJAX = Path(sys.executable).with_name("convjax")


def first_step(data: str, directory: Path, caches: Path) -> tuple[float, float]:
    """Returns seconds by the clock, and of the processors, from a command to its first step."""
    flags = ["--data.name", data, "--train.length", "64000 steps", "--train.log-every", "1"]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [CONVJAX, "train", ROOT / "experiments" / "cifar10_resnet20.py", "--workdir", directory, *flags],
        env={**os.environ, "XDG_CACHE_HOME": str(caches)},
        stdout=subprocess.DEVNULL,
    )
    log = directory / "metrics.jsonl"
    while not (log.is_file() and log.stat().st_size):
        if process.poll() is not None:
            sys.exit(f"the command failed with exit code {process.returncode}")
        time.sleep(0.01)
    seconds = time.perf_counter() - begin
    process.kill()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # waited for here
    return seconds, used.ru_utime + used.ru_stime


def help_seconds() -> float:
    """Returns processor seconds of `convjax --help`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([CONVJAX, "--help"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", default="cifar10_jpeg")
    options = parser.parse_args()
    print(f"convjax --help: {statistics.median(help_seconds() for _ in range(5)):.3f} s of a processor")
    pairs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as temporary:
            caches = Path(temporary) / "caches"
            first, second = (first_step(options.data, Path(temporary) / run, caches) for run in ("first", "second"))
        pairs.append((first, second))
        ratios = (b / a for a, b in zip(first, second, strict=True))
        print(
            f"first {first[0]:.1f} s ({first[1]:.1f} s of processors), second {second[0]:.1f} s ({second[1]:.1f} s): "
            f"{' and '.join(f'{ratio:.2f}' for ratio in ratios)} of the first",
            flush=True,
        )
    for name, which in (("clock", 0), ("processors", 1)):
        print(f"{name}: median ratio {statistics.median(b[which] / a[which] for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()
