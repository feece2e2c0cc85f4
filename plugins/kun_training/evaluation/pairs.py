"""How good are the pairs of a run? A model compares them blindly with others, and marks them by a rubric.

Each comparison is asked twice, with the places exchanged: who wins one and loses the other has won nothing (a tie).
Intervals are bootstraps over pairs. What cannot be read in the judge's answers is counted, not guessed.

A judge may be no better than a coin, and its figures do not look it. So it is tested as well: does it prefer answers to
those of other rows, and do both orders agree more often than they would if it did not look at the pairs?
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from kun_builder.errors import Drop, RejectedError
from kun_builder.files import replace_file
from kun_builder.models.generator import Generator, open_models
from kun_builder.models.journal.journal import Journal
from kun_builder.prompts import Prompt
from kun_builder.report import read_report
from kun_builder.result.verdicts import EVALUATION as FILE
from kun_builder.result.verdicts import Share, read_evaluation, wilson
from kun_builder.run.rows import RowGenerate
from kun_builder.status import Status
from kun_builder.types import ModelInfo, ModelSpec
from kun_training.evaluation.judge import best, choose, prompt_for
from kun_training.evaluation.opponents import CONTROL, Match, Side, mixed_up, opponents, sample_rows, side

if TYPE_CHECKING:
    from kun_builder.recipe.registry import Engines

CRITERIA: Mapping[str, tuple[str, str]] = {
    "correct": ("回答属实，每句话都有资料为据", "the answer is true, and the source text backs every sentence of it"),
    "complete": ("回答完整，没有遗漏所问的要点", "the answer answers all of the question and leaves nothing out"),
    "self-contained": ("不看资料也能看懂问题和回答", "question and answer can be understood without the source text"),
    "fluent": ("语句通顺自然", "question and answer are fluent and natural"),
}
"""The rubric: what each mark from 1 to 5 is for, in Chinese and in English."""
_WRONG_OF_OTHERS = frozenset({"correct", "complete"})
"""Criteria by which the answer to another question is a bad one; it may be fluent."""
WIN, TIE, LOSS = "win", "tie", "loss"
_MARKS = ("1", "2", "3", "4", "5")
_BOOTSTRAPS = 2000
_ROWS_AT_ONCE = 64
_T = TypeVar("_T")


@dataclass(frozen=True)
class Comparison:
    """How our pairs did. `rate`: share of wins, ties counting half. `same`: those of the ties whose sides have the same
    words, so that nobody was asked. `unread`: matches without a result, by reason.

    consistent: share of the matches asked in which both orders had the same result; chance: the same, of a judge that
    gives its letters as often, but without looking. first: share of the first place among the answers that named one;
    0.5 is no bias. sure: whether the judge is to be believed here.
    """

    against: str
    wins: int
    ties: int
    losses: int
    rate: Share
    consistent: float
    unread: Mapping[str, int]
    same: int = 0
    chance: float = 0.0
    first: float = 0.5
    sure: bool = True


@dataclass(frozen=True)
class Mark:
    """The mean mark of one criterion, 1 to 5; `rows` have one. `control`: that of answers of other rows to the same
    questions. `sure`: whether it is lower, where it has to be."""

    mean: Share
    rows: int
    control: Share | None = None
    sure: bool = True


async def compare(
    generator: Generator, model: str, against: str, matches: Sequence[Match], status: Status
) -> Comparison:
    """Let `model` compare; matches whose sides are the same are ties, and are not asked."""

    async def one(generate: RowGenerate, match: Match) -> tuple[str, str]:
        first = await _winner(generate, model, match.text, match.ours, match.theirs)
        return first, await _winner(generate, model, match.text, match.theirs, match.ours)

    asked = [match for match in matches if match.ours != match.theirs]
    status.begin("compare", len(asked), "pairs")
    found = await _all(generator, one, asked, status)
    answers = [letters for letters in found if not isinstance(letters, str)]
    unread = Counter(reason for reason in found if isinstance(reason, str))
    return compared(against, answers, same=len(matches) - len(asked), unread=unread)


def compared(
    against: str, answers: Sequence[tuple[str, str]], *, same: int = 0, unread: Mapping[str, int] | None = None
) -> Comparison:
    """What the judge's letters say: of each match those of both orders, ours in the first place and in the second."""
    results = [outcome(first, second) for first, second in answers]
    counts = Counter([*(result for result, _ in results), *[TIE] * same])
    worth = {WIN: 1.0, TIE: 0.5, LOSS: 0.0}
    letters = Counter(letter for both in answers for letter in both)
    share = {letter: letters[letter] / max(1, letters.total()) for letter in "ABC"}
    consistent = sum(agree for _, agree in results) / max(1, len(results))
    chance = 2 * share["A"] * share["B"] + share["C"] ** 2
    return Comparison(
        against=against,
        wins=counts[WIN],
        ties=counts[TIE],
        losses=counts[LOSS],
        rate=rate_of([worth[result] for result in counts.elements()]),
        consistent=consistent,
        unread=dict(unread or {}),
        same=same,
        chance=chance,
        first=letters["A"] / named if (named := letters["A"] + letters["B"]) else 0.5,
        sure=wilson(consistent, len(results)).low > chance if results else same > 0,
    )


