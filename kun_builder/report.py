"""The report of a run: frozen facts whose counts must add up, to and from JSON.

For every step and split: rows_in + created = rows_out + dropped + quarantined, and the rows that leave one step are
those that enter the next. A report that does not add up cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kun_builder import __version__
from kun_builder.declarations import Quantity
from kun_builder.errors import RunError, shown
from kun_builder.files import replace_file, seal, unseal
from kun_builder.types import Completion


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """What became of the rows of one split in one step. `created`: rows beyond one per row."""

    label: str
    stage: str
    rows_in: int
    rows_out: int
    created: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)

    @property
    def adds_up(self) -> bool:
        """Whether every row has exactly one outcome."""
        lost = sum(self.dropped.values()) + sum(self.quarantined.values())
        return self.rows_in + self.created == self.rows_out + lost


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `data` for which the dataclass `kind` has a field. Reports of later versions may have more."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """One split: its corpus and the funnel of its rows."""

    source: str
    read: int
    kept: int
    stages: tuple[StepCounts, ...]
    records: int = 0
    """Records of the whole input. A limit has drawn `read` of them."""
    license: str = ""
    homepage: str = ""
    citation: str = ""
    redistributable: bool | None = None
    """Whether the raw text may be passed on; None if neither source nor recipe says."""
    plugin: str = ""
    title: str = ""
    """The name of the corpus; empty if it is the user's own and the recipe gives no name."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SplitReport:
        """Make a SplitReport from plain data. Earlier versions had no `title`: it is then the name of the source."""
        if "title" not in data:
            own = data.get("license") == "unknown"
            data = {**data, "title": "" if own else data["source"]}
            data |= {"license": "", "redistributable": None} if own else {}
        return cls(
            **{**_known(cls, data), "stages": tuple(StepCounts(**_known(StepCounts, s)) for s in data["stages"])}
        )


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What a step is and how it was set: one stage of the recipe, as a report, a release and a card know it."""

    label: str
    """The name of its stage, numbered from the second use on."""
    stage: str
    plugin: str = ""
    package: str = ""
    """The package of the plugin; of a plugin that is a mere file, the file's name without its folder."""
    package_version: str = ""
    digest: str = ""
    """Digest of the plugin's files."""
    version: str = "1"
    """Version of the stage."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """All options of the stage, with prompts in full."""
    models: tuple[str, ...] = ()
    adds: Mapping[str, str] | None = None
    """Type of each column that it adds; None in a report of a version which did not say."""
    quantities: Mapping[str, Quantity] | None = None
    """What the columns of numbers mean, as the stage has declared it; None in a report of a version before that."""
    forms: tuple[tuple[str, str], ...] | None = None
    """In which forms the instructions that it writes may ask, if it has declared any (`RowStage.forms`)."""

    @property
    def made_by(self) -> str:
        """The package, its version and the version of the stage, for people."""
        return f"{self.package} {self.package_version}, stage version {self.version}"

    @property
    def chosen(self) -> dict[str, Any]:
        """What decides the result: the version of the stage and its options, by name."""
        return {"version": self.version, **self.options}

    def to_json(self) -> dict[str, Any]:
        """The facts as plain data, without those that are not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepFacts:
        """Make a StepFacts from plain data of this version or an earlier one."""
        known = _known(cls, data)
        if (quantities := known.get("quantities")) is not None:
            known["quantities"] = {name: Quantity(**_known(Quantity, one)) for name, one in quantities.items()}
        if (forms := known.get("forms")) is not None:
            known["forms"] = tuple((str(name), str(pattern)) for name, pattern in forms)
        return cls(**{**known, "models": tuple(known.get("models", ()))})


@dataclass
class Tally:
    """Requests to models and their tokens, added up over rows, shards and workers.

    `reused` answers came out of the journal. `reasoning_tokens` are those of `completion_tokens` in which the model
    thought before it answered.
    """

    requests: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    reasoning_tokens: int = 0

    def add(self, completion: Completion) -> None:
        """Count one answer. One from the journal counts as `reused` only, since it was paid for before."""
        if completion.cached:
            self.reused += 1
            return
        self.requests += 1
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens
        self.cached_prompt_tokens += completion.cached_prompt_tokens
        self.reasoning_tokens += completion.reasoning_tokens

    def merge(self, other: Tally) -> None:
        """Add the figures of `other`."""
        for name in (one.name for one in fields(Tally)):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(kw_only=True)
