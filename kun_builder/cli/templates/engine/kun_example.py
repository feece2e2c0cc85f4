"""The engine `example`: servers with two routes.

GET /info      -> {"model": "name", "context": 4096}
POST /generate {"prompt": "...", "tokens": 64, "temperature": 0.0}
               -> {"text": "...", "stopped": true, "tokens_in": 12, "tokens_out": 3}
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from kun_builder import Completion, Endpoint, Engine, ModelInfo, ModelSpec, Request, hookimpl
from kun_builder.engines.http import Server, open_servers
from kun_builder.errors import RequestError

kun_api = 1


@asynccontextmanager
async def connect(spec: ModelSpec) -> AsyncIterator[Sequence[Endpoint]]:
    """One endpoint for each address in `endpoints`. Keyword-only parameters here are options in the recipe."""
    async with open_servers(spec) as servers:
        yield [ExampleEndpoint(server) for server in servers]


class ExampleEndpoint:
    """One server. `Server` raises the errors that each HTTP status stands for; nothing here tries again."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self._server = server

    async def info(self) -> ModelInfo:
        """Who answers here."""
        about = await self._server.get("/info")
        return ModelInfo(id=about["model"], context_length=about["context"], logprobs=False)

    async def healthy(self) -> bool:
        """Whether requests can be sent now."""
        try:
            await self._server.get("/info")
        except RequestError:
            return False
        return True

    async def queued(self) -> int | None:
        """Requests that wait at the server: it does not tell."""
        return None

    async def count_tokens(self, text: str) -> int:
        """Its bytes: there are never more tokens than that."""
        return len(text.encode())

    async def complete(self, request: Request) -> Completion:
        """One answer. Messages become one text, since the server knows no roles."""
        prompt = request.prompt
        text = prompt if isinstance(prompt, str) else "\n\n".join(message["content"] for message in prompt)
        body = {"prompt": text, "tokens": request.max_new_tokens, "temperature": request.temperature}
        answer, _ = await self._server.post("/generate", body)
        reason = "stop" if answer["stopped"] else "length"
        return Completion(answer["text"], reason, answer["tokens_in"], answer["tokens_out"])


@hookimpl
def kun_engines() -> list[Engine]:
    """The engine."""
    return [Engine(name="example", connect=connect)]
