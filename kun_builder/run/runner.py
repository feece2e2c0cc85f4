"""The loop over segments: from a recipe to a run folder with a dataset that `load_dataset` reads.

    build = ask the models who they are > [ read the sources into shards > segments ] > further stretches > write

Within a stretch (`run/plan`) reading and segments work at the same time, each on what the one before it has finished.
Nothing that is finished is done again: the key of a shard covers all that it depends on, and a run whose recipe,
plugins and input files are those of a finished one returns at once.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kun_builder
from kun_builder.engines.tokenizers import resolve_tokenizer
from kun_builder.errors import Stopped
from kun_builder.files import replace_file
from kun_builder.models.budget import Budget, open_budget
from kun_builder.prompt_contract import check_contracts
from kun_builder.recipe.corpus import Declared, declared
from kun_builder.recipe.lock import lock, with_publish
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import Recipe
from kun_builder.recipe.registry import Registry
from kun_builder.report import RunReport, SplitReport, StepCounts, Tally, Usage, add_counts, read_report
from kun_builder.run.abilities import check_abilities
from kun_builder.run.dataset_stage import run_dataset_stage
from kun_builder.run.executors.base import Executor
from kun_builder.run.executors.batches import quiet_datasets
from kun_builder.run.executors.local import open_local
from kun_builder.run.executors.rows import RowSettings
from kun_builder.run.exits import exits_told
from kun_builder.run.folder import DatasetWriter, RunFolder, rejected_schema, write_rejected
from kun_builder.run.ingest import IngestResult, ReadSettings, read_shards
from kun_builder.run.inputs import input_keys
from kun_builder.run.line import Line
from kun_builder.run.passes import Pass
from kun_builder.run.plan import Plan, Segment, Step, digest, make_plan, roles
from kun_builder.run.redact import stays_here
from kun_builder.run.shards import Shard
from kun_builder.run.workspace import Resources
from kun_builder.status import Status
from kun_builder.types import ModelInfo, ModelSpec


def build(recipe: Recipe, registry: Registry, *, fresh: bool = False, status: Status | None = None) -> RunReport:
    """Build the dataset of `recipe` in its run folder, going on where an earlier run stopped.

    fresh: ask the models again, even where the journal has their answers, and compute every shard again.
    Raises KunError for what the user can put right; the folder then holds everything that was finished.
    """
    status = status or Status()
    plan = make_plan(recipe, registry)
    folder = RunFolder(recipe.output)
    with folder.lock(), exits_told():
        signature = _signature(recipe, registry, plan)
        if not fresh and (report := folder.finished(signature)):
            _renew_publish(folder.path / "recipe.lock.yaml", recipe)
            status.say(f"nothing to do: {folder.path} is finished and nothing that it depends on has changed")
            return report
        check_contracts(plan.steps, recipe.models)
        quiet_datasets()
        since = folder.begin(fresh=fresh)
        budget = open_budget(folder.path, recipe.budget.model_dump(), recipe.models, fresh=fresh)
        with _executor(recipe, registry, plan, since, status, budget) as executor:
            check_abilities(plan.steps, executor.infos)
            run = _Run(recipe, registry, _resolve(plan, recipe, executor.infos), folder, status, executor, budget)
            return run.finish(run.shards(), signature)


def _renew_publish(path: Path, recipe: Recipe) -> None:
    """Put the recipe's present `publish:` into the lock file of a finished run. Nothing else in it changes."""
    old = path.read_text("utf-8")
    if (new := with_publish(old, recipe)) != old:
        replace_file(path, new.encode())


def _signature(recipe: Recipe, registry: Registry, plan: Plan) -> str:
    """Digest of all that a run depends on and that can be known without asking a model."""
    unknown = {name: ModelInfo(name) for name in recipe.models}
    inputs = input_keys(recipe, registry)
    return digest(
        {
            "version": kun_builder.__version__,
            "recipe": [recipe.name, recipe.seed, recipe.limit, recipe.format, recipe.shard_rows],
            "models": {name: _asked(spec) for name, spec in recipe.models.items()},
            "steps": [step.identity(unknown) for step in plan.steps],
            "splits": {
                name: [spec.source, spec.options, spec.declared, inputs[name]] for name, spec in recipe.splits.items()
            },
        }
    )


def _asked(spec: ModelSpec) -> list[Any]:
    """What decides who answers, for the digest. Without a revision the endpoints count too: models there may differ."""
    where = [] if spec.revision else [spec.endpoints]
    return [spec.engine, spec.model, spec.revision, spec.prompt, spec.options, *where]


