"""Tiny models, trained once for all tests."""

import pytest
from tiny_models import pairs, train_tiny, write_lines


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Threads would only wait for each other with models of this size."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def seed_file(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("seeds") / "seeds.jsonl", pairs())


@pytest.fixture(scope="session")
def label_model(tmp_path_factory, seed_file, registry):
    """A trained label model's folder."""
    folder = tmp_path_factory.mktemp("models") / "label"
    train_tiny("label", seed_file, registry, folder)
    return folder


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory, seed_file, registry):
    """A trained chat model's folder."""
    folder = tmp_path_factory.mktemp("models") / "chat"
    train_tiny("chat", seed_file, registry, folder)
    return folder