class Usage(Tally):
    """The tally of one step at one model, and what it cost by the recipe's prices."""

    stage: str
    model: str
    cost: float = 0.0
    reasoning_cost: float = 0.0
    """Of `cost`, what `reasoning_tokens` are charged at."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One finished run."""

    name: str
    version: str
    status: str
    signature: str
    """Digest of recipe, plugins and input files: a run with the same signature has nothing left to do."""
    created: str
    seconds: float
    seed: int
    limit: int | None
    format: str
    splits: Mapping[str, SplitReport]
    models: Mapping[str, Mapping[str, Any]]
    steps: tuple[StepFacts, ...]
    usage: tuple[Usage, ...] = ()
    machine: str = ""
    """What the run was made on: processors, architecture, memory. Servers are machines of their own."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds that reading and each segment took in the run that finished, from the first row that came in to the last
    that went on. They overlap, since a segment works on rows while the one before it is still at others."""
    idle: Mapping[str, float] = field(default_factory=dict)
    """Seconds in which no model could be asked, by design: by the stage that had to see all rows first."""
    serving: Mapping[str, Any] = field(default_factory=dict)
    """What the serving layer measured: windows over time, retries, endpoints."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Digest of each file of the result (`files.file_digest`), by its path in the run folder; of an earlier version,
    none."""

    def check(self) -> None:
        """Raise RunError unless every row read has exactly one outcome, in every step and split."""
        for name, split in self.splits.items():
            rows = split.read
            for step in split.stages:
                if not step.adds_up or step.rows_in != rows:
                    raise RunError(f"the counts of split `{name}` do not add up at `{step.label}`: {step}")
                rows = step.rows_out
            if rows != split.kept:
                raise RunError(f"split `{name}`: {rows} rows left the last stage, {split.kept} were written")

    def write(self, path: Path) -> None:
        """Check, then write as JSON, atomically."""
        self.check()
        data = {**asdict(self), "steps": [step.to_json() for step in self.steps]}
        replace_file(path, seal(data, indent=True), private=True)


_DAMAGED = "bring it back from a copy, or run kun-build again: it is written from the shards, and nothing asked anew"


def read_report(path: Path) -> RunReport:
    """The report in `path`, of this version, an earlier or a later one: what a later one has added is left out.

    Raises RunError if it is missing, is no report, or lacks what this version needs.
    """
    try:
        data = unseal(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist", hint="the run is unfinished; run kun-build again to go on") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged, or no report of kun-builder: {error}", hint=_DAMAGED) from error
    try:
        splits = {name: SplitReport.from_json(value) for name, value in data["splits"].items()}
        usage = tuple(Usage(**_known(Usage, value)) for value in data["usage"])
        steps = tuple(map(StepFacts.from_json, data["steps"]))
        return RunReport(**{**_known(RunReport, data), "splits": splits, "steps": steps, "usage": usage})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(path, data, error) from error


def _unreadable(path: Path, data: Mapping[str, Any], error: Exception) -> RunError:
    """The error for a report that cannot be read: of another version of kun-builder, or damaged."""
    wrote = data.get("version")
    why = f"({type(error).__name__}: {error})"
    if not isinstance(wrote, str) or wrote == __version__:
        return RunError(f"{path} is damaged, or no report of kun-builder {why}", hint=_DAMAGED)
    return RunError(
        f"{path} was written by kun-builder {shown(wrote)}, and kun-builder {__version__} cannot read it {why}",
        hint=f"open the run with kun-builder {shown(wrote)}",
    )


def add_counts(parts: Iterable[StepCounts]) -> list[StepCounts]:
    """Sum the counts of shards, by label, in the order of first sight."""
    total: dict[str, dict[str, Any]] = {}
    for part in parts:
        to = total.setdefault(
            part.label,
            {"stage": part.stage, "rows_in": 0, "rows_out": 0, "created": 0, "dropped": {}, "quarantined": {}},
        )
        for name in ("rows_in", "rows_out", "created"):
            to[name] += getattr(part, name)
        for name in ("dropped", "quarantined"):
            for reason, count in getattr(part, name).items():
                to[name][reason] = to[name].get(reason, 0) + count
    return [StepCounts(label=label, **values) for label, values in total.items()]
