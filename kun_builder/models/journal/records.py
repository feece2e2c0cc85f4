"""Files of the journal: logs of records that only grow, and sorted indexes over logs that grow no more.

A record is `magic, length, CRC-32, key, payload`; the CRC covers length, key and payload. There is no file header: any
stretch of a log can be lost and every whole record around it is still found, by looking for the next magic.

An index is a JSON line (names of its logs, CRC-32), padded to 8 bytes, and two arrays of little-endian uint64: the
first 8 bytes of each key in ascending order, and where its record is (`log number << 40 | offset`). It is read through
a memory map, so that what is known takes no memory; whoever follows it checks key and CRC of the record itself.
Indexes of like size are merged, so that there are few, however many generations there are; a damaged one is made anew.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from kun_builder.files import replace_file

KEY_BYTES = 16
_MAGIC = b"\xd5KG1"
_HEAD = struct.Struct(f"<4sII{KEY_BYTES}s")
_COVERED = struct.Struct(f"<I{KEY_BYTES}s")
_OFFSET_BITS = 40
_FAN_IN = 8

U64 = npt.NDArray[np.uint64]


def encode(key: bytes, payload: bytes) -> bytes:
    """One record."""
    return _HEAD.pack(_MAGIC, len(payload), _checksum(key, payload), key) + payload


def read_record(fd: int, offset: int, key: bytes) -> bytes | None:
    """The payload of the record at `offset` if it is whole and has this key."""
    guess = os.pread(fd, 4096, offset)
    if len(guess) < _HEAD.size:
        return None
    magic, length, crc, found = _HEAD.unpack_from(guess)
    if magic != _MAGIC or found != key:
        return None
    payload = guess[_HEAD.size : _HEAD.size + length]
    if len(payload) < length:
        payload += os.pread(fd, length - len(payload), offset + len(guess))
    return payload if len(payload) == length and _checksum(key, payload) == crc else None


def _checksum(key: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_COVERED.pack(len(payload), key)))


@dataclass(frozen=True)
class Scan:
    """What a log holds: keys with the offsets of their records, and the byte ranges that are no whole record."""

    entries: list[tuple[bytes, int]]
    damage: list[tuple[int, int]]


def scan(path: Path) -> Scan:
    """Read a whole log. Every whole record is found, whatever lies before or after it."""
    entries: list[tuple[bytes, int]] = []
    damage: list[tuple[int, int]] = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return Scan(entries, damage)
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            at = 0
            for key, start, end in _records(data, size):
                if start > at:
                    damage.append((at, start))
                entries.append((key, start))
                at = end
            if data[at:size].strip(b"\0"):  # zeros were put there for what did not come any more
                damage.append((at, size))
    return Scan(entries, damage)


def grown(path: Path, start: int) -> bytes:
    """The bytes of a log from `start`, the end of a record or 0, to the end of its last whole record, also while a
    process writes to it; none if there is no further one."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= start:
            return b""
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            return data[start : max((end for _, _, end in _records(data, size, start)), default=start)]


