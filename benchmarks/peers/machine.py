"""What a measurement was taken on."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """Returns processor and number of cores, as the system tells them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    halves = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    kept = "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "no avx2"
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {', '.join([kept, *halves])}, Linux {platform.release().split('-')[0]}"
