"""Writes files as torch.save does, without PyTorch, and such as it would never write."""

import contextlib
import io
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """A tensor that looks at the storage `key` of the type `kind`."""

    kind: str
    key: str
    size: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@contextlib.contextmanager
def pretended_torch() -> Iterator[dict[str, Any]]:
    """Makes modules that a pickler believes to be PyTorch's."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*arguments: Any) -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    for name in ("FloatStorage", "LongStorage", "BFloat16Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        yield {"rebuild": rebuild, **vars(torch)}
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def pickled(content: Any, *, stream: bool = False) -> bytes:
    """Returns the pickle of nested containers with `Tensor`s in them."""
    out = io.BytesIO()
    with pretended_torch() as torch:

        class Storage(NamedTuple):
            tensor: Tensor

        class Pickler(pickle.Pickler):
            def reducer_override(self, part: Any) -> Any:
                if isinstance(part, Tensor):
                    arguments: tuple[Any, ...] = (Storage(part), part.offset, part.shape, part.strides, False, {})
                    return torch["rebuild"], arguments
                return NotImplemented

            def persistent_id(self, part: Any) -> Any:
                if isinstance(part, Storage):
                    t = part.tensor
                    return ("storage", torch[t.kind], t.key, "cpu", t.size, *((None,) if stream else ()))
                return None

        Pickler(out, protocol=2).dump(content)
    return out.getvalue()


def archive(path: Path, content: bytes, storages: dict[str, bytes], *, compressed: bool = False) -> Path:
    """Writes the layout of PyTorch 1.6 and later."""
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as out:
        out.writestr("model/data.pkl", content)
        out.writestr("model/byteorder", "little")
        for key, raw in storages.items():
            out.writestr(f"model/data/{key}", raw)
    return path


def stream(path: Path, content: bytes, storages: dict[str, bytes], itemsize: int = 4) -> Path:
    """Writes the layout before PyTorch 1.6."""
    sizes = {"short": 2, "int": 4, "long": 4}
    head = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    parts = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, head)]
    parts += [content, pickle.dumps(list(storages), protocol=2)]
    parts += [np.int64(len(raw) // itemsize).tobytes() + raw for raw in storages.values()]
    path.write_bytes(b"".join(parts))
    return path
