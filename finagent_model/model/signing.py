"""Sign a registered version with an operator's Ed25519 key, and check such signatures.

The anchor protects against whoever can change files but not the registry. A signature protects
against whoever can change both: it names the version and all its hashes, and the key that makes it
is in no store. Keys are 32 bytes in base64; `finagent signing-key` makes a pair.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from finagent_model.errors import BadInputError, SignatureError
from finagent_model.settings import Settings

PRIME = 2**255 - 19
"""Of the field of Curve25519 (RFC 8032, 5.1)."""
CURVE_D = -121665 * pow(121666, -1, PRIME) % PRIME


def new_key_pair() -> tuple[str, str]:
    """Return a new private key and its public key, each in base64."""
    private = Ed25519PrivateKey.generate()
    return (
        base64.b64encode(private.private_bytes_raw()).decode(),
        base64.b64encode(private.public_key().public_bytes_raw()).decode(),
    )


def key_id(public: bytes) -> str:
    """Return the first 16 digits of a public key's SHA-256, which name the key in messages."""
    return hashlib.sha256(public).hexdigest()[:16]


def make_statement(name: str, version: str, content_hash: str, files: Mapping[str, str]) -> bytes:
    """Return what a signature is made of: the version and the hashes of all its files."""
    statement = {
        "purpose": "finagent version",
        "name": name,
        "version": version,
        "content_hash": content_hash,
        "files": dict(files),
    }
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


def sign(private_key: str, statement: bytes) -> str:
    """Return the tag that holds the signature of `statement`. Raises BadInputError for a bad key.

    The key's text is never part of a message.
    """
    try:
        private = Ed25519PrivateKey.from_private_bytes(_decode(private_key))
    except (ValueError, binascii.Error):
        raise BadInputError(
            "FINAGENT_SIGNING_KEY is not an Ed25519 key: 32 bytes in base64; "
            "`finagent signing-key` makes one"
        ) from None
    public = private.public_key().public_bytes_raw()
    signature = base64.b64encode(private.sign(statement)).decode()
    return json.dumps({"key": key_id(public), "signature": signature}, sort_keys=True)


def check_signature(
    settings: Settings, tag: str | None, statement: bytes, subject: str
) -> str | None:
    """Return the id of the trusted key that signed `statement`; None where none is asked for.

    `tag` is what `sign` returned, None without one; `subject` names the version in messages. Raises
    SignatureError for a signature that no trusted key made, and without one where settings require
    it.
    """
    trusted = _read_trusted(settings.trusted_keys)
    if tag is None:
        if settings.require_signature:
            raise SignatureError(
                f"{subject} is not signed, and FINAGENT_REQUIRE_SIGNATURE is set; whoever holds "
                "the signing key signs it by `finagent promote`"
            )
        return None
    if not trusted and not settings.require_signature:
        # Without a trusted key nobody can tell a signature from a forged one.
        return None
    key, signature = _read_tag(tag)
    public = trusted.get(key)
    if public is None:
        raise SignatureError(
            f"{subject} is signed by key {key!r:.40}, which is not among FINAGENT_TRUSTED_KEYS "
            f"({', '.join(trusted)}); add its public key, or sign again by `finagent sign`"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
    except InvalidSignature:
        raise SignatureError(
            f"the signature of {subject} is not of these files; compare `finagent verify`, "
            "and sign again by `finagent sign` if they are right"
        ) from None
    return key


def _read_trusted(keys: Sequence[str]) -> dict[str, bytes]:
    """Return the trusted public keys by id. Raises BadInputError naming what is no key."""
    trusted = {}
    for text in keys:
        try:
            public = _decode(text)
            Ed25519PublicKey.from_public_bytes(public)
            if not _is_point(public):
                raise ValueError("no point of the curve")
        except (ValueError, binascii.Error):
            raise BadInputError(
                f"environment variable FINAGENT_TRUSTED_KEYS: {text!r:.60} is not a public Ed25519 "
                "key: 32 bytes in base64"
            ) from None
        if _has_small_order(public):
            raise BadInputError(
                f"environment variable FINAGENT_TRUSTED_KEYS: {text!r:.60} is a key of small "
                "order: anybody can sign with it; `finagent signing-key` makes a pair"
            )
        trusted[key_id(public)] = public
    return trusted


def _is_point(public: bytes) -> bool:
    """Return whether the key is a point of the curve, which OpenSSL only asks when it verifies."""
    y_squared = _read_y(public) ** 2 % PRIME
    x_squared = (y_squared - 1) * pow(CURVE_D * y_squared + 1, -1, PRIME) % PRIME
    # Euler's criterion: 0 and squares have a root.
    return pow(x_squared, (PRIME - 1) // 2, PRIME) in (0, 1)


def _has_small_order(public: bytes) -> bool:
    """Return whether eight times the key's point is the neutral element.

    A signature by such a key can be made without a private key: OpenSSL checks S*B = R + h*A, and
    h*A is one of eight points.
    """
    # y is 1 for order 1, -1 for order 2, 0 for order 4; twice a point of order 8 has y = 0, which
    # by the doubling formula is d*y^4 + 2*y^2 = 1. Signs and encodings of y + p don't matter.
    y_squared = _read_y(public) ** 2 % PRIME
    return y_squared in (0, 1) or (CURVE_D * y_squared**2 + 2 * y_squared - 1) % PRIME == 0


def _read_y(public: bytes) -> int:
    return int.from_bytes(public, "little") % 2**255 % PRIME


def _read_tag(tag: str) -> tuple[str, bytes]:
    """Return the key's id and the signature of a tag; nonsense is a signature of nobody."""
    try:
        row = json.loads(tag)
        return str(row["key"]), _decode(str(row["signature"]))
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        return "unreadable", b""


def _decode(text: str) -> bytes:
    return base64.b64decode(text.strip(), validate=True)