def _resolve(plan: Plan, recipe: Recipe, infos: Mapping[str, ModelInfo]) -> Plan:
    """The plan with the file of every tokenizer. If the recipe names neither model nor tokenizer, the server does."""

    def resolved(step: Step) -> Step:
        names = roles(step.stage.run, "tokenizer")
        spec = recipe.models.get(step.tokenizer_of)
        if spec and spec.endpoints and not (spec.model or spec.tokenizer):
            spec = replace(spec, tokenizer=infos[step.tokenizer_of].tokenizer)
        found = {name: resolve_tokenizer(str(step.options[name]), spec) for name in names}
        return replace(step, resolved={**step.resolved, **found})

    segments = tuple(replace(seg, steps=tuple(resolved(step) for step in seg.steps)) for seg in plan.segments)
    return replace(plan, segments=segments)


@contextmanager
def _executor(
    recipe: Recipe, registry: Registry, plan: Plan, since: float, status: Status, budget: Budget | None
) -> Iterator[Executor]:
    """What runs the segments, with the plan's models connected and asked who they are; closed whatever happens.

    Without row stages no model is connected: nothing could ask it.
    """
    rows = None
    if any(segment.kind == "rows" for segment in plan.segments):
        specs = {name: recipe.models[name] for name in plan.models}
        rows = RowSettings(specs, recipe.journal, since, recipe.stop_after_failures)
    with ExitStack() as stack:
        if budget:
            stack.callback(budget.write)
        if recipe.executor == "ray":
            from kun_builder.run.executors.ray import open_ray

            yield stack.enter_context(open_ray(recipe, status, rows, registry.engines, budget))
        else:
            yield stack.enter_context(open_local(status, _loading(recipe), rows, registry.engines, budget))


def _loading(recipe: Recipe) -> Callable[[], Registry]:
    """A function that loads the recipe's plugins in a new process. It can be pickled."""
    return functools.partial(load_plugins, recipe.plugins.dirs, recipe.plugins.disable)


