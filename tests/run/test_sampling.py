import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kun_builder.run.sampling import Sample

IDS = [f"wiki/part-{number % 7}.jsonl:{number}" for number in range(5000)]


def _draw(ids, size, seed=0):
    sample = Sample(size, seed)
    candidates = [row_id for row_id in ids if sample.offer(row_id)]
    return [row_id for row_id in candidates if sample.holds(row_id)], len(candidates)


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 5), st.integers())
def test_a_larger_sample_contains_the_smaller(size, more, seed, order):
    """The sample has the asked size, depends on ids and seed only, and grows by adding."""
    shuffled = random.Random(order).sample(IDS[:800], 800)
    small, large = _draw(IDS[:800], size, seed)[0], _draw(shuffled, size + more, seed)[0]
    assert len(small) == size
    assert len(large) == size + more
    assert set(small) <= set(large)


def test_everything_where_there_is_little():
    """A sample larger than the input is the input."""
    assert _draw(IDS[:10], 200) == (IDS[:10], 10)
    assert _draw([], 5) == ([], 0)


def test_drawn_evenly_and_parsed_rarely():
    """Every stretch of the input is drawn from alike, and few records are candidates without being drawn."""
    drawn, candidates = _draw(IDS, 500)
    stretches = Counter(int(row_id.rpartition(":")[2]) // 500 for row_id in drawn)
    assert all(25 <= stretches[stretch] <= 80 for stretch in range(10))
    assert candidates < 500 * 4.5  # 500 (1 + ln 10) is expected
    assert drawn == sorted(drawn, key=lambda row_id: int(row_id.rpartition(":")[2]))
    assert set(drawn) != set(_draw(IDS, 500, seed=1)[0])
