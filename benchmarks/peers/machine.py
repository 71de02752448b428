"""What a measurement was taken on."""

import os
import platform
import subprocess
from pathlib import Path

from peers.cases import Device


def describe(device: Device = "cpu") -> str:
    """Returns processor and number of cores, or the GPU and its driver, as the system tells them."""
    if device == "gpu":
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        name, driver = (
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[0].split(",")
        )
        return f"{name}, driver {driver.strip()}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    halves = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    kept = "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "no avx2"
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {', '.join([kept, *halves])}, Linux {platform.release().split('-')[0]}"