class _Run:
    """One build while it runs."""

    def __init__(
        self,
        recipe: Recipe,
        registry: Registry,
        plan: Plan,
        folder: RunFolder,
        status: Status,
        executor: Executor,
        budget: Budget | None,
    ) -> None:
        self._budget = budget
        self._recipe, self._registry, self._plan = recipe, registry, plan
        self._folder, self._status = folder, status
        self._infos, self._executor = executor.infos, executor
        self._started = time.monotonic()
        self._free = self._started
        """Where the time begins in which no model could be asked and which `idle` does not have yet."""
        self._results: dict[str, IngestResult] = {}
        self._phases: dict[str, float] = {}
        self._idle: dict[str, float] = {}
        self._counts: dict[str, list[StepCounts]] = {name: [] for name in recipe.splits}
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._dead: list[Shard] = []
        """Shards of every segment, in which the rejected rows are."""

    def shards(self) -> list[Shard]:
        """Read every split, and run every stretch; returns the shards of the last one."""
        first, *others = self._plan.stretches
        with Line() as line:
            shards = self._through(first, self._read(line), line)
            for stretch in others:
                dataset = stretch[0].kind == "dataset"
                shards = self._dataset(stretch[0], shards) if dataset else self._through(stretch, shards, line)
        return shards

    def _read(self, line: Line) -> Iterator[Shard]:
        """Shards of every split as they are read."""

        def check() -> None:
            line.check()
            if self._status.ending:
                raise Stopped(self._status.ending)

        began, numbers = time.monotonic(), Counter[str]()
        settings = ReadSettings(
            folder=self._folder.shards / "read",
            shard_rows=self._recipe.shard_rows,
            limit=self._recipe.limit,
            seed=self._recipe.seed,
            status=self._status,
            crew=self._executor.crew,
            check=check,
        )
        splits = {name: (spec, self._registry.sources[spec.source]) for name, spec in self._recipe.splits.items()}
        for split, part in read_shards(splits, settings, self._results):
            shard = Shard(split, numbers[split], part.path, part.key, part.alive)
            numbers[split] += 1
            self._dead.append(shard)
            yield shard
        self._status.reading = None
        self._phases["read"] = round(time.monotonic() - began, 3)

    def _begin(self, label: str, rows: int | None = None) -> None:
        """Begin a stretch, unless the run has been told to end."""
        if self._budget:
            self._budget.check()
        self._status.begin(label.replace("+", " > "), rows)
        if self._status.ending:
            raise Stopped(self._status.ending)

    def _through(self, segments: Sequence[Segment], shards: Iterable[Shard], line: Line) -> list[Shard]:
        """Send shards, as they come, through the segments of one stretch; returns those of the last one, in order."""
        self._begin(segments[-1].label if segments else "")
        closed = {split for split in self._recipe.splits if stays_here(self._declared(split))}
        passes = [
            Pass(
                one,
                self._folder.shards / one.label,
                self._executor,
                self._status,
                closed,
                last=one is segments[-1],
            )
            for one in segments
        ]
        for one in passes:
            shards = one.run(shards, line)
        done = list(shards)
        for one in passes:
            done = self._settle(one)
        return done

    def _settle(self, over: Pass) -> list[Shard]:
        """Count what became of the rows in one segment, in the order of the input whatever was finished first."""
        results = over.results(list(self._recipe.splits))
        for shard, record in results:
            self._counts[shard.split] += record.counts
            for name, tally in record.tallies().items():
                self._tallies.setdefault(name, Tally()).merge(tally)
        done = [shard for shard, _ in results]
        self._dead += done
        self._phases[over.segment.label] = over.seconds
        if over.segment.models:
            self._free = time.monotonic()
        return done

    def _dataset(self, segment: Segment, shards: list[Shard]) -> list[Shard]:
        """Run a dataset stage over all rows; returns the shards without the rows that it drops."""
        self._begin(segment.label, sum(shard.alive for shard in shards))
        began = time.monotonic()
        key = digest([segment.key(self._executor.identities), [shard.key for shard in shards]])
        resources = Resources(self._recipe.memory, self._status, self._executor.crew)
        cut, counts = run_dataset_stage(segment.steps[0], shards, key, self._folder.shards / segment.label, resources)
        for split, count in counts.items():
            self._counts[split].append(count)
            for reason, rows in count.dropped.items():
                self._status.drops[f"{count.label}: {reason}"] += rows
        # This stage writes no shards: the rows that it drops are marked in those that are on the list already.
        self._dead = [*self._dead[: len(self._dead) - len(shards)], *cut]
        ended = time.monotonic()
        self._phases[segment.label] = round(ended - began, 3)
        if segment in self._plan.barriers:
            self._idle[segment.label], self._free = round(ended - self._free, 3), ended
        return cut

    def finish(self, shards: list[Shard], signature: str) -> RunReport:
        """Write dataset, rejected rows, lock and report."""
        self._status.begin("write", sum(shard.alive for shard in shards))
        kept = self._write(shards)
        replace_file(
            self._folder.path / "recipe.lock.yaml", lock(self._recipe, self._registry, self._infos).encode("utf-8")
        )
        self._report(kept, signature).write(self._folder.report_path)
        self._folder.end()
        self._folder.sweep(shard.path for shard in self._dead)
        return read_report(self._folder.report_path)

    def _write(self, shards: list[Shard]) -> dict[str, int]:
        schema = rejected_schema(shards[-1].schema)
        writer = DatasetWriter(self._folder, self._recipe.format)
        steps = [step.provenance(self._infos) for step in self._plan.steps]
        kept = {}
        for split in self._recipe.splits:
            mine = [shard for shard in shards if shard.split == split]
            withheld = stays_here(self._declared(split))
            kept[split] = writer.write_split(split, mine, {"steps": steps}, withheld=withheld)
            rejected = [shard for shard in self._dead if shard.split == split]
            write_rejected(self._folder, split, rejected, schema)
            self._status.done += kept[split]
        writer.finish()
        return kept

    def _report(self, kept: Mapping[str, int], signature: str) -> RunReport:
        return RunReport(
            name=self._recipe.name,
            version=kun_builder.__version__,
            status="complete",
            signature=signature,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._started, 3),
            seed=self._recipe.seed,
            limit=self._recipe.limit,
            format=self._recipe.format,
            splits={name: self._split(name, rows) for name, rows in kept.items()},
            models={name: asdict(info) for name, info in self._infos.items()},
            steps=tuple(step.facts() for step in self._plan.steps),
            usage=tuple(self._usage(stage, model, tally) for (stage, model), tally in self._tallies.items()),
            machine=self._executor.machine,
            phases=self._phases,
            idle=self._idle,
            serving=self._executor.serving(),
            files=self._folder.digests(kept, self._recipe.format),
        )

    def _split(self, name: str, kept: int) -> SplitReport:
        entry, read = self._registry.sources[self._recipe.splits[name].source], self._results[name]
        owner = entry.owner
        return SplitReport(
            source=entry.value.name,
            read=read.counts.rows_in,
            records=read.records,
            kept=kept,
            stages=(read.counts, *self._funnel(name)),
            plugin=" ".join(filter(None, (owner.name, owner.version, owner.digest))),
            **self._declared(name),
        )

    def _declared(self, split: str) -> Declared:
        spec = self._recipe.splits[split]
        return declared(self._registry.sources[spec.source].value, spec)

    def _funnel(self, name: str) -> list[StepCounts]:
        """Counts of each step. The measuring half of a dataset stage has a line only if it lost a row."""
        plain_steps = {step.label for step in self._plan.steps}
        counts = add_counts(self._counts[name])
        return [count for count in counts if count.label in plain_steps or count.rows_in != count.rows_out]

    def _usage(self, stage: str, model: str, tally: Tally) -> Usage:
        spec = self._recipe.models[model]
        cost = (tally.prompt_tokens * spec.cost_in + tally.completion_tokens * spec.cost_out) / 1e6
        thought = tally.reasoning_tokens * spec.cost_out / 1e6
        return Usage(stage=stage, model=model, cost=cost, reasoning_cost=thought, **asdict(tally))
