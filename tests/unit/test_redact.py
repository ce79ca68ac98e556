"""What a message shows of an address: the place, and not who asks or with what."""

from __future__ import annotations

import pytest

from finagent_model._redact import redact_addresses
from finagent_model.data.protocols import MAX_REASON_CHARS, describe_error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fatal: https://me:pass@host/a failed", "fatal: https://host/a failed"),
        ("https://me:p@ss@host/a", "https://host/a"),
        ("https://token@host/a?key=k&b=2 and on", "https://host/a and on"),
        ("git@github.com:who/what", "git@github.com:who/what"),
        ("nothing of it? no", "nothing of it? no"),
    ],
)
def test_redact_addresses_strips_credentials(text: str, shown: str) -> None:
    assert redact_addresses(text) == shown


def test_reason_is_redacted_before_it_is_cut() -> None:
    long = "x" * (MAX_REASON_CHARS - 40)
    assert "secret" not in describe_error(ValueError(f"{long} https://me:secret-{'s' * 60}@host/a"))
