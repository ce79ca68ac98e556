"""Who may change something over HTTP: whoever has the token; where none is set, callers on this
machine.

Without a token the address that was asked must be this machine's, too: no page in a browser here
can then act for whoever wrote it.
"""

from __future__ import annotations

import hmac
from ipaddress import IPv6Address, ip_address

from pydantic import SecretStr
from starlette.requests import Request


class AuthError(Exception):
    """`status` is the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def require_token(request: Request, token: SecretStr, variable: str) -> None:
    """Raises NotAdmittedError without the token of that variable."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not is_token(given.strip(), token):
        raise AuthError(401, f"send the token of {variable} as 'Authorization: Bearer TOKEN'")


def is_token(given: str, token: SecretStr) -> bool:
    """In the same time whatever is wrong with it."""
    return hmac.compare_digest(given.encode(), token.get_secret_value().encode())


def require_this_machine(request: Request, way_out: str) -> None:
    """Raises NotAdmittedError with the way out for callers from elsewhere."""
    if not (
        request.client
        and is_loopback(request.client.host)
        and is_loopback(request.url.hostname or "")
    ):
        raise AuthError(403, way_out)


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's own, as far as it tells."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
