"""Reads files of PyTorch without PyTorch, and without running what is in them.

A file of `torch.save` is a pickle that names functions to call. Only those that put a tensor together are known
here, as constructors of our own; any other name is refused. Two layouts are read: the archive (zip) that PyTorch
writes since version 1.6, and the stream of pickles and raw storages that it wrote before.
"""

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import ml_dtypes
import numpy as np

from convjax.errors import UsageError
from convjax.interop.layout import Array

_MAGIC = 0x1950A86A20F9469CFC6C
"""What a stream begins with."""
_PROTOCOL = 1001
_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


def read(path: Path) -> Any:
    """Returns what a file of `torch.save` holds, with NumPy arrays in the place of tensors.

    Raises:
        UsageError: the file is no such file, is damaged, or holds more than tensors in dictionaries and lists.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_archive(archive)
        with path.open("rb") as file:
            return _read_stream(file)
    except _RefusedError as refused:
        raise UsageError(f"{path}: {refused}") from refused
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # the unpickler raises whatever damaged bytes make it trip over
        raise UsageError(f"{path} is no file of torch.save, or is damaged: {type(error).__name__}: {error}") from error


class _RefusedError(Exception):
    """The file is understood, and is not taken."""


class _Kind(NamedTuple):
    """The type of a storage's numbers, by PyTorch's name; unlike a NumPy dtype, nothing can be set on it."""

    name: str


class _Storage(NamedTuple):
    """Numbers that tensors look at, which a stream holds behind the pickle that names them."""

    key: str
    dtype: np.dtype[Any]
    size: int


class _Tensor(NamedTuple):
    """A look at a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, storages: Mapping[str, Array]) -> Array:
        """Returns a copy of the numbers that the tensor looks at.

        Raises:
            _RefusedError: it looks beyond its storage, or at more numbers than that has.
        """
        shape, strides = self.shape, self.strides
        numbers = storages[self.storage.key]
        ints = all(isinstance(n, int) and n >= 0 for n in (self.offset, *shape, *strides))
        if not ints or len(shape) != len(strides):
            raise _RefusedError(f"a tensor has shape {shape}, strides {strides} and offset {self.offset}")
        count = math.prod(shape)
        last = self.offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if count > numbers.size or (count and last >= numbers.size):
            raise _RefusedError(f"a tensor of shape {shape} looks beyond its storage of {numbers.size} numbers")
        if not count:
            return np.empty(shape, numbers.dtype)
        steps = tuple(stride * numbers.itemsize for stride in strides)
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], shape, steps).copy()


class _Constructor:
    """A function that a pickle may call; nothing can be set on it, as a pickle could on a function."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise _RefusedError("it changes the functions that it calls, which no tensor needs")

    def __setstate__(self, state: Any) -> NoReturn:
        raise _RefusedError("it changes the functions that it calls, which no tensor needs")


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,  # built in: nothing can be set on it
    ("torch._utils", "_rebuild_tensor"): _Constructor(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Constructor(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Constructor(lambda tensor, *_: tensor),
    ("torch", "Size"): _Constructor(tuple),
    **{("torch", name): _Kind(name) for name in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
    """Knows tensors and the containers of Python, and nothing else."""

    def __init__(self, file: BinaryIO | io.BytesIO, storages: dict[str, _Storage]) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _RefusedError(
                f"it calls {module}.{name}, which no tensor needs and which could run anything: "
                "save the state dict alone (torch.save(model.state_dict(), ...)), or as safetensors"
            )
        return _KNOWN[module, name]

    def persistent_load(self, name: Any) -> _Storage:
        what, kind, key, _, size, *_ = name
        if what != "storage" or not isinstance(kind, _Kind) or not isinstance(size, int) or size < 0:
            raise _RefusedError(f"it names something else than a storage: {name!r:.200}")
        return self._storages.setdefault(str(key), _Storage(str(key), _DTYPES[kind.name], size))


def _read_archive(archive: zipfile.ZipFile) -> Any:
    name = next((n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")), None)
    if name is None:
        raise _RefusedError("it is a zip archive without data.pkl: not what torch.save writes")
    root = name.removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist():
        _little_endian(_stored(archive, f"{root}byteorder") == b"little")
    storages: dict[str, _Storage] = {}
    content = _Unpickler(io.BytesIO(_stored(archive, name)), storages).load()
    arrays = {}
    for key, storage in storages.items():
        raw = _stored(archive, f"{root}data/{key}")
        if len(raw) != storage.size * storage.dtype.itemsize:
            raise _RefusedError(f"storage {key} has {len(raw)} bytes, not those of {storage.size} {storage.dtype}")
        arrays[key] = np.frombuffer(raw, storage.dtype)
    return _with_arrays(content, arrays)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Reads a member of an archive, which torch.save never compresses: so no small file unfolds to a huge one."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise _RefusedError(f"{name} in it is compressed, which torch.save never does")
    return archive.read(name)


def _read_stream(file: BinaryIO) -> Any:
    start = file.read(2)
    file.seek(0)
    if start != b"\x80\x02" or _Unpickler(file, {}).load() != _MAGIC:
        raise _RefusedError("it is no file of torch.save: neither an archive nor a stream of pickles")
    if (protocol := _Unpickler(file, {}).load()) != _PROTOCOL:
        raise _RefusedError(f"it has protocol {protocol!r:.50} of torch.save, {_PROTOCOL} is known")
    _little_endian(_Unpickler(file, {}).load().get("little_endian") is True)
    storages: dict[str, _Storage] = {}
    content = _Unpickler(file, storages).load()
    arrays = {}
    for key in map(str, _Unpickler(file, {}).load()):
        if key not in storages:
            raise _RefusedError(f"it holds a storage {key!r:.50} that no tensor looks at")
        storage = storages[key]
        size = int.from_bytes(file.read(8), "little")
        raw = file.read(storage.size * storage.dtype.itemsize) if size == storage.size else b""
        if len(raw) != storage.size * storage.dtype.itemsize:
            raise _RefusedError(f"it is truncated: storage {key} does not have its {storage.size} numbers")
        arrays[key] = np.frombuffer(raw, storage.dtype)
    return _with_arrays(content, arrays)


def _little_endian(little: bool) -> None:
    if not little:
        raise _RefusedError("it was written on a big-endian machine: save it as safetensors there")


def _with_arrays(content: Any, storages: Mapping[str, Array]) -> Any:
    """Returns nested containers with each tensor as an array."""
    done: dict[int, Any] = {}

    def walk(part: Any) -> Any:
        # What stands in many places is walked once: or else a few nested lists could stand for endless work.
        if id(part) not in done:
            done[id(part)] = changed(part)
        return done[id(part)]

    def changed(part: Any) -> Any:
        if isinstance(part, _Tensor):
            return part.array(storages)
        if isinstance(part, Mapping):
            return {key: walk(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [walk(value) for value in part]
        return part

    return walk(content)
