"""Decide who may ask over HTTP: the rules that `finagent serve`, the REST and the pages share.

Where no token is set, only this machine's own requests pass. They must also address this machine by
a loopback name: otherwise a web page open in a browser here could act for whoever wrote it (DNS
rebinding). With a token, whoever sends it passes. No page of another site may change anything.
"""

from __future__ import annotations

import hmac
import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.requests import Request

from finagent_model.errors import BadInputError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]{1,5})?", re.ASCII)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""


class AuthError(Exception):
    """A request that is not authorised; `status` is the HTTP status of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def require_token(request: Request, token: SecretStr, variable: str) -> None:
    """Raise AuthError (401) unless the request bears `token`, the value of `variable`."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not is_token(credentials.strip(), token):
        raise AuthError(401, f"send the token of {variable} as 'Authorization: Bearer TOKEN'")


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