def rate_of(worths: Sequence[float]) -> Share:
    """The mean of results with its bootstrap. Where all are the same, resampling finds nothing else, however few they
    are: then Wilson's interval of such a share."""
    found = bootstrap(worths)
    return wilson(found.value, len(worths)) if worths and found.low == found.high else found


def outcome(first: str, second: str) -> tuple[str, bool]:
    """Our result out of both orders, and whether they agree. `A` is the first place: ours in the first order, theirs in
    the second. A win in one order counts if the other order is no loss."""
    points = {"A": 1, "C": 0, "B": -1}
    ours, again = points[first], -points[second]
    total = ours + again
    return (WIN if total > 0 else LOSS if total < 0 else TIE), ours == again


async def _winner(generate: RowGenerate, model: str, text: str, first: Side, second: Side) -> str:
    prompt = prompt_for("compare", first.instruction + second.instruction)
    filled = prompt.fill(
        text=text or "-",
        first_instruction=first.instruction,
        first_output=first.output,
        second_instruction=second.instruction,
        second_output=second.output,
    )
    found = await choose(generate, model, filled, ("A", "B", "C"))
    if found is None:
        raise Drop("unread_answer")
    return best(found)


async def mark(generator: Generator, model: str, pairs: Sequence[tuple[str, Side]], status: Status) -> dict[str, Mark]:
    """Marks of pairs, each with its text, by every criterion of the rubric: the expected value of the judge's digit."""

    async def one(generate: RowGenerate, pair: tuple[str, Side]) -> dict[str, float]:
        text, side = pair
        return {name: await _mark(generate, model, text, side, said) for name, said in CRITERIA.items()}

    status.begin("mark", len(pairs), "pairs")
    found = [marks for marks in await _all(generator, one, pairs, status) if not isinstance(marks, str)]
    return {name: Mark(bootstrap([marks[name] for marks in found]), len(found)) for name in CRITERIA if found}


def beside(marks: Mapping[str, Mark], control: Mapping[str, Mark]) -> dict[str, Mark]:
    """`marks` with those of answers of other rows beside them."""

    def one(name: str, mark: Mark) -> Mark:
        if name not in control:
            return mark
        others = control[name].mean
        return replace(mark, control=others, sure=name not in _WRONG_OF_OTHERS or mark.mean.low > others.value)

    return {name: one(name, mark) for name, mark in marks.items()}


async def _mark(generate: RowGenerate, model: str, text: str, side: Side, said: tuple[str, str]) -> float:
    prompt: Prompt = prompt_for("rubric", side.instruction)
    criterion = said[0] if prompt.name.endswith(".zh") else said[1]
    filled = prompt.fill(text=text or "-", instruction=side.instruction, output=side.output, criterion=criterion)
    found = await choose(generate, model, filled, _MARKS)
    if found is None:
        raise Drop("unread_answer")
    return sum(int(digit) * share for digit, share in found.items())


