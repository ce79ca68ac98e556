"""Decide who may ask over HTTP: the rules that `finagent serve`, the REST and the pages share.

Where no token is set, only this machine's own requests pass. They must also address this machine by
a loopback name: otherwise a web page open in a browser here could act for whoever wrote it (DNS
rebinding). With a token, whoever sends it passes; whoever sends wrong ones is refused for a while,
and nobody else is. No page of another site may change anything.
"""

from __future__ import annotations

import hmac
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.requests import Request

from finagent_model.errors import BadInputError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]{1,5})?", re.ASCII)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""
MAX_WRONG_TOKENS = 10
"""Wrong tokens of one caller in a row that are looked at."""
WRONG_TOKEN_PAUSE_S = 6.0
"""Seconds after which one more is."""
MAX_CALLERS = 10_000
"""Callers with wrong tokens that are remembered; the oldest is forgotten."""
IPV6_NETWORK_BITS = 64
"""What one caller has of an IPv6 address: the rest is theirs to choose."""


class AuthError(Exception):
    """A request that is not authorised; `status` is the HTTP status of the response.

    `retry_after_s` is when the same request may be looked at, in whole seconds; None: never.
    """

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}


def require_token(request: Request, token: SecretStr, variable: str) -> None:
    """Raise AuthError (401) unless the request bears `token`, the value of `variable`; 429 after
    too many wrong ones.
    """
    require_any_token(request, {variable: token})


def require_any_token(request: Request, tokens: Mapping[str, SecretStr]) -> None:
    """Raise AuthError (401) unless the request bears one of `tokens`, by their variables; 429 after
    too many wrong ones.
    """
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not check_token(
        request, credentials.strip(), *tokens.values()
    ):
        variables = " or ".join(tokens)
        raise AuthError(401, f"send the token of {variables} as 'Authorization: Bearer TOKEN'")


def check_token(
    request: Request, candidate: str, *tokens: SecretStr, caller: str | None = None
) -> bool:
    """Return whether `candidate` is one of the tokens.

    Raises AuthError (429), without a look at it, for a caller who has sent too many wrong ones.
    `caller` is who asks; None: the address that the request came from.
    """
    throttle: TokenThrottle = getattr(request.app.state, "token_throttle", None) or TokenThrottle()
    # One throttle for all doors of an app.
    request.app.state.token_throttle = throttle
    return throttle.check(caller or caller_address(request), candidate, *tokens)


def caller_address(request: Request) -> str:
    """Return the address that a request came from; of IPv6 the network."""
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and not address.ipv4_mapped:
        return str(ip_network((address, IPV6_NETWORK_BITS), strict=False))
    return host


class TokenThrottle:
    """Limits guesses: by the caller, so that a stranger's wrong tokens keep nobody else out.

    A caller may send `MAX_WRONG_TOKENS` wrong ones, and one more every `WRONG_TOKEN_PAUSE_S`. Where
    a server has several processes, each allows its part of that.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic, *, processes: int = 1) -> None:
        self._timer, self._lock = timer, Lock()
        self._max_wrong = max(1, MAX_WRONG_TOKENS // processes)
        self._pause_s = WRONG_TOKEN_PAUSE_S * processes
        self._free_at: OrderedDict[str, float] = OrderedDict()
        """When all wrong tokens of a caller are forgotten."""

    def check(self, caller: str, candidate: str, *tokens: SecretStr) -> bool:
        """Return whether `candidate` is one of the tokens. Raises AuthError (429)."""
        # Nothing is no guess.
        if not candidate:
            return False
        with self._lock:
            now = self._timer()
            free_at = max(self._free_at.get(caller, now), now)
            wait_s = free_at + self._pause_s - (now + self._max_wrong * self._pause_s)
            if wait_s > 0:
                seconds = math.ceil(wait_s)
                raise AuthError(
                    429,
                    "too many wrong tokens came from where you are, so this one was not looked "
                    f"at; try again in {seconds} s",
                    seconds,
                )
            # A right one forgives nothing: its sender may be guessing at another token.
            if any([is_token(candidate, token) for token in tokens]):
                return True
            self._free_at[caller] = free_at + self._pause_s
            self._free_at.move_to_end(caller)
            while len(self._free_at) > MAX_CALLERS:
                self._free_at.popitem(last=False)
            return False


def require_this_machine(request: Request, way_out: str) -> None:
    """Raise AuthError (403) with the message `way_out` for a request from another machine."""
    # Both ends: a page's request comes from this machine too, but names the page's own host.
    if not (
        request.client
        and is_loopback(request.client.host)
        and is_loopback(_read_host_name(request) or "")
    ):
        raise AuthError(403, way_out)


def require_same_origin(request: Request, *, browser_only: bool = False) -> None:
    """Raise AuthError (403) for a change that another site's page asks for.

    A program sends neither of the headers that tell; with `browser_only` it is refused, too.
    """
    if request.method in SAFE_METHODS:
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin is None:
        is_ours = site == "same-origin" or (site is None and not browser_only)
    else:
        is_ours = _is_origin_of(origin, request.headers.get("host"))
    if not is_ours or site not in (None, "same-origin"):
        pages = "these pages" if browser_only else "programs and our own pages"
        raise AuthError(403, f"changes are made from {pages} alone; open them and retry")


def require_token_for_host(host: str, token: SecretStr | None, variable: str, risk: str) -> None:
    """Raise BadInputError if a server would listen to other machines without a token."""
    if token is None and not is_loopback(host):
        raise BadInputError(
            f"--host {host} lets other machines in, and whoever reaches {risk}; "
            f"set {variable}, or leave --host out"
        )


def _read_host_name(request: Request) -> str | None:
    """Return the name or address in the Host header; None unless there is one, well written."""
    # Not `request.url`: for a malformed header Starlette puts the server's own address there.
    hosts = request.headers.getlist("host")
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    return match[1].lower() if match else None


def _is_origin_of(origin: str, host: str | None) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:  # no address at all
        return False


def is_token(text: str, token: SecretStr) -> bool:
    """Return whether `text` is the token, compared in constant time."""
    return hmac.compare_digest(text.encode(), token.get_secret_value().encode())


def is_loopback(host: str) -> bool:
    """Return whether `host`, an address or a name, is this machine's own; no name is resolved."""
    if host == "localhost":
        return True
    try:
        # URLs write IPv6 addresses in brackets.
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    # A dual-stack socket reports an IPv4 client as ::ffff:127.0.0.1.
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
