"""A corpus of a few lines with one of each fault."""

import json


def corpus(folder, rows=40):
    """`a.jsonl` with `rows` lines: one twice, one bad, one broken, one without text."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": f"第{number}段文字"}, ensure_ascii=False) for number in range(rows)]
    lines[3] = lines[2]  # a duplicate
    lines[5] = '{"text": "bad"}'
    lines[7] = '{"text": broken'
    lines[9] = '{"text": null}'
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