def _records(data: mmap.mmap, size: int, at: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """The key, start and end of each whole record from `at` on, in the order of the file."""
    while at + _HEAD.size <= size:
        magic, length, crc, key = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if magic == _MAGIC and end <= size and _checksum(key, data[at + _HEAD.size : end]) == crc:
            yield key, at, end
            at = end
        else:
            at = data.find(_MAGIC, at + 1)
            if at < 0:
                return


def lock(fd: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Take the lock of an open file, kept until it is closed or its process ends; False if another has it."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def is_growing(log: Path) -> bool:
    """Whether a living process still writes to this log."""
    fd = os.open(log, os.O_RDONLY)
    try:
        return not lock(fd, shared=True)
    finally:
        os.close(fd)


@dataclass(frozen=True, eq=False)
class Index:
    """A sorted index over the logs named in `logs`, memory-mapped."""

    path: Path
    logs: tuple[str, ...]
    keys: U64
    places: U64

    def count(self, log: str) -> int:
        """How many records of the log of this name it knows."""
        if log not in self.logs:
            return 0
        return int(np.count_nonzero(self.places >> np.uint64(_OFFSET_BITS) == self.logs.index(log)))

    def find(self, key: bytes) -> list[tuple[str, int]]:
        """Log name and offset of every record whose key begins like `key`."""
        prefix = np.frombuffer(key, "<u8", 1)[0]
        at = int(self.keys.searchsorted(prefix))
        found = []
        while at < len(self.keys) and self.keys[at] == prefix:
            place = int(self.places[at])
            found.append((self.logs[place >> _OFFSET_BITS], place & ((1 << _OFFSET_BITS) - 1)))
            at += 1
        return found


def load_index(path: Path) -> Index | None:
    """Open an index; None if it is not as it was written."""
    with path.open("rb") as file:
        head = file.readline()
        crc = 0
        while part := file.read(1 << 20):
            crc = zlib.crc32(part, crc)
    try:
        header: dict[str, Any] = orjson.loads(head)
        logs = tuple(header["logs"])
        whole = header["crc"] == zlib.crc32("/".join(logs).encode(), crc)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if not whole:
        return None
    count = (path.stat().st_size - len(head)) // 16
    # A plain array over the map: numpy's own memmap class makes each search ten times slower.
    columns = (
        np.frombuffer(np.memmap(path, np.uint8, "r"), "<u8", 2 * count, len(head)) if count else np.empty(0, "<u8")
    )
    return Index(path, logs, columns[:count], columns[count:])


def index_log(log: Path, entries: Iterable[tuple[bytes, int]]) -> Path:
    """Write the index of one log beside it."""
    pairs = list(entries)
    keys = np.frombuffer(b"".join(key[:8] for key, _ in pairs), "<u8")
    places = np.fromiter((offset for _, offset in pairs), "<u8", len(pairs))
    path = log.with_suffix(".idx")
    _write_index(path, [log.name], keys, places)
    return path


def _write_index(path: Path, logs: Sequence[str], keys: U64, places: U64) -> None:
    order = np.argsort(keys, kind="stable")
    columns = keys[order].tobytes() + places[order].tobytes()
    crc = zlib.crc32("/".join(logs).encode(), zlib.crc32(columns))
    head = orjson.dumps({"logs": list(logs), "crc": crc})
    head += b" " * (-(len(head) + 1) % 8) + b"\n"
    replace_file(path, head, columns, private=True)


def merge_due(indexes: Sequence[Index]) -> list[Index]:
    """Indexes to merge now: the smallest eight or more of like size, or none."""
    tiers: dict[int, list[Index]] = {}
    for index in indexes:
        tiers.setdefault(max(0, (len(index.keys).bit_length() - 15) // 3), []).append(index)
    for _, tier in sorted(tiers.items()):
        if len(tier) >= _FAN_IN:
            return tier
    return []


def merge(folder: Path, indexes: Sequence[Index]) -> Path:
    """Replace `indexes` by one; what points into logs that are gone is left out. The caller has the folder's lock."""
    logs = sorted({name for index in indexes for name in index.logs if (folder / name).exists()})
    number = {name: at for at, name in enumerate(logs)}
    keys, places = [], []
    for index in indexes:
        renumber = np.array([number.get(name, -1) for name in index.logs], np.int64)
        new = renumber[(index.places >> np.uint64(_OFFSET_BITS)).astype(np.int64)]
        offsets = index.places & np.uint64((1 << _OFFSET_BITS) - 1)
        kept = new >= 0
        keys.append(index.keys[kept])
        places.append((new[kept].astype(np.uint64) << np.uint64(_OFFSET_BITS)) | offsets[kept])
    path = folder / f"{Path(logs[-1]).stem if logs else 'empty'}.merged{len(logs)}.idx"
    _write_index(path, logs, np.concatenate(keys), np.concatenate(places))
    for index in indexes:
        if index.path != path:
            index.path.unlink(missing_ok=True)
    return path
