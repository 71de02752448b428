"""Files that PyTorch itself wrote."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convjax.interop import torch_files

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def torch() -> Any:
    return importlib.import_module("torch")


@pytest.mark.parametrize("archive", [True, False])
def test_what_torch_saves_is_read(torch: Any, archive: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.Linear(5, 2).bfloat16())
    base = torch.arange(24.0)
    content = {
        "state_dict": net.state_dict(),
        "parameter": torch.nn.Parameter(base.view(4, 6).t()),
        "part": base[3:9:2],
        "double": base.double(),
        "half": base.half(),
        "bool": base > 3,
        "epoch": 7,
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=archive)
    found = torch_files.read(tmp_path / "x.pth")
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(found["state_dict"][key].astype(np.float64), value.double().numpy())
    for key in ("parameter", "part", "double", "half", "bool"):
        np.testing.assert_array_equal(found[key], content[key].detach().numpy())
        assert found[key].dtype == content[key].detach().numpy().dtype
    assert found["epoch"] == 7
