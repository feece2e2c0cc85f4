"""Seed data: pairs of instruction and answer, read from the usual forms, checked, and split for good.

    {"instruction": "...", "input": "...", "output": "..."}                         as Alpaca has them
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}
    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", ...}]}    as ShareGPT has them
    {"prompt": "...", "completion": "..."}                                          both may be lists of messages

Files are JSONL, a JSON array, or Parquet, read as those of a corpus are. `text` may hold the raw text that an answer
was polished from, `score` a quality to select by, `tag` whether a pair is `seed` or `augmented` (Humpback, arXiv
2308.06259).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from kun_builder.errors import TrainingError
from kun_builder.readers import Records
from kun_builder.readers.addresses import is_address, name_of, public
from kun_builder.readers.cursor import BROKEN_FILE, UNKNOWN_FORMAT
from kun_builder.types import Record

Tag = Literal["seed", "augmented"]

_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
_SHORTEST_LEAK = 8
"""Characters of an instruction, at least, for its appearance in the answer to count as a leak."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One instruction with its answer. `place` is `file:record`, counted from 1, for messages."""

    instruction: str
    output: str
    text: str = ""
    score: float | None = None
    tag: Tag = "seed"
    place: str = ""

    @property
    def digest(self) -> str:
        """Digest of both sides, blind to white space, width and case."""
        return _digest(_normal(self.instruction) + "\n" + _normal(self.output))


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that is not used: where it is, why (a fixed word), and what was measured."""

    place: str
    reason: str
    value: str = ""


@dataclass(frozen=True)
class Seeds:
    """What became of the seed files: pairs to train on, pairs held out, records refused."""

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    refused: tuple[Refused, ...]

    @property
    def read(self) -> int:
        """Records read; each is in exactly one of the three parts."""
        return len(self.train) + len(self.held_out) + len(self.refused)

    @property
    def reasons(self) -> dict[str, int]:
        """Number of refused records by reason, the most frequent first."""
        counts: dict[str, int] = {}
        for refused in self.refused:
            counts[refused.reason] = counts.get(refused.reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


def load_seeds(
    paths: Sequence[str | Path],
    *,
    held_out: float = 0.1,
    max_chars: int = 8000,
    min_score: float | None = None,
    max_pairs: int | None = None,
    seed: int = 0,
) -> Seeds:
    """Read, check, split and select.

    held_out: share kept away from training; which pairs is decided by a hash of the instruction, so that more seeds
        never move a pair across, and equal instructions are on the same side.
    max_chars: longest instruction or answer, in characters; tokens are counted when a tokenizer is known.
    min_score, max_pairs: train only on pairs with at least this `score`, and on the best so many of them.

    Raises TrainingError if a file cannot be read or no pair is left to train on.
    """
    refused: list[Refused] = []
    pairs = list(check_pairs(read_pairs(paths, refused), refused, max_chars=max_chars))
    train = [pair for pair in pairs if not is_held_out(pair, held_out, seed)]
    chosen = select(train, refused, min_score=min_score, max_pairs=max_pairs)
    if not chosen:
        files = ", ".join(str(path) for path in paths)
        raise TrainingError(
            f"no pair to train on in {files}: {len(refused)} records refused, {len(pairs) - len(train)} held out",
            hint="records need `instruction` and `output`, `messages`, or `prompt` and `completion`",
        )
    rest = tuple(pair for pair in pairs if is_held_out(pair, held_out, seed))
    return Seeds(tuple(chosen), rest, tuple(refused))


def read_pairs(paths: Sequence[str | Path], refused: list[Refused]) -> Iterator[Pair]:
    """Pairs of all files, as they come; records that are no pair go to `refused`."""
    for path in map(str, paths):
        for record in _records(path):
            place = f"{name_of(path)}:{record.index + 1}"
            if record.error or not isinstance(record.data, dict):
                refused.append(Refused(place, "unreadable", record.error or "no object"))
                continue
            pair = pair_of(record.data, place)
            if pair is None:
                refused.append(Refused(place, "unknown_form", ", ".join(map(str, record.data))[:80]))
            else:
                yield pair


def check_pairs(pairs: Iterable[Pair], refused: list[Refused], *, max_chars: int) -> Iterator[Pair]:
    """Pairs fit for training; the others go to `refused` as `empty`, `too_long`, `instruction_in_answer`, `duplicate`.

    A second instruction for an answer that was seen before is a duplicate as well: the label model would have to write
    both, and the same answer could end up on both sides of the split.
    """
    seen: dict[str, str] = {}
    for pair in pairs:
        reason, value = _fault(pair, max_chars)
        answer = _digest(_normal(pair.output))
        if not reason and answer in seen:
            reason, value = "duplicate", f"same answer as {seen[answer]}"
        if reason:
            refused.append(Refused(pair.place, reason, value))
        else:
            seen[answer] = pair.place
            yield pair


def is_held_out(pair: Pair, share: float, seed: int) -> bool:
    """Whether `pair` belongs to the held-out part: by a hash of its instruction alone."""
    digest = hashlib.sha256(f"{seed}\n{_normal(pair.instruction)}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def select(
    pairs: Sequence[Pair], refused: list[Refused], *, min_score: float | None, max_pairs: int | None
) -> list[Pair]:
    """The pairs of at least `min_score` (those without a score stay), at most `max_pairs` of them, the best first."""
    kept = []
    for pair in pairs:
        if min_score is not None and pair.score is not None and pair.score < min_score:
            refused.append(Refused(pair.place, "low_score", f"{pair.score:g}"))
        else:
            kept.append(pair)
    if max_pairs is None or len(kept) <= max_pairs:
        return kept
    best = sorted(kept, key=lambda pair: (pair.score is None, -(pair.score or 0.0), pair.digest))
    refused.extend(Refused(pair.place, "beyond_max_pairs") for pair in best[max_pairs:])
    chosen = set(map(id, best[:max_pairs]))
    return [pair for pair in kept if id(pair) in chosen]


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as JSONL that `read_pairs` reads back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for pair in pairs:
            row = {"instruction": pair.instruction, "output": pair.output, "tag": pair.tag, "place": pair.place}
            if pair.text:
                row["text"] = pair.text
            file.write(orjson.dumps(row if pair.score is None else row | {"score": pair.score}) + b"\n")


def _fault(pair: Pair, max_chars: int) -> tuple[str, str]:
    instruction, output = _normal(pair.instruction), _normal(pair.output)
    if not instruction or not output:
        return "empty", "instruction" if not instruction else "output"
    longest = max(len(pair.instruction), len(pair.output))
    if longest > max_chars:
        return "too_long", f"{longest} characters"
    if len(instruction) >= _SHORTEST_LEAK and instruction in output:
        return "instruction_in_answer", f"at character {output.index(instruction)}"
    return "", ""


def _records(path: str) -> Iterator[Record]:
    """Records of a file, or behind an address, as the engine reads those of a corpus. Raises TrainingError for what is
    no file of records, SourceError for an address that cannot be read."""
    if not is_address(path) and not Path(path).is_file():
        raise TrainingError(f"seed file {path} does not exist")
    for record in Records(path):
        if record.error.startswith((BROKEN_FILE, UNKNOWN_FORMAT)):
            raise TrainingError(
                f"seed file {public(path)} cannot be read from record {record.index + 1} on: {record.error}",
                hint="JSONL, JSON arrays and Parquet are read, also in gz, zst, tar and zip",
            )
        yield record


def pair_of(record: Mapping[str, Any], place: str) -> Pair | None:
    """The pair in a record of one of the usual forms, None in any other."""
    sides = _sides(record)
    if sides is None or not all(isinstance(side, str) for side in sides):
        return None
    text, score, tag = record.get("text"), record.get("score"), record.get("tag")
    return Pair(
        instruction=sides[0].strip(),
        output=sides[1].strip(),
        text=text if isinstance(text, str) else "",
        score=float(score) if isinstance(score, int | float) else None,
        tag="augmented" if tag == "augmented" else "seed",
        place=place,
    )


def _sides(record: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Instruction and answer of a record in any of the usual forms."""
    for name in ("messages", "conversations"):
        if isinstance(record.get(name), list):
            return _first_exchange(record[name])
    if "prompt" in record and "completion" in record:
        prompt, completion = record["prompt"], record["completion"]
        if isinstance(prompt, list) and isinstance(completion, list):
            return _first_exchange([*prompt, *completion])
        return prompt, completion
    if "instruction" in record and "output" in record:
        instruction, context = record["instruction"], record.get("input")
        joined = f"{instruction}\n\n{context}" if isinstance(context, str) and context.strip() else instruction
        return joined, record["output"]
    return None


def _first_exchange(messages: Sequence[Any]) -> tuple[str, str] | None:
    """The first question and its answer; what a later answer means depends on what came before it."""
    question = None
    for message in messages:
        if not isinstance(message, dict):
            return None
        role = _ROLES.get(str(message.get("role", message.get("from"))))
        content = message.get("content", message.get("value"))
        if not isinstance(content, str):
            return None
        if role == "user" and question is None:
            question = content
        elif role == "assistant" and question is not None:
            return question, content
    return None


def _normal(text: str) -> str:
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text)).casefold()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]
