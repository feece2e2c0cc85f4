"""What a server has turned out to refuse: learnt once from a short question, so that no row pays for it.

Servers differ in which optional fields they take, and some answer 400 or 422 to a whole request for one field that they
do not know. Such a status says that the request is at fault, not which part of it. So the first time that it comes with
a given set of fields, a short harmless prompt is sent with the same fields: if that is refused too, the fields are to
blame, and each is tried by itself; else the row is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kun_builder.errors import FatalError

log = logging.getLogger(__name__)

Fields = dict[str, Any]
Accepts = Callable[[Fields], Awaitable[bool]]
"""Whether the server answers a short question with these fields and no others."""

_PAIR = {"logprobs", "top_logprobs"}  # the second is refused without the first
_COUNTS = ("top_logprobs", "logprobs", "top_n_tokens")
_FEW = 5
"""Alternatives per token that a server may take where it refuses more: the limit of the original protocols."""


class Refusals:
    """The fields that one server refuses, and the most alternatives per token that it gives."""

    def __init__(self, url: str) -> None:
        self.names: set[str] = set()
        self.lessons = 0
        """How often something was learnt. A request that was built at a lower count is worth repeating."""
        self._url = url
        self._few = False
        self._innocent: set[tuple[object, ...]] = set()
        self._lock = asyncio.Lock()

    def apply(self, fields: Fields) -> Fields:
        """The fields without those that the server refuses."""
        if not self.lessons:
            return fields
        kept = {name: value for name, value in fields.items() if name not in self.names}
        return _fewer(kept) if self._few else kept

    async def blame(self, fields: Fields, lessons: int, accepts: Accepts, kind: str = "") -> bool:
        """Find out whether `fields` are why the server refused a request; it was built at the count `lessons`.

        Returns True if something has been learnt about fields since: the caller builds the request again. Returns
        False if the input is to blame. `kind` is the route, since routes of a server differ in their fields. Raises
        FatalError if the server refuses even a short question without any of the fields.
        """
        shape: tuple[object, ...] = (kind, *sorted(fields), *(fields.get(name) for name in _COUNTS))
        shape += (len(fields.get("stop") or ()), *(repr(value) for value in fields.values() if isinstance(value, dict)))
        async with self._lock:
            if lessons != self.lessons:  # another request has found it out while this one was on its way
                return True
            if shape in self._innocent or await accepts(fields):
                self._innocent.add(shape)
                return False
            if not await accepts({}):
                raise FatalError(
                    f"{self._url} refuses even a short question",
                    endpoint=self._url,
                    hint="check `model` and `prompt` (chat or completion) of this model in the recipe",
                )
            await self._learn(fields, accepts)
            return True

    async def _learn(self, fields: Fields, accepts: Accepts) -> None:
        refused = {name for name in fields if name not in _PAIR and not await accepts(_only(fields, name))}
        if "logprobs" in fields and not await accepts(_only(fields, "logprobs")):
            refused |= _PAIR
        counts = {name for name in _COUNTS if name in refused and not isinstance(fields.get(name), bool)}
        if not self._few and any(fields.get(name, 0) > _FEW for name in counts):
            less = {name: _FEW for name in counts & fields.keys()}
            if await accepts({**_only(fields, "logprobs"), **less}):
                self._few = True
                refused -= counts | _PAIR
        self.names |= refused
        self.lessons += 1
        if refused:
            log.warning("%s refuses %s: left out from now on", self._url, ", ".join(sorted(refused & fields.keys())))


def _only(fields: Fields, name: str) -> Fields:
    names = _PAIR if name in _PAIR else {name}
    return {name: value for name, value in fields.items() if name in names}


def _fewer(fields: Mapping[str, Any]) -> Fields:
    counts = {name: min(fields[name], _FEW) for name in _COUNTS if name in fields and fields[name] is not True}
    return {**fields, **counts}
