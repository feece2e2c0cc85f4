"""A score against a truth of good and bad: ROC-AUC, precision and recall at each threshold, the one to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """What keeping the scores from `threshold` on does: share of the good kept, of the bad kept, and precision.

    Precision is that of equally many good and bad ones: it must not depend on how many damaged copies were made.
    """

    threshold: float
    recall: float
    bad_kept: float
    precision: float

    @property
    def balance(self) -> float:
        """Youden's J (1950): recall minus the share of the bad that is kept."""
        return self.recall - self.bad_kept


def roc_auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Probability that a good one scores higher than a bad one, ties counting half (Mann and Whitney 1947)."""
    import numpy as np

    ordered = np.sort(np.asarray(bad, dtype=float))
    below = np.searchsorted(ordered, good, side="left") + np.searchsorted(ordered, good, side="right")
    return float(below.sum() / (2 * len(good) * len(ordered)))


def cuts(good: Sequence[float], bad: Sequence[float]) -> list[Cut]:
    """All thresholds that make a difference, ascending: the lowest keeps everything."""
    import numpy as np

    ups, downs = np.sort(np.asarray(good, dtype=float)), np.sort(np.asarray(bad, dtype=float))
    found = []
    for threshold in np.unique(np.concatenate([ups, downs])):
        recall = 1 - np.searchsorted(ups, threshold, side="left") / len(ups)
        kept = 1 - np.searchsorted(downs, threshold, side="left") / len(downs)
        precision = recall / (recall + kept) if recall + kept else 1.0
        found.append(Cut(float(threshold), float(recall), float(kept), float(precision)))
    return found


def recommend(good: Sequence[float], bad: Sequence[float]) -> Cut:
    """The cut with the greatest balance, moved half-way to the next score below it: it must not sit on a row."""
    found = cuts(good, bad)
    best = max(range(len(found)), key=lambda at: (found[at].balance, found[at].threshold))
    chosen = found[best]
    lower = found[best - 1].threshold if best else chosen.threshold
    return Cut(round((chosen.threshold + lower) / 2, 4), chosen.recall, chosen.bad_kept, chosen.precision)
