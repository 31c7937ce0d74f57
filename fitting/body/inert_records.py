"""Unpickling that runs nothing: every class and function that a pickle names becomes an inert record.

A pickle can call any function that it names, and fill any object that it makes. Here what it names is replaced by a
`Record` of the arguments, the state and the contents; a `Rebuilder` of the format at hand turns records into values
afterwards (`inert_pickle` arrays, pipelines/files/torch_files tensors). What is hashed on the way, keys and elements of
sets, is looked at first: a tuple that is nested deeply, or holds itself many times over, would end the interpreter.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, ClassVar

_LARGEST_KEY = 1000
"""Values within a tuple that is a key; released files have keys of two or three."""
_SCALARS = (str, bytes, bytearray, int, float, complex, bool, type(None))


class Record:
    """What a pickle says about one object: its class, the arguments of its construction, its state, its contents."""

    source = ""

    def __new__(cls, *args: Any, **_named: Any) -> Record:
        self = object.__new__(cls)
        self.args, self.state = args, None
        self.pairs: list[tuple[Any, Any]] = []
        self.elements: list[Any] = []
        return self

    def __init__(self, *_args: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    # Pickles fill objects that derive from containers through these.
    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs.append((key, value))

    def append(self, value: Any) -> None:
        self.elements.append(value)

    def extend(self, values: Iterable[Any]) -> None:
        self.elements.extend(values)

    def add(self, value: Any) -> None:
        self.elements.append(value)


def unpickle(
    stream: BinaryIO, refuse: Callable[[str], None] | None = None, outside: Callable[[Any], Any] | None = None
) -> Any:
    """The tree of a pickle: plain values, dictionaries, lists, tuples, sets, and a Record for all else.

    `refuse` raises for names (module.name) that are not admitted; `outside` gives what a persistent id stands for.
    Raises whatever damaged bytes happen to mean.
    """
    return _Unpickler(stream, refuse, outside).load()


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler in Python: that in C hashes keys and makes room for claimed sizes before anyone can look.

    Its steps are overridden where something is hashed.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(
        self, stream: BinaryIO, refuse: Callable[[str], None] | None, outside: Callable[[Any], Any] | None
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self._refuse, self._outside = refuse, outside
        self._kinds: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str) -> type[Record]:
        full = f"{module}.{name}"
        if full not in self._kinds:
            if self._refuse is not None:
                self._refuse(full)
            # Classes of this reading alone: a pickle may set attributes of what it is given.
            self._kinds[full] = type("Record", (Record,), {"source": full})
        return self._kinds[full]

    def persistent_load(self, pid: Any) -> Any:
        if self._outside is None:
            raise pickle.UnpicklingError("data outside the pickle")
        return self._outside(pid)

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"extension {code}")

    def load_setitem(self) -> None:
        check_key(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        for key in self.stack[::2]:
            check_key(key)
        super().load_setitems()

    def load_dict(self) -> None:
        for key in self.stack[::2]:
            check_key(key)
        super().load_dict()

    def load_additems(self) -> None:
        for element in self.stack:
            check_key(element)
        super().load_additems()

    def load_frozenset(self) -> None:
        for element in self.stack:
            check_key(element)
        super().load_frozenset()

    def load_bytearray8(self) -> None:
        """Python's own fills as much memory as the length claims before it reads."""
        length = int.from_bytes(self.read(8), "little")
        data = self.read(length)
        if len(data) != length:
            raise pickle.UnpicklingError(f"{length} bytes are promised, {len(data)} are there")
        self.append(bytearray(data))

    for _opcode, _step in (
        (pickle.BYTEARRAY8, load_bytearray8),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict),
        (pickle.ADDITEMS, load_additems),
        (pickle.FROZENSET, load_frozenset),
    ):
        dispatch[_opcode[0]] = _step


def check_key(key: Any) -> None:
    """Raises ValueError for what cannot be hashed in few steps."""
    waiting, seen = [key], 0
    while waiting:
        value, seen = waiting.pop(), seen + 1
        if isinstance(value, (tuple, frozenset)):
            waiting.extend(value)
        if seen + len(waiting) > _LARGEST_KEY:
            raise ValueError("a key of too many parts")


class Rebuilder:
    """Turns the records of a tree into values, each object that the pickle shares once."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, Any]] = {}  # with the object itself, whose id must not be given anew
        self._open: set[int] = set()

    def record(self, record: Record) -> Any:
        """What a record stands for."""
        raise NotImplementedError

    def value(self, item: Any) -> Any:
        """What an item of the tree stands for. Raises ValueError for objects that contain themselves."""
        if isinstance(item, _SCALARS):
            return item
        if id(item) in self._done:
            return self._done[id(item)][1]
        if id(item) in self._open:
            raise ValueError("an object contains itself")
        self._open.add(id(item))
        if isinstance(item, Record):
            result = self.record(item)
        elif isinstance(item, dict):
            result = self.dictionary(item.items())
        elif isinstance(item, (list, tuple, set, frozenset)):
            result = self._elements(item, type(item))
        else:
            result = self.other(item)
        self._open.remove(id(item))
        self._done[id(item)] = item, result
        return result

    def other(self, item: Any) -> Any:
        """What neither a record nor a plain value stands for."""
        return item

    def dictionary(self, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        """Of (key, value) pairs."""
        found = {}
        for key, element in pairs:
            key = self.value(key)
            check_key(key)
            found[key] = self.value(element)
        return found

    def builtin(self, record: Record) -> Any:
        """A list, tuple, set, dictionary or number of Python that a pickle spells as a call; KeyError for all else."""
        kind = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict, "OrderedDict": dict}[
            record.source.removeprefix("builtins.").removeprefix("__builtin__.").removeprefix("collections.")
        ]
        if kind is dict:
            pairs = record.args[0] if record.args else ()
            return self.dictionary([*(pairs.items() if isinstance(pairs, dict) else pairs), *record.pairs])
        return self._elements([*(record.args[0] if record.args else ()), *record.elements], kind)

    def _elements(self, items: Iterable[Any], kind: type) -> Any:
        values = [self.value(element) for element in items]
        if kind in (set, frozenset):
            for element in values:
                check_key(element)
        return values if kind is list else kind(values)