async def _all(
    generator: Generator,
    one: Callable[[RowGenerate, Any], Awaitable[_T]],
    items: Sequence[Any],
    status: Status,
) -> list[_T | str]:
    """`one` for all items, in their order; the reason instead of a result where the judge gave none."""
    places = asyncio.Semaphore(_ROWS_AT_ONCE)

    async def row(number: int, item: Any) -> _T | str:
        generate = RowGenerate(generator, number, [], {})
        generate.at("evaluate")
        async with places:
            try:
                return await one(generate, item)
            except Drop as drop:
                return drop.reason
            except RejectedError:
                return "request_rejected"
            finally:
                status.done += 1

    return list(await asyncio.gather(*(row(number, item) for number, item in enumerate(items))))


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Share:
    """The mean, and where 95 % of the means of samples with replacement lie; 0 of nothing."""
    import numpy as np

    if not values:
        return Share(0.0, 0.0, 0.0)
    found = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(0, len(found), (_BOOTSTRAPS, len(found)))
    low, high = np.quantile(found[draws].mean(axis=1), [0.025, 0.975])
    return Share(float(found.mean()), float(low), float(high))


# --- a run's evaluation, and its file ------------------------------------------------------------------------------


def evaluate_pairs(
    run: Path,
    judge: ModelSpec,
    engines: Engines,
    against: Sequence[str] = ("raw",),
    *,
    sample: int = 100,
    rubric: bool = True,
    seed: int = 0,
    status: Status | None = None,
    journal: Path | None = None,
) -> dict[str, Any]:
    """Judge a sample of the finished run in `run`, as plain data: `comparisons` by opponent, `marks` by criterion, and
    `control`, the comparison with answers of other rows that tells whether the judge is one.

    against: `raw`, a run, a file of pairs, or a dataset (see `opponents`). Answers are kept in `journal`, by default
    the common one, so that the same question costs once. Raises RunError, TrainingError or ModelError.
    """
    rows = sample_rows(run, sample, seed)
    matches = opponents(rows, against, seed)
    marked = [(str(row.get("text") or ""), side(row)) for row in rows] if rubric else []
    report = read_report(run / "report.json")
    judged = _judged(judge, engines, Journal.open(journal), status or Status(), matches, mixed_up(rows, seed), marked)
    info, comparisons, control, marks = asyncio.run(judged)
    return {
        "run": report.name,
        "signature": report.signature,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "judge": {"id": info.id, "revision": info.revision},
        "pairs": len(rows),
        "seed": seed,
        "comparisons": {one.against: asdict(one) for one in comparisons},
        "control": asdict(control) if control else None,
        "marks": {name: asdict(one) for name, one in marks.items()},
    }


async def _judged(
    judge: ModelSpec,
    engines: Engines,
    journal: Journal,
    status: Status,
    matches: Mapping[str, Sequence[Match]],
    mixed: Sequence[Match],
    marked: Sequence[tuple[str, Side]],
) -> tuple[ModelInfo, list[Comparison], Comparison | None, dict[str, Mark]]:
    async with open_models({judge.name: judge}, engines, journal, status) as generator:
        control = await compare(generator, judge.name, CONTROL, mixed, status) if mixed else None
        found = [await compare(generator, judge.name, name, some, status) for name, some in matches.items()]
        marks = await mark(generator, judge.name, marked, status) if marked else {}
        if marks and mixed:
            others = [(match.text, match.theirs) for match in mixed]
            marks = beside(marks, await mark(generator, judge.name, others, status))
        if control:
            control = replace(control, sure=control.rate.low > 0.5)
        return generator.info(judge.name), found, control, marks


def write_evaluation(run: Path, found: Mapping[str, Any]) -> Path:
    """Put an evaluation into the run's folder; what the same judge found against others before stays beside it."""
    path = run / FILE
    old = read_evaluation(run, str(found["signature"])) or {}
    if old.get("judge") == found["judge"]:
        found = {
            **found,
            "comparisons": {**old["comparisons"], **found["comparisons"]},
            "control": found["control"] or old.get("control"),
            "marks": found["marks"] or old["marks"],
        }
    replace_file(path, orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return path
