"""`.kun/manifest.json` as a repository has it: checked before anything in it is used.

Whoever may write to a repository wrote it. Names become folders and patterns here, so they are plain names; paths stay
in the repository; what it refers to is there.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kun_builder.errors import PublishError

MANIFEST = ".kun/manifest.json"
FORMAT = 1

_Split = Annotated[str, Field(pattern=r"^\w+(\.\w+)*$", max_length=200)]
_Run = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Path = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^\\\x00-\x1f]*$", max_length=500)]
_Lock = Annotated[str, Field(pattern=r"^(recipe\.lock\.yaml|\.kun/[0-9a-f]{16}\.lock\.yaml)$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")  # a later version may say more


class _FileEntry(_Facts):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    git: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    size: _Count


class _StepCounts(_Facts):
    label: str
    stage: str
    rows_in: _Count
    rows_out: _Count
    created: _Count = 0
    dropped: dict[str, _Count] = {}
    quarantined: dict[str, _Count] = {}


class _Report(_Facts):
    source: str
    read: _Count
    kept: _Count
    stages: list[_StepCounts]


class _Config(_Facts):
    path: str
    features: dict[str, Any]
    bytes: _Count
    download: _Count


class _SplitEntry(_Facts):
    run: _Run
    report: _Report
    stats: dict[str, Any]
    withheld: bool
    license: str
    files: Annotated[list[_Path], Field(min_length=1)]
    configs: dict[str, _Config]


class _Step(_Facts):
    label: str
    stage: str
    package: str
    package_version: str
    version: str
    options: dict[str, Any]


class _Model(_Facts):
    id: str
    revision: str


class _Usage(_Facts):
    stage: str
    model: str
    requests: _Count
    prompt_tokens: _Count
    completion_tokens: _Count
    cost: float


class _RunEntry(_Facts):
    name: str
    version: str
    created: str
    lock: _Lock
    steps: list[_Step]
    models: dict[str, _Model]
    usage: list[_Usage] = []
    seconds: float = 0.0
    machine: str = ""
    hardware: str = ""


class _Release(_Facts):
    run: str


class _Manifest(_Facts):
    files: dict[str, _FileEntry]
    splits: dict[_Split, _SplitEntry]
    runs: dict[_Run, _RunEntry]
    releases: list[_Release]
    notes: dict[str, str] = {}


def read_manifest(content: bytes) -> dict[str, Any]:
    """A manifest of ours. Raises PublishError for one that this version cannot read, naming what is wrong in it."""
    try:
        manifest: dict[str, Any] = orjson.loads(content)
        version = manifest["format"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise PublishError(f"{MANIFEST} in the repository is not a manifest of kun-builder") from error
    if version != FORMAT:
        raise PublishError(
            f"the repository was last published by another version of kun-builder (manifest format {version!r})",
            hint="publish with a kun-builder at least as new as that one",
        )
    try:
        _check_references(_Manifest.model_validate(manifest))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise _wrong(f"{place!r}: {first['msg']}") from error
    return manifest


def _check_references(manifest: _Manifest) -> None:
    """What splits refer to is there, and no path climbs out of the repository."""
    for name, split in manifest.splits.items():
        if split.run not in manifest.runs:
            raise _wrong(f"split {name!r} is of a run that it does not have")
        for path in split.files:
            if path not in manifest.files or ".." in path.split("/"):
                raise _wrong(f"split {name!r} has no file {path!r}")


def _wrong(what: str) -> PublishError:
    return PublishError(
        f"{MANIFEST} in the repository is not one that kun-builder wrote: {what}",
        hint="restore it from an earlier commit of the repository, or publish into another one",
    )
