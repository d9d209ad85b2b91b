"""An immutable map with cheap successors: what a batch does not touch is shared with the old one.

The keys are spread over buckets. A draft copies a bucket when it first changes it, so that a batch
costs what it changes, and readers of the old map never see a part of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Final, Generic, TypeVar, cast, overload

from typing_extensions import override  # typing has it from Python 3.12 on

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

_BUCKETS: Final = 256
_MASK: Final = _BUCKETS - 1
_EMPTY: Final[dict[object, object]] = {}


class Frozen(Mapping[K, V]):
    """A map that never changes; iterated in no order."""

    __slots__ = ("_buckets", "_size")

    def __init__(self, buckets: list[dict[K, V]] | None = None, size: int = 0) -> None:
        self._buckets = buckets or [cast("dict[K, V]", _EMPTY)] * _BUCKETS
        self._size = size

    @override
    def __getitem__(self, key: K) -> V:
        return self._buckets[hash(key) & _MASK][key]

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V, /) -> V: ...
    @overload
    def get(self, key: K, default: D, /) -> V | D: ...
    @override
    def get(self, key: K, default: object = None, /) -> object:
        """Return the value of a key, or the default."""
        return self._buckets[hash(key) & _MASK].get(key, default)

    @override
    def __iter__(self) -> Iterator[K]:
        for bucket in self._buckets:
            yield from bucket

    @override
    def __len__(self) -> int:
        return self._size

    def draft(self) -> Draft[K, V]:
        """Return a copy that can be changed, and in the end frozen."""
        return Draft(self._buckets, self._size)


class Draft(Generic[K, V]):
    """The successor of a frozen map, while it is being made."""

    __slots__ = ("_buckets", "_own", "_size")

    def __init__(self, buckets: list[dict[K, V]], size: int) -> None:
        self._buckets = list(buckets)
        self._own = bytearray(_BUCKETS)
        self._size = size

    def get(self, key: K) -> V | None:
        """Return the value of a key as it is by now, or None."""
        return self._buckets[hash(key) & _MASK].get(key)

    def put(self, key: K, value: V) -> None:
        """Set a key."""
        bucket = self._bucket(key)
        self._size -= len(bucket)
        bucket[key] = value
        self._size += len(bucket)

    def drop(self, key: K) -> None:
        """Remove a key, if it is there."""
        if key in self._buckets[hash(key) & _MASK]:
            del self._bucket(key)[key]
            self._size -= 1

    def freeze(self) -> Frozen[K, V]:
        """Return the map; the draft is of no further use."""
        return Frozen(self._buckets, self._size)

    def _bucket(self, key: K) -> dict[K, V]:
        number = hash(key) & _MASK
        if not self._own[number]:
            self._buckets[number] = self._buckets[number].copy()
            self._own[number] = 1
        return self._buckets[number]
