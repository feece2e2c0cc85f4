"""The nouns of kun-builder: rows, sources, stages, requests and completions.

Frozen dataclasses hold facts; Protocols describe callables. Nothing here imports a heavy package, and nothing
here is meant to be inherited from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa

    from kun_builder.declarations import Quantity

API_VERSION = 1
"""Version of everything that a plugin can see. A plugin states the one it was written for as `kun_api = 1`."""

Row: TypeAlias = dict[str, Any]
"""One document on its way: always has `id`, `split`, `file`, `position`, `text`; stages add columns."""

Message: TypeAlias = Mapping[str, str]
"""One turn of a chat: `{"role": "system" | "user" | "assistant", "content": ...}`."""

PromptText: TypeAlias = str | Sequence[Message]
"""What a model is asked: a string for a completion model, messages for a chat model."""


# --- sources ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an input file, parsed or broken.

    `index` counts the records of the file from 0; broken ones count, blank lines do not. `offset` is the byte in the
    (decompressed) stream at which the record begins, if known. A broken record has the reason in `error` and its first
    bytes in `raw`.
    """

    index: int
    data: Any = None
    offset: int | None = None
    error: str = ""
    raw: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A corpus: how to find its files, read their records and turn one record into text.

    Only `name` and `parse` are required; without `find` and `read`, the engine expands paths, directories and globs
    (keeping files that match `files`) and reads JSONL, JSON arrays, Parquet, CSV and text, bare or inside gz, bz2,
    xz, zst, tar, zip.

    parse: `parse(data, *, options...) -> str | None`: the document's text; None for a record without one (it is dropped
        with reason `no_text`). It may raise `Drop(reason, value)` for one that the options leave out, and ValueError,
        KeyError or TypeError for one that is broken: it is quarantined.
    find: `find(path, *, options...) -> Iterable[str]`: the inputs behind one `path:` of the recipe.
    read: `read(input, start, *, options...) -> Iterator[Record]`: records from index `start` on.
    verbatim: `verbatim(*, options...) -> str`: the field whose string `parse` returns as it is, or "" where it does
        more. Of plain JSON lines the engine takes that string itself, without a call for each record.
    files: glob patterns of the files to take from a directory.
    columns: the fields that `parse` uses; of a Parquet file, only these are read. Without it, all are.
    depth: how many trailing parts of a path name a file in row ids (WanJuan repeats file names in each folder).
    corpus: False for a reader of whatever files a user has: the card does not take its name for that of the corpus.
    license, homepage, citation: for the card; `redistributable` False keeps raw text out of what is published.
    sample: one real-looking record, shown by `kun-build plugins NAME`.
    """

    name: str
    parse: Callable[..., str | None]
    find: Callable[..., Iterable[str]] | None = None
    read: Callable[..., Iterator[Record]] | None = None
    verbatim: Callable[..., str] | None = None
    files: tuple[str, ...] = ("*",)
    columns: tuple[str, ...] = ()
    depth: int = 1
    corpus: bool = True
    license: str = ""
    redistributable: bool = False
    homepage: str = ""
    citation: str = ""
    sample: Any = None
    version: str = "1"


# --- stages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RowStage:
    """A stage that works row by row and may ask models: `async def run(row, generate, *, options...) -> Row`.

    run: returns the row with the columns of `adds` set, or raises `Drop(reason, value)`. Its keyword-only parameters,
        with their annotations and defaults, are the options of the stage in a recipe; there are no others. Beside its
        columns a row has `redistributable`: whether its corpus allows the text itself to be passed on.
    adds: the columns that the stage adds, each with its Arrow type: `string`, `binary`, `bool`, `int32`, `int64`,
        `float`, `double`, or `list<...>` of one.
    quantities: what the columns of numbers among them mean, by the name of the column.
    version: must change when the result for the same input changes.
    forms: for a stage that adds `instruction`: (name, RE2 pattern) of each form in which an instruction may ask. Report
        and card count the first one that matches.
    """

    name: str
    run: Callable[..., Awaitable[Row]]
    adds: Mapping[str, str] = field(default_factory=dict)
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    version: str = "1"
    forms: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class BatchStage:
    """A vectorised CPU stage: `def run(table: pa.Table, *, options...) -> pa.Table`.

    `run` returns the table with the columns of `adds`. It drops rows with `drop_rows(table, mask, reason, values)` and
    never removes them itself; it may add rows (a text cut in pieces), each with an `id` of its own.
    """

    name: str
    run: Callable[..., pa.Table]
    adds: Mapping[str, str] = field(default_factory=dict)
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    version: str = "1"


@dataclass(frozen=True, kw_only=True)
class DatasetStage:
    """A stage that must see all rows of all splits: near-duplicates, percentile cuts.

    measure: as `BatchStage.run`, with the same options; runs shard by shard first and adds the columns of `adds`.
    run: `def run(dataset: Dataset, *, options...) -> Sequence[tuple[int, str, object]]`: the rows to drop, each as
        (row number, reason, value). The dataset is memory-mapped; it holds `columns`, `adds` and what options of type
        `ColumnName` name. `def run(dataset, workspace, *, options...)` also gets a `Workspace`.
    """

    name: str
    run: Callable[..., Sequence[tuple[int, str, object]]]
    measure: Callable[..., pa.Table] | None = None
    adds: Mapping[str, str] = field(default_factory=dict)
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    columns: tuple[str, ...] = ("id", "split")
    version: str = "1"


Stage: TypeAlias = RowStage | BatchStage | DatasetStage


# --- models ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model, in neutral terms; each engine translates it into its dialect.

    max_new_tokens: upper limit of tokens to generate. temperature: 0 is greedy. repetition_penalty: 1 is none.
    top_p, seed: for sampling above temperature 0. With a seed of None the server chooses one.
    stop: strings at which the answer ends; they are not part of it.
    top_logprobs: how many alternatives to report per token.
    choices: the answer must be one of these strings, if the server can enforce it.
    schema: a JSON schema (a dict) that the answer must satisfy, instead of `choices`. The server enforces it if it can.
        Every answer is checked: one that does not satisfy it is asked for once more with another seed, then the row is
        dropped as `off_schema`. `Completion.data` has the value. Servers rarely show the schema to the model, so the
        prompt must say what is wanted.
    prompt_logprobs: also tell how likely the prompt itself is, token by token: `Completion.prompt_logprobs`. Only the
        prompt matters then, so ask for one token; a model that thinks gets no room to. `ModelInfo.prompt_logprobs` says
        whether a server can do it; few can.
    on_length, on_empty: what to do with a truncated or empty answer: `keep` it, `drop` the row, or `retry` once, with
        twice the tokens or with another seed, and then drop. They are no part of the journal's key.
    """

    prompt: str | tuple[Message, ...]
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    choices: tuple[str, ...] = ()
    on_length: Literal["keep", "drop", "retry"] = "retry"
    on_empty: Literal["keep", "drop", "retry"] = "retry"
    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    prompt_logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One token with its log-probability (natural logarithm) and the best alternatives, itself included."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered, without what it thought before.

    finish_reason: `stop`, `length` (cut off), or the server's own word for any other end, which drops the row.
    prompt_tokens, completion_tokens: the server's own counts, reasoning included.
    tokens: empty if no log-probabilities were asked for or the server gives none.
    key: finds the generation in the journal again. cached: whether it came from there.
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    tokens: tuple[Token, ...] = ()
    key: str = ""
    cached: bool = False
    reasoning_tokens: int = 0
    """How many of `completion_tokens` are reasoning; an estimate if the server does not tell."""
    data: Any = field(default=None, hash=False)
    """The value of an answer that was asked for by `schema`."""
    prompt_logprobs: tuple[Token, ...] = ()
    """The prompt's tokens from the second on, as the model saw them; nothing stands before the first that could make it
    likely or not. Empty if they were not asked for or the server gives none."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Who a model is, as its server said before the run. `revision` is a commit or the digest of a local file, empty if
    it is unknown; `context_length` is in tokens, 0 if it is unknown. `fingerprint` is what else the server says about
    its present state; no result depends on it."""

    id: str
    revision: str = ""
    context_length: int = 0
    prompt: Literal["chat", "completion"] = "chat"
    logprobs: bool = True
    tokenizer: str = ""
    license: str = ""
    variant: str = ""
    """Digest of fields that the recipe adds to every request, since answers depend on them; empty without any."""
    fingerprint: str = ""
    trained_for: tuple[str, ...] = ()
    """Stages whose prompts the model was trained with. At these it is asked in no other words."""
    prompt_logprobs: bool = False
    """Whether the server says how likely the tokens of a prompt are."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One entry of the recipe's `models:`; a model with nothing but a name is the embedded one."""

    name: str
    engine: str = "llamacpp"
    model: str = ""
    revision: str = ""
    endpoints: tuple[str, ...] = ()
    endpoints_file: str = ""
    """A file with one endpoint a line, for servers that come and go; it is read again every few seconds."""
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further HTTP headers, which go with every request."""
    prompt: Literal["chat", "completion"] = "chat"
    tokenizer: str = ""
    context_length: int = 0
    concurrency: int = 0
    """Fixed number of requests in flight per endpoint; 0 adapts."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """`requests_per_minute` and `tokens_per_minute` (prompts and answers together) of each endpoint, at most."""
    timeout: float = 600.0
    """Seconds until a request without an answer counts as failed."""
    wait: float = 600.0
    """Seconds to wait for an endpoint to come back when none is left."""
    cost_in: float = 0.0
    cost_out: float = 0.0
    """Money per million tokens."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The engine's own options: the keyword-only parameters of its `connect`."""


