"""Where a server is: the URL of a route under an address as people write it, and the proxy that leads there."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kun_builder.errors import ModelError

if TYPE_CHECKING:
    from yarl import URL

_API = "/v1"
_ROUTES = ("/chat/completions", "/completions", "/models")
"""Routes that people leave at the end of an address that they have copied."""
_KEY = 8
"""Characters of the shortest value of a query that may be a key."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Address:
    """One address of `endpoints`. `api` is the path that stands for `/v1`, `root` that of all other routes.

    An address without a path has its API at `/v1`, one with a path exactly there. Its query (`?api-version=...`) goes
    along with every request.
    """

    base: URL = field(repr=False)
    api: str
    root: str

    @classmethod
    def read(cls, url: str) -> Address:
        """Read an address as people write it. Raises ModelError if `url` is not an http(s) address."""
        from yarl import URL

        try:
            base = URL(url.strip())
            known = base.scheme in {"http", "https"} and bool(base.host)
        except ValueError:
            known = False
        if not known:
            raise ModelError(
                f"endpoint {url!r} is not an address", hint="write it with scheme, host and port: http://127.0.0.1:8000"
            )
        path = base.raw_path.rstrip("/")
        for route in _ROUTES:
            path = path.removesuffix(route)
        return cls(base, path or _API, path.removesuffix(_API))

    def route(self, path: str) -> URL:
        """The URL of a route such as `/v1/models`, `/health` or `/v1/batches?limit=1`."""
        path, _, query = path.partition("?")
        below = path.removeprefix(_API)
        full = self.api + below if below.startswith("/") and below != path else self.root + path
        return self.base.with_path(full, encoded=True, keep_query=True).extend_query(query)

    @property
    def shown(self) -> str:
        """The address for people and keys: without user, password and query, and without a mere `/v1`."""
        path = "" if self.api == _API else self.api
        return str(self.base.with_user(None).with_path(path, encoded=True)).rstrip("/")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: the password, and values of the query of 8 or more characters, which may be keys."""
        password = self.base.password
        return (*([password] if password else []), *(v for v in self.base.query.values() if len(v) >= _KEY))


@dataclass(frozen=True)
class Proxy:
    """The environment's proxy for an address, and the variable that names it."""

    url: str = field(repr=False)
    variable: str

    @property
    def shown(self) -> str:
        """The address for people: without user and password."""
        from yarl import URL

        return f"the proxy {URL(self.url).with_user(None)} ({self.variable} in the environment)"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: the proxy's password."""
        from yarl import URL

        return tuple(filter(None, (URL(self.url).password,)))


def proxy_for(address: Address) -> Proxy | None:
    """The proxy that leads to `address`; None if there is none. A server on this machine is always asked directly.

    Raises ModelError for a proxy of a kind that is not supported, or with an address that cannot be read.
    """
    from urllib.request import getproxies

    base = address.base
    found = getproxies()
    name = base.scheme if base.scheme in found else "all"
    if name not in found or base.host in _LOOPBACK or _bypassed(base, found.get("no", "")):
        return None
    variable = next(
        (v for v in (f"{name}_proxy", f"{name}_proxy".upper()) if os.environ.get(v)), "the system's settings"
    )
    proxy = Proxy(found[name] if "://" in found[name] else f"http://{found[name]}", variable)
    _check(proxy, address)
    return proxy


def _check(proxy: Proxy, address: Address) -> None:
    from yarl import URL

    hint = f"give an http proxy, or let {address.base.host} be reached without one: add it to `no_proxy`"
    try:
        scheme = URL(proxy.url).scheme if URL(proxy.url).host else ""
    except ValueError:
        scheme = ""
    if not scheme:
        raise ModelError(f"{proxy.variable} in the environment is not the address of a proxy", hint=hint)
    if scheme not in {"http", "https"}:
        raise ModelError(f"{address.shown}: {proxy.shown} speaks {scheme}, which cannot be used here", hint=hint)


def _bypassed(base: URL, listed: str) -> bool:
    """Whether `no_proxy` or the system's own settings say that the server is asked without a proxy. An entry is a host
    or the end of one, with or without a port, an IP address or network (`10.0.0.0/8`), or `*`."""
    from urllib.request import proxy_bypass

    host = (base.host or "").lower().rstrip(".")
    return any(_names(entry.strip().lower(), host, base.port) for entry in listed.split(",")) or bool(
        proxy_bypass(host)
    )


def _names(entry: str, host: str, port: int | None) -> bool:
    if not entry:
        return False
    if entry == "*":
        return True
    found = _network(entry)
    if found is not None:
        address = _network(host)
        return address is not None and address.version == found.version and address.network_address in found
    name, _, number = entry.rpartition(":")
    if name and number.isdecimal():
        return port == int(number) and _names(name, host, port)
    name = entry.strip("[]").removeprefix("*").strip(".")
    return host == name or host.endswith(f".{name}")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """`text` as an IP address or network; None if it is a name."""
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
