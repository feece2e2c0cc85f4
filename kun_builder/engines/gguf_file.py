"""The metadata at the head of a GGUF file: architecture, vocabulary, merges, chat template.

Read here and not by the `gguf` package, whose reader makes an array object of each string: for the 150,000 tokens of a
Qwen vocabulary it took 24 s on a busy machine where this takes a quarter of a second. Format: docs/gguf.md of
ggml-org/ggml, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from kun_builder.errors import ModelError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


def read_metadata(path: Path) -> dict[str, Any]:
    """All key-value pairs of the file. Raises ModelError, with the byte, for a file that is not GGUF or is cut off."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file", hint="`model` of the llamacpp engine takes GGUF files only")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as blob:
            reader = _Reader(blob)
            try:
                return reader.pairs()
            except (struct.error, UnicodeDecodeError, KeyError, RecursionError) as error:
                raise ModelError(f"{path} is damaged at byte {reader.at}: {error!r}") from error


class _Reader:
    def __init__(self, blob: mmap.mmap) -> None:
        self._blob = blob
        self.at = 4

    def pairs(self) -> dict[str, Any]:
        version, _, count = self._unpack("<IQQ")
        if version not in {2, 3}:
            raise struct.error(f"version {version} is not 2 or 3")
        return {self._string(): self._value(self._unpack("<I")[0]) for _ in range(count)}

    def _unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._blob, self.at)
        self.at += struct.calcsize(form)
        return values

    def _string(self) -> str:
        (length,) = self._unpack("<Q")
        if self.at + length > len(self._blob):
            raise struct.error("the file ends within a string")
        self.at += length
        return self._blob[self.at - length : self.at].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._unpack(_SCALARS[kind])[0]
        kind, count = self._unpack("<IQ")
        if kind in _SCALARS:
            return list(self._unpack(f"<{count}{_SCALARS[kind][1]}"))
        return [self._value(kind) for _ in range(count)]
