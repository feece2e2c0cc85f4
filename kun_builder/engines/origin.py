"""Where answers come from: the name under which the journal keeps them, and a notice if a server has changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from kun_builder.cache import write_note
from kun_builder.types import Endpoint, ModelInfo, ModelSpec

log = logging.getLogger(__name__)

_NOTES = "servers.json"


def origins(spec: ModelSpec, info: ModelInfo, endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
    """What stands for the model's revision in the journal's keys: the revision itself, or, where the servers tell none,
    the address of each endpoint or the name of the `endpoints_file`.

    New answers are kept under the first origin and looked up under all, since a recipe that lists several endpoints
    declares that they serve the same model. For a server that kun-build starts itself, it is the revision in any case:
    the server has another address each time.
    """
    if info.revision or not (spec.endpoints or spec.endpoints_file):
        return (info.revision,)
    if spec.endpoints_file:
        return (f"at {spec.endpoints_file}",)
    return tuple(f"at {endpoint.url}" for endpoint in endpoints)


def notice_changes(
    folder: Path, spec: ModelSpec, known: Iterable[tuple[Endpoint, ModelInfo]], say: Callable[[str], None]
) -> None:
    """Say which server has another revision or fingerprint than when it was last asked; `folder` remembers them.

    A folder that cannot be written is no reason to stop: then nothing is remembered.
    """
    if not (spec.endpoints or spec.endpoints_file):
        return
    path = folder / _NOTES
    notes = _read(path)
    before = dict(notes)
    for endpoint, info in known:
        now, name = info.revision or info.fingerprint, f"{endpoint.url} {info.id}"
        if now and notes.get(name, now) != now:
            what = "its answers are asked for anew" if info.revision else "answers that it gave before are used again"
            say(f"model `{spec.name}`: {endpoint.url} was {notes[name]} and is {now} now; {what}")
        if now:
            notes[name] = now
    if notes != before:
        try:
            write_note(path, notes)
        except OSError:
            return


class Fingerprint:
    """The `system_fingerprint` of a server's answers; `last` is empty before the first one."""

    def __init__(self, url: str) -> None:
        self.last, self._url, self._changed = "", url, False

    def notice(self, answer: object) -> None:
        """Keep that of an answer, and warn when it is another one than before."""
        found = answer.get("system_fingerprint") if isinstance(answer, dict) else None
        if not isinstance(found, str) or found == self.last:
            return
        if self.last and not self._changed:
            self._changed = True  # once: behind some addresses there are many servers, which take turns
            log.warning("%s was %.80r and says now that it is %.80r", self._url, self.last, found)
        self.last = found


def _read(path: Path) -> dict[str, str]:
    try:
        notes = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}
