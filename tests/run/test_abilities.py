"""What an option says that its model must be able to do is known before the first row is read."""

import pytest
from places import STAGES
from servers.llm_simulator import simulator
from small_corpus import corpus

from kun_builder.errors import ModelError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.runner import build

LIKELY = """
from kun_builder import LikelihoodModel, RowStage, hookimpl

kun_api = 1


async def run(row, generate, *, scorer: LikelihoodModel | None = None):
    return row


@hookimpl
def kun_stages():
    return [RowStage(name="likely", run=run)]
"""


def built(tmp_path, url, options):
    corpus(tmp_path / "data", 12)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/likely.py").write_text(LIKELY, "utf-8")
    dirs = [STAGES, tmp_path / "plugins"]
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"models: {{chat: {{engine: openai, endpoints: ['{url}']}}}}\n"
        f"journal: {tmp_path / 'journal'}\n"
        "splits: {web: {source: lines, path: data/a.jsonl}}\n"
        f"plugins: {{dirs: {[str(folder) for folder in dirs]}}}\n"
        f"stages: [ask, rewrite, {{likely: {options}}}]\n",
        "utf-8",
    )
    registry = load_plugins(dirs)
    return build(load_recipe(path, registry, output=tmp_path / "run"), registry)


def test_a_model_that_cannot_is_refused_before_a_row_is_read(tmp_path):
    """The error names stage, option and model, and says which servers can; nothing has been read."""
    with simulator(speed=50.0) as server, pytest.raises(ModelError) as caught:
        built(tmp_path, server.url, "{scorer: chat}")
    assert "stage `likely`: `scorer: chat`" in caught.value.message
    assert "vLLM" in caught.value.hint
    assert "--enable-prefill-logprobs" in caught.value.hint
    assert not list((tmp_path / "run/shards").iterdir())


def test_an_option_that_names_no_model_needs_nothing(tmp_path):
    """Where the option is left out, the same model will do."""
    with simulator(speed=50.0) as server:
        assert built(tmp_path, server.url, "{}").splits["web"].kept == 10
