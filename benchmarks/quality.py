"""How good is `verify` at telling good pairs from bad ones? Judged pairs through the real stage, human pairs for drops.

    python benchmarks/quality.py judged.jsonl [human.jsonl ...] [--endpoint URL] [--threshold 0.92] [--output FILE]

judged.jsonl has JSON lines with `text`, `instruction`, `output`, `good` (true or false) and `kinds` (names of defects);
human pairs have `instruction` and `output`. Without an endpoint the embedded model judges, with its journal in a
folder of its own, so that the second time costs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kun_method import verify
from kun_method.aspects import asks_beyond
from kun_method.context import about_question, answer_needs_text, has_material
from kun_method.doubts import REASONS
from kun_method.doubts import asked as doubts_of
from kun_method.pairs import explains, novelty

from kun_builder import Drop, ModelSpec, Request
from kun_builder.models.generator import Asker, Generator, open_models
from kun_builder.models.journal.journal import Journal, default_folder
from kun_builder.recipe.plugins import load_plugins
from kun_builder.status import Status

Pair = Mapping[str, Any]
_ALL = dict.fromkeys(REASONS, 1e-9)  # all are asked, and none is too low


@dataclass(frozen=True)
class Verdict:
    """What the stage made of one pair: the reason of its drop, "" if kept; and its pair score, which is asked here even
    where a cheaper check has dropped the pair before, and the answers to the further questions, all asked too."""

    reason: str
    score: float
    doubts: Mapping[str, float]

    @property
    def rank(self) -> float:
        """All checks together as one number: the pair score, less a tenth for the finding of a cheaper check."""
        return self.score - 0.1 * (self.reason not in ("", "low_pair_score"))


class _Asked:
    """`Generate` for one stage, out of the engine's own parts."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.info, self.count_tokens = generator.info, generator.count_tokens

    async def __call__(self, model: str, prompt: Any, /, **parameters: Any) -> Any:
        asked = prompt if isinstance(prompt, str) else tuple(prompt)
        return await self._generator.ask(model, Request(asked, **parameters), Asker("verify"))


async def judge(pairs: Sequence[Pair], spec: ModelSpec, threshold: float) -> list[Verdict]:
    """Each pair through the stage `verify`, and to the model."""
    journal = Journal.open(default_folder().with_name("bench-quality"))
    async with open_models({"chat": spec}, load_plugins().engines, journal, Status()) as generator:
        asked = _Asked(generator)
        under_way = [asyncio.ensure_future(_judged(pair, asked, threshold)) for pair in pairs]
        for number, finished in enumerate(asyncio.as_completed(under_way), 1):
            await finished
            print(f"{number} of {len(pairs)} pairs judged", file=sys.stderr)
        return [task.result() for task in under_way]


async def _judged(pair: Pair, asked: Any, threshold: float) -> Verdict:
    row = {"id": "", "split": "", "file": "", "position": 0, **pair}
    prompt = verify.PROMPT.fill(
        text=pair["text"], instruction=pair["instruction"], output=pair["output"], good="好", bad="差"
    )
    score, _ = await verify.verdict(asked, "chat", prompt, "好", "差")
    further = doubts_of(asked, "chat", _ALL, pair["instruction"], pair["output"], pair["text"])
    doubts = {doubt: probability async for doubt, probability, _ in further}
    try:
        await verify.run(row, asked, threshold=threshold)
    except Drop as drop:
        return Verdict(drop.reason, score or 0.0, doubts)
    return Verdict("", score or 0.0, doubts)


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Area under the ROC curve: how often a good pair ranks above a bad one, ties counted half."""
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return wins / (len(good) * len(bad)) if good and bad else float("nan")


def _auc_of(told: Sequence[tuple[Pair, Verdict]], doubt: str) -> float:
    good, bad = ([v.doubts[doubt] for p, v in told if p["good"] is truth] for truth in (True, False))
    return auc(good, bad)


def human_drops(pairs: Sequence[Pair]) -> Counter[str]:
    """What the checks that need no model and no text would drop of pairs that people wrote."""
    found: Counter[str] = Counter()
    for pair in pairs:
        asked, answer = pair["instruction"], pair["output"]
        if leans := about_question(asked):
            found[leans[0]] += 1
        if answer_needs_text(answer):
            found["needs_context (answer)"] += 1
        if not has_material(asked) and novelty(answer, asked) < 0.4:
            found["says_nothing"] += 1
        if not explains(answer, asked) or asks_beyond(asked, answer):
            found["off_topic"] += 1
    return found


def table(pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> str:
    """The figures, as Markdown."""
    kept = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if not verdict.reason]
    good = sum(pair["good"] for pair in kept)
    all_good = sum(pair["good"] for pair in pairs)
    told = list(zip(pairs, verdicts, strict=True))
    ranks = [[v.rank for p, v in told if p["good"] is truth] for truth in (True, False)]
    scores = [[v.score for p, v in told if p["good"] is truth] for truth in (True, False)]
    lines = [
        "| figure | value |",
        "|---|---:|",
        f"| pairs, good | {len(pairs)}, {all_good} |",
        f"| kept, good among them | {len(kept)}, {good} |",
        f"| precision before and after | {all_good / len(pairs):.2f}, {good / max(1, len(kept)):.2f} |",
        f"| recall of the good ones | {good / max(1, all_good):.2f} |",
        f"| ROC-AUC of all checks together | {auc(*ranks):.2f} |",
        f"| ROC-AUC of the pair score | {auc(*scores):.2f} |",
        *(f"| ROC-AUC of `{doubt}` | {_auc_of(told, doubt):.2f} |" for doubt in REASONS),
        "",
        "| dropped for | good | bad |",
        "|---|---:|---:|",
    ]
    reasons = Counter((v.reason, p["good"]) for p, v in told if v.reason)
    for reason in sorted({reason for reason, _ in reasons}):
        lines.append(f"| {reason} | {reasons[reason, True]} | {reasons[reason, False]} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judged", type=Path)
    parser.add_argument("human", type=Path, nargs="*")
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--threshold", type=float, default=0.92)
    parser.add_argument("--output", type=Path, help="a file for each pair's verdict, as JSON lines")
    options = parser.parse_args()
    spec = ModelSpec(name="chat")
    if options.endpoint:
        spec = ModelSpec(name="chat", engine="openai", endpoints=(options.endpoint,), tokenizer="characters")
    pairs = _read(options.judged)
    verdicts = asyncio.run(judge(pairs, spec, options.threshold))
    print(table(pairs, verdicts))
    if options.output:
        lines = (json.dumps(vars(verdict), ensure_ascii=False) + "\n" for verdict in verdicts)
        options.output.write_text("".join(lines), encoding="utf-8")
    for path in options.human:
        human = _read(path)
        drops = ", ".join(f"{reason} {n / len(human):.2%}" for reason, n in human_drops(human).most_common())
        print(f"\n{path.stem}, {len(human):,} pairs of people: {drops or 'nothing dropped'}")


def _read(path: Path) -> list[Pair]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
