import collections
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from torch_writer import Tensor, archive, pickled, stream

from convjax.errors import UsageError
from convjax.interop import torch_files

NUMBERS = np.arange(12, dtype=np.float32)
WRITERS: dict[str, Callable[[Path, bytes, dict[str, bytes]], Path]] = {"archive": archive, "stream": stream}
WHOLE = Tensor("FloatStorage", "0", 12, 0, (3, 4), (4, 1))


@pytest.mark.parametrize("layout", WRITERS)
def test_tensors_are_looks_at_storages(layout: str, tmp_path: Path) -> None:
    """Transposed, cut out and shared tensors, as PyTorch's own documentation defines strides and offsets."""
    content = collections.OrderedDict(
        whole=WHOLE,
        transposed=WHOLE._replace(shape=(4, 3), strides=(1, 4)),
        part=WHOLE._replace(offset=5, shape=(2, 2)),
        scalar=WHOLE._replace(offset=11, shape=(), strides=()),
        empty=WHOLE._replace(shape=(0, 4)),
        step=7,
    )
    path = WRITERS[layout](tmp_path / "x.pth", pickled(content, stream=layout == "stream"), {"0": NUMBERS.tobytes()})
    found = torch_files.read(path)
    matrix = NUMBERS.reshape(3, 4)
    np.testing.assert_array_equal(found["whole"], matrix)
    np.testing.assert_array_equal(found["transposed"], matrix.T)
    np.testing.assert_array_equal(found["part"], matrix[1:, 1:3])
    assert found["scalar"] == 11
    assert found["empty"].shape == (0, 4)
    assert found["step"] == 7


def test_bfloat16_and_integers(tmp_path: Path) -> None:
    half = np.array([1.5, -2.25], ml_dtypes.bfloat16)
    content = {"half": Tensor("BFloat16Storage", "0", 2, 0, (2,), (1,)), "n": Tensor("LongStorage", "1", 1, 0, (), ())}
    path = archive(tmp_path / "x.pth", pickled(content), {"0": half.tobytes(), "1": np.int64(2**40).tobytes()})
    found = torch_files.read(path)
    np.testing.assert_array_equal(found["half"].astype(np.float32), [1.5, -2.25])
    assert found["n"] == 2**40


class Calls:
    """Whose pickle calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(UsageError) as caught:
        torch_files.read(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__, os.remove])
def test_nothing_is_run(function: Callable[..., Any], layout: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("still here")
    content = pickled({"x": Calls(function, str(victim))}, stream=True)
    path = WRITERS[layout](tmp_path / "x.pth", content, {})
    refused(path, "calls", getattr(function, "__name__", ""), "could run anything")
    assert victim.read_text() == "still here"


def test_what_stands_before_the_state_dict_is_not_run_either(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps(Calls(os.system, "true"), protocol=2))
    refused(path, "system")


def test_a_known_function_cannot_be_changed(tmp_path: Path) -> None:
    # GLOBAL torch._utils._rebuild_tensor_v2, then BUILD with slots {"__call__": ...}, and with plain attributes.
    name = b"ctorch._utils\n_rebuild_tensor_v2\n"
    state = pickle.dumps((None, {"_call": 1}), protocol=2)[2:-1]
    refused(archive(tmp_path / "x.pth", b"\x80\x02" + name + state + b"b.", {}), "changes the functions")
    kind = b"ctorch\nFloatStorage\n"
    refused(archive(tmp_path / "y.pth", b"\x80\x02" + kind + state + b"b.", {}), "damaged")
    known = torch_files.read(archive(tmp_path / "z.pth", pickled({"x": WHOLE}), {"0": NUMBERS.tobytes()}))
    assert known["x"].shape == (3, 4)


@pytest.mark.parametrize(
    "tensor",
    [
        WHOLE._replace(offset=1),
        WHOLE._replace(offset=-1),
        WHOLE._replace(shape=(3, 5)),
        WHOLE._replace(strides=(5, 1)),
        WHOLE._replace(strides=(4, -1)),
        WHOLE._replace(shape=(10**12, 10**6), strides=(0, 0)),
        WHOLE._replace(shape=(3,)),
    ],
)
def test_a_tensor_stays_inside_of_its_storage(tensor: Tensor, tmp_path: Path) -> None:
    refused(archive(tmp_path / "x.pth", pickled({"x": tensor}), {"0": NUMBERS.tobytes()}), "tensor")


def test_damage_is_told(tmp_path: Path) -> None:
    content, storages = pickled({"x": WHOLE}), {"0": NUMBERS.tobytes()}
    refused(archive(tmp_path / "short.pth", content, {"0": NUMBERS.tobytes()[:-4]}), "storage 0", "44 bytes")
    refused(archive(tmp_path / "none.pth", content, {}), "damaged")
    refused(archive(tmp_path / "cut.pth", content[:-9], storages), "damaged")
    refused(archive(tmp_path / "packed.pth", content, storages, compressed=True), "compressed")
    old = stream(tmp_path / "old.pth", pickled({"x": WHOLE}, stream=True), storages)
    old.write_bytes(old.read_bytes()[:-1])
    refused(old, "truncated", "storage 0")
    for name, raw in (("empty.pth", b""), ("text.pth", b"not a pickle"), ("zeros.pth", bytes(100))):
        (tmp_path / name).write_bytes(raw)
        refused(tmp_path / name, "torch.save")
    refused(tmp_path / "nowhere.pth", "cannot be read")


def test_nested_lists_do_not_stand_for_endless_work(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested, nested]
    assert len(torch_files.read(archive(tmp_path / "x.pth", pickled({"x": nested}), {}))) == 1
