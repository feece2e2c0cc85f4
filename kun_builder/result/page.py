"""Pages that are one file and ask no network: a template with its style and script inside, and data that is only data.

What all of them share is in `page.html` and `page.css`. Whatever is foreign gets in as text, and a content security
policy lets nothing else run or load.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any


def render(name: str, data: Any, *, title: str, allow: str = "", **facts: Any) -> str:
    """The page `templates/<name>.html` with its style, its script and `data`, which the script reads as JSON.

    allow: what the page may do besides, as directives of a content security policy (`img-src data:`).
    Raises `jinja2.UndefinedError` for a fact that the template asks for and `facts` lacks.
    """
    import jinja2

    css, js = _read("page.css") + _read(f"{name}.css"), _read(f"{name}.js")
    policy = f"default-src 'none'; {allow}; style-src '{_hash(css)}'; script-src '{_hash(js)}'"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True
    )
    page = environment.get_template(f"{name}.html").render(
        **facts, title=title, policy=_markup(policy), data=_safe(data), style=_markup(css), script=_markup(js)
    )
    return str(page)


def _read(name: str) -> str:
    return (files("kun_builder.result") / "templates" / name).read_text(encoding="utf-8")


def _markup(text: str) -> Any:
    import markupsafe

    return markupsafe.Markup(text)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _safe(value: Any) -> Any:
    """JSON without the characters that could end the `<script>` element which it stands in."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return _markup(text)