class Endpoint(Protocol):
    """One server that answers for one model. Each method is one request; none of them retries.

    Three attributes are optional. `in_flight`: how many requests it wants at once if the recipe gives no `concurrency`.
    `running`: how many requests the server worked on when `queued` was last asked, those of other clients included; by
    it, runs that ask the same server find their shares of it.
    `linger`: for how many seconds a place that became free is kept for the row that was just answered there, which pays
    where a server caches only the prompts that it has read last.
    """

    url: str

    async def info(self) -> ModelInfo:
        """Who answers here."""

    async def healthy(self) -> bool:
        """Whether requests can be sent now; never raises."""

    async def queued(self) -> int | None:
        """Requests that wait at the server by its own count; None where it does not tell; never raises."""

    async def complete(self, request: Request) -> Completion:
        """Ask; raises TransientError, RejectedError or FatalError by HTTP status."""

    async def count_tokens(self, text: str) -> int:
        """Number of tokens of `text` in the model's tokenizer, special tokens not counted."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A kind of server. `connect(spec, *, options...)` is an async context manager that yields one `Endpoint` per
    server, and in the end stops whatever it has started."""

    name: str
    connect: Callable[..., AbstractAsyncContextManager[Sequence[Endpoint]]]
    version: str = "1"
    collects: bool = False
    """Whether requests of many rows wait to be sent together, as one batch. On a cluster a single process then asks for
    all rows, so that its batches are as large as they may be and it finds those that a killed run has left behind."""


class Generate(Protocol):
    """All that a stage sees of models. The journal, the pool of endpoints and the engine are behind it."""

    async def __call__(self, model: str, prompt: PromptText, /, **parameters: Any) -> Completion:
        """Ask `model`; `parameters` are the fields of `Request`. Asking the same twice costs once.

        Raises Drop or RejectedError if there is no good answer. A stage lets them pass: they cost only its row."""

    def info(self, model: str) -> ModelInfo:
        """Who `model` is."""

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of tokens of `text` for `model`."""
