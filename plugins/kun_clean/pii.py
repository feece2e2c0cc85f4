"""Stage `pii`: e-mail addresses, telephone and identity numbers and public IP addresses give way to their kind.

Not in recipes by default. It changes the text, so it belongs before the stages that measure it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from kun_builder import BatchStage, Quantity

if TYPE_CHECKING:
    import pyarrow as pa

# ASCII throughout: otherwise \w takes the Chinese word before an address for a part of it.
_FOUND = re.compile(
    r"(?P<email>(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-]))"
    r"|(?P<id>(?<!\w)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\w))"
    r"|(?P<phone>(?<![\w.+-])(?:(?:\+|00)?86[- ]?)?(?:1[3-9]\d([- ]?)\d{4}\4\d{4}|0\d{2,3}-\d{7,8})(?![\w-]))"
    r"|(?P<ip>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]))",
    re.ASCII,
)
_HINT = r"@|[0-9]{3}[- ]?[0-9]{4}|[0-9]\.[0-9]+\.[0-9]+\."
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
"""Of the digits of a resident identity number, whose last one checks the others (GB 11643, ISO 7064 MOD 11-2)."""


def run(table: pa.Table) -> pa.Table:
    """Replace what is found in `text` by `[email]`, `[id]`, `[phone]`, `[ip]`; add `pii`, how many there were."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = table["text"].to_pylist()
    found = [0] * len(texts)
    for row in pc.indices_nonzero(pc.match_substring_regex(table["text"], _HINT)).to_pylist():
        texts[row], found[row] = mask(texts[row])
    at = table.schema.get_field_index("text")
    table = table.set_column(at, table.schema.field(at), pa.array(texts, table.schema.field(at).type))
    return table.append_column("pii", pa.array(found, pa.int64()))


def mask(text: str) -> tuple[str, int]:
    """The text without what is found, and how many there were."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        kind = str(match.lastgroup)
        if (kind == "id" and not _is_id(match[0])) or (kind == "ip" and not _is_public(match[0])):
            return match[0]
        count += 1
        return f"[{kind}]"

    return _FOUND.sub(replace, text), count


def _is_id(number: str) -> bool:
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number, strict=False))
    return number[-1].upper() == "10X98765432"[total % 11]


def _is_public(address: str) -> bool:
    """Whether it names someone's machine; `127.0.0.1`, `192.168.1.100` and `999.111.2.3` do not.

    Short ones are rather sections and versions: `3.1.4.2`.
    """
    try:
        return len(address) >= 11 and ipaddress.IPv4Address(address).is_global
    except ValueError:
        return False


MASKED = Quantity(title="personal data that was masked", unit="places in the text")
stage = BatchStage(name="pii", run=run, adds={"pii": "int64"}, quantities={"pii": MASKED})
