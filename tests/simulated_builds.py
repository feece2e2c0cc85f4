"""Builds with three dependent requests a row against the simulated server: recipe, command, and what they make."""

from __future__ import annotations

import sys
from pathlib import Path

from kun_builder.models.journal import records
from kun_builder.models.journal.journal import Journal

PLUGINS = Path(__file__).parents[1] / "benchmarks" / "plugins"


def write_recipe(folder, url, *, rows, shard_rows, before=(), model="", more=""):
    """A new folder with so many rows of input and a recipe for them, which asks the server at `url`.

    before: stages that come before those which ask. model: further settings of the model. more: further lines.
    """
    folder.mkdir()
    lines = (f'{{"text": "第{number}篇。{"文" * 200}"}}\n' for number in range(rows))
    (folder / "input.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "recipe.yaml").write_text(
        f'models: {{chat: {{endpoints: ["{url}"], model: simulated/model, revision: one{model}}}}}\n'
        f"splits: {{rows: {{source: generic, path: {folder / 'input.jsonl'}}}}}\n"
        f"plugins: {{dirs: [{PLUGINS}]}}\n"
        f"stages: [{', '.join([*before, 'ask', 'judge', 'rewrite', 'pair'])}]\n"
        f"shard_rows: {shard_rows}\n"
        f"journal: {folder / 'journal'}\n{more}",
        encoding="utf-8",
    )
    return folder


def build_command(folder):
    """The command that builds it into `run` in the folder."""
    return [Path(sys.executable).parent / "kun-build", folder / "recipe.yaml", "--output", folder / "run", "--quiet"]


def answers_in(journal):
    """Keys of the answers that are written in the files of a journal's folder, also while builds are at work."""
    return [key.hex() for path in journal.glob("*.log") for key, _ in records.scan(path).entries]


def on_disk(folder):
    """How the answers begin that the journal holds after a build has ended."""
    journal = Journal.open(folder / "journal")
    return {journal.get(key).text[:8] for key in answers_in(journal.folder)}


def dataset(folder):
    """Bytes of the finished data, by the names of the files."""
    parts = (folder / "run" / "dataset" / part for part in ("data", "provenance"))
    return {path.name: path.read_bytes() for part in parts for path in sorted(part.iterdir())}
