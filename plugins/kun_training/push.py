"""A trained model to the Hub: all files in one commit, without the seeds."""

from __future__ import annotations

from pathlib import Path

from kun_builder.errors import PublishError
from kun_builder.hub.client import keep_token_home
from kun_builder.hub.retry import Retry
from kun_training.job import UNPUBLISHED, read_record


def push_model(
    folder: Path, repo: str, *, private: bool = True, token: str | None = None, retry: Retry | None = None
) -> str:
    """Upload the finished model in `folder` to the model repository `repo`, made if need be; returns its address.

    Raises PublishError.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    record = read_record(folder)
    if record is None or not record.finished:
        raise PublishError(f"{folder} holds no finished model", hint="run the training to its end first")
    keep_token_home(constants.ENDPOINT)
    api, retry = HfApi(token=token), retry or Retry()
    retry("make the repository", api.create_repo, repo, private=private, exist_ok=True)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_published(path.relative_to(folder))]

    def commit() -> str:
        head = retry("look at the repository", api.model_info, repo).sha
        operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), str(path)) for path in files]
        retry("upload the model", api.preupload_lfs_files, repo, operations, free_memory=False)
        message = f"The {record.task} model of kun-builder"
        made = retry.once(  # what is there already makes no second commit: `create_commit` leaves it out
            "commit the model", api.create_commit, repo, operations, commit_message=message, parent_commit=head
        )
        return str(made.commit_url)

    return retry.look_again(f"could not commit to {repo}", commit)


def _is_published(path: Path) -> bool:
    return path.parts[0] not in (*UNPUBLISHED, "base") and path.name != "training_args.bin"
