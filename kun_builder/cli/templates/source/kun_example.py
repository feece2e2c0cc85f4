"""example: JSON lines, one document each.

{"title": "彩虹", "text": "雨后天空中还悬着许多小水滴。阳光射进水滴时会发生折射和反射……"}
"""

from kun_builder import Source, hookimpl

kun_api = 1
SAMPLE = {"title": "彩虹", "text": "雨后天空中还悬着许多小水滴。阳光射进水滴时会发生折射和反射……"}


def parse(record: dict[str, str], *, field: str = "text") -> str | None:
    """The document's text. field: where it stands; without it a record is quarantined."""
    return record[field]


@hookimpl
def kun_sources() -> list[Source]:
    """The corpus; `license` is on the card of every dataset that is made of it."""
    return [Source(name="example", parse=parse, files=("*.jsonl",), license="cc0-1.0", sample=SAMPLE)]
