"""Interprets the pickle of `torch.save` without building its objects.

Torch's weights-only reader runs no code of a file, but a few bytes can make it allocate or compute without
bound: a tensor larger than its storage, a tuple of tuples as a key, a bytearray of any size, many copies of
one long text. Here each instruction is interpreted on plain descriptions first, and anything that
`torch.save` does not write for tensors and plain values is refused.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

MAX_PICKLE_BYTES = 16_000_000
_MAX_INSTRUCTIONS = 1_000_000  # each can take some 100 bytes; a network of 14B has 40,000
_STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
    "torch.storage UntypedStorage": None,
}
_DTYPES = {
    str(value).replace(".", " "): value for value in vars(torch).values() if type(value) is torch.dtype
}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CALLABLES = {
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
}
_MAX_TENSORS = 100_000
_MAX_AXES = 8


@dataclass(frozen=True)
class Storage:
    """Values of a file that tensors refer to."""

    key: str
    num_bytes: int
    dtype: torch.dtype | None


@dataclass(frozen=True)
class PickledTensor:
    """A tensor that the pickle describes.

    Args:
        shape, dtype: its own.
        storage: holds its values; None where they are not its values as they are, but negated ones.
        offset, stride: location of the values in the storage, in elements.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: Storage | None = field(default=None, repr=False, compare=False)
    offset: int = field(default=0, repr=False, compare=False)
    stride: tuple[int, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class _Global:
    name: str


class _OrderedTable(dict):
    """An OrderedDict; unlike a dict it can have attributes."""

    __slots__ = ()


@dataclass
class Description:
    """The content of one pickle, with `PickledTensor` for each tensor.

    Args:
        value: the object that `torch.load` would return.
        storages: every storage by its key.
    """

    value: Any = None
    storages: dict[str, Storage] = field(default_factory=dict)


def describe(file: BinaryIO) -> Description:
    """Interpret one pickle up to its end.

    Args:
        file: positioned at the pickle's first byte, of which at most `MAX_PICKLE_BYTES` are left; afterwards
            at the byte after its last.
    Raises:
        ValueError: it is damaged, or would do anything but build tensors and plain values.
    """
    machine = _Machine()
    try:
        for number, (instruction, argument, _) in enumerate(pickletools.genops(file)):
            if number == _MAX_INSTRUCTIONS:
                raise ValueError(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions")
            machine.step(instruction.name, argument)
        machine.description.value = machine.stack[-1]
    except (IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError("its pickle is damaged") from error
    return machine.description


class _Machine:
    """The stack machine of pickle programs."""

    def __init__(self) -> None:
        self.description = Description()
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.num_tensors = 0

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name == "EMPTY_DICT":
            self.stack.append({})
        elif name in _TUPLES:
            self._push_tuple(_TUPLES[name])
        elif name == "TUPLE":
            self._push_tuple(len(self.stack) - self.marks.pop())
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            self._fill(name)
        elif name == "GLOBAL":
            self.stack.append(_Global(_checked_global(argument)))
        elif name == "BINPERSID":
            self.stack.append(self._storage(self.stack.pop()))
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(self._call(function, arguments))
        elif name == "BUILD":
            _check_attributes(self.stack.pop(), self.stack[-1])
        elif name == "PROTO":
            if argument != 2:
                raise ValueError(f"its pickle has protocol {argument}, expected 2")
        elif name != "STOP":
            raise ValueError(f"its pickle has the instruction {name}, which torch.save does not write")

    def _pop(self, count: int) -> list[Any]:
        if count < 0 or count > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise IndexError
        first = len(self.stack) - count
        values = self.stack[first:]
        del self.stack[first:]
        return values

    def _push_tuple(self, count: int) -> None:
        self.stack.append(tuple(self._pop(count)))

    def _fill(self, name: str) -> None:
        pairs = name.startswith("SETITEM")
        values = self._pop(len(self.stack) - self.marks.pop() if name.endswith("S") else 1 + pairs)
        target = self.stack[-1]
        if not isinstance(target, dict if pairs else list) or (pairs and len(values) % 2):
            raise TypeError
        if not pairs:
            target += values
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            # The hash of a tuple of tuples takes exponential time, and large numbers can have equal hashes.
            if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 2**31):
                raise ValueError(f"its pickle has a {type(key).__name__} as a key, expected text or a number")
            target[key] = value

    def _storage(self, identity: Any) -> Storage:
        kind, type_, key, _, num_elements, *view = identity
        if kind != "storage" or type(key) is not str or not _is_count(num_elements) or any(view):
            raise TypeError
        dtype = _STORAGES[type_.name]
        storage = Storage(key, num_elements * (dtype.itemsize if dtype else 1), dtype)
        if self.description.storages.setdefault(key, storage) != storage:
            raise ValueError("its pickle describes one storage in two ways")
        return storage

    def _call(self, function: Any, arguments: Any) -> Any:
        if type(function) is not _Global or type(arguments) is not tuple:
            raise TypeError
        name = function.name
        self.num_tensors += name.startswith("torch._utils")
        if self.num_tensors > _MAX_TENSORS:
            raise ValueError(f"its pickle has more than {_MAX_TENSORS} tensors")
        if name == "collections OrderedDict" and not arguments:
            return _OrderedTable()
        if name == "torch Size":
            return _sizes(*arguments)
        if name == "torch device" and 1 <= len(arguments) <= 2:
            return arguments[0]
        if name == "torch._utils _rebuild_parameter" and type(arguments[0]) is PickledTensor:
            return arguments[0]
        if name in ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"):
            return _tensor(*arguments[:4], dtype=arguments[0].dtype, flags=arguments[6:])
        if name == "torch._utils _rebuild_tensor_v3":
            dtype = _DTYPES[arguments[6].name]
            return _tensor(*arguments[:4], dtype=dtype, flags=arguments[7:])
        raise ValueError(f"its pickle calls {name.replace(' ', '.')} in a way that torch.save does not")


def _check_attributes(attributes: Any, target: Any) -> None:
    """Accept the versions of a state dict's modules alone: any other name could replace a method."""
    if type(target) is not _OrderedTable or not isinstance(attributes, dict):
        raise ValueError("its pickle sets attributes of what is not a state dict")
    if set(attributes) - {"_metadata"}:
        raise ValueError("its pickle gives a state dict other attributes than _metadata")


def _checked_global(name: str) -> str:
    if name not in _CALLABLES and name not in _STORAGES and name not in _DTYPES:
        raise ForbiddenGlobalError(name.replace(" ", "."))
    return name


class ForbiddenGlobalError(ValueError):
    """A pickle asks for something other than tensors and plain values; the text is its name."""


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _sizes(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or len(values) > _MAX_AXES or not all(map(_is_count, values)):
        raise TypeError
    return values


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *, dtype: torch.dtype | None, flags: tuple[Any, ...]
) -> PickledTensor:
    """A tensor over a storage that holds at least as many values as its shape; torch would enlarge others."""
    shape, stride, (offset,) = _sizes(shape), _sizes(stride), _sizes((offset,))
    if type(storage) is not Storage or dtype is None or len(shape) != len(stride):
        raise TypeError
    num_values, num_elements = storage.num_bytes // dtype.itemsize, math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if num_elements and (num_elements > num_values or last >= num_values):
        raise ValueError(f"its tensor {list(shape)} lies over {num_values} values, fewer than its shape")
    return PickledTensor(shape, dtype, None if any(flags) else storage, offset, stride)
