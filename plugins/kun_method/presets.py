"""The method as recipes name it by `preset:`. Both clean the texts first, by the stages of `kun_clean`."""

from __future__ import annotations

from kun_builder import Preset

_CLEANING = ("normalize", "length", "language", "perplexity", "dedup")

VERIFIED = Preset(
    name="verified",
    title="Asks for what the whole text answers, takes the better of two instructions, and looks at each pair.",
    stages=(
        *_CLEANING,
        {"label": {"candidates": 2}},
        {"refine": {"columns": ["instruction"]}},
        {"score": {"threshold": 0.2}},
        "polish",
        {"refine": {"columns": ["output"]}},
        # The question was to be one that the whole text answers. Of 21 pairs with 0.8 and more for the answer to it,
        # read one by one, 17 were good and 3 half good.
        {"verify": {"least_coverage": 0.5, "least_answered": 0.8}},
    ),
)
KUN = Preset(
    name="kun",
    title="Judges instructions alone, as COIG-Kun does.",
    stages=(
        *_CLEANING,
        {"label": {"outline": False}},
        {"refine": {"columns": ["instruction"]}},
        "score",
        {"polish": {"whole": False}},
        {"refine": {"columns": ["output"]}},
    ),
)
