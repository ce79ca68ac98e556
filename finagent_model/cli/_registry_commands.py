"""Look at registered versions and move the champion: `models`, `promote`, `rollback`, `lineage`.

`lineage` follows a signal, a version or data through MLflow, and compares hashes on the way.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finagent_model.cli.options import (
    CONSOLE_WIDTH,
    EXIT_REFUSED,
    Json,
    Name,
    echo,
    print_json,
    print_table,
    refuse_given,
    require_store,
    shorten_hash,
)
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from finagent_model.pipeline.lineage import DataLineage, SignalLineage, VersionLineage


def models(name: Name = "finagent", as_json: Json = False) -> None:
    """List the registered versions with their grade and the gate's verdict."""
    from finagent_model.tracking import registry

    require_store(is_short=True)
    rows = registry.list_versions(name)
    # On stderr, as JSON is a list of versions, and this is none any more.
    for alias, number in registry.find_dangling_aliases(name).items():
        echo(
            f"{alias} points to version {number}, which was deleted; `finagent promote VERSION` "
            f"moves {registry.CHAMPION}, a training {registry.CANDIDATE}",
            err=True,
        )
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    # On stderr: stdout stays empty for scripts.
    if not rows:
        option = "" if name == "finagent" else f" --register-as {name}"
        echo(f"no version of {name} yet; `finagent train{option}` makes one", err=True)
        return
    head = ("VERSION", "ALIASES", "GATE", "EVIDENCE", "RUN")
    cells = [
        (
            row.version,
            ",".join(row.aliases) or "-",
            row.verdict or "no verdict",
            row.evidence or "not assessed",
            row.run_id or "unknown",
        )
        for row in rows
    ]
    widths = [max(len(row[column]) for row in (head, *cells)) for column in range(4)]
    lines = (
        "  ".join([*(text.ljust(width) for text, width in zip(left, widths, strict=True)), run])
        for *left, run in (head, *cells)
    )
    print_table(head, [(*left, shorten_hash(run)) for *left, run in cells], lines)


def promote(
    version: Annotated[str, typer.Argument(help="Number of a version that the gate passed.")],
    name: Name = "finagent",
    force: Annotated[
        bool, typer.Option("--force", help="Promote although the gate refused the version.")
    ] = False,
    why: Annotated[
        str | None, typer.Option(help="Reason, stored with the user and the time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a version champion.

    The version is signed where FINAGENT_SIGNING_KEY is set.
    """
    from finagent_model.model.loading import sign_version
    from finagent_model.settings import Settings
    from finagent_model.tracking import registry

    require_store(is_short=True)
    sign = partial(sign_version, name, version, Settings.load())
    row = registry.promote(name, version, force=force, why=why, sign=sign)
    _print_champion(asdict(row), as_json)


def sign(
    version: Annotated[str, typer.Argument(help="Number of a registered version.")],
    name: Name = "finagent",
) -> None:
    """Sign a version with FINAGENT_SIGNING_KEY.

    Its files are compared with their registered hashes first. No alias moves.
    """
    from finagent_model.model.loading import sign_version
    from finagent_model.settings import Settings
    from finagent_model.tracking import registry

    require_store(is_short=True)
    registry.find_version(name, version)
    if not sign_version(name, version, Settings.load()):
        raise BadInputError(
            "FINAGENT_SIGNING_KEY is not set; `finagent signing-key` makes a pair of keys"
        )
    echo(f"version {version} of {name} is signed")


def rollback(
    name: Name = "finagent",
    why: Annotated[
        str | None, typer.Option(help="Reason, stored with the user and the time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the previous champion champion again."""
    from finagent_model.tracking import registry

    require_store(is_short=True)
    _print_champion(asdict(registry.rollback(name, why)), as_json)


def signing_key(as_json: Json = False) -> None:
    """Print a new key pair for signing versions.

    Nothing is stored. Set FINAGENT_SIGNING_KEY to the private key where versions are promoted, and
    FINAGENT_TRUSTED_KEYS to the public one where they are loaded.
    """
    from finagent_model.model.signing import new_key_pair

    private, public = new_key_pair()
    if as_json:
        print_json({"private": private, "public": public})
        return
    echo(f"FINAGENT_SIGNING_KEY={private}")
    echo(f"FINAGENT_TRUSTED_KEYS={public}")


def _print_champion(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        echo(f"version {row['version']} is champion")


def lineage(
    ctx: typer.Context,
    signal_id: Annotated[str | None, typer.Argument(help="Id of a stored signal.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Number of a version, to list its signals.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="SHA-256 of data, to list what used them.")
    ] = None,
    name: Name = "finagent",
    as_json: Json = False,
) -> None:
    """Trace a signal to its run, version, training and data.

    Each is compared with what is stored now. With --version or --data it lists what came of them.
    Exit code 5 where something has changed.
    """
    if sum(option is not None for option in (signal_id, version, data)) != 1:
        raise BadInputError(
            "name one thing to look up: the id of a signal, --version N or --data SHA256"
        )
    if version is None:
        refuse_given(ctx, ["name"], "belongs to --version; leave it out")
    require_store(is_short=True)
    traced = _read_lineage(signal_id, version, data, name)
    if as_json:
        print_json(traced.row())
    else:
        from rich.console import Console

        from finagent_model.cli._lineage_tree import draw_lineage

        # A line is never broken or cut: ids are for copying.
        Console(highlight=False, width=CONSOLE_WIDTH).print(draw_lineage(traced), soft_wrap=True)
    # Data's lineage has nothing to compare with, and so no `is_intact`.
    if not getattr(traced, "is_intact", True):
        raise typer.Exit(EXIT_REFUSED)


def _read_lineage(
    signal_id: str | None, version: str | None, data: str | None, name: str
) -> SignalLineage | VersionLineage | DataLineage:
    from finagent_model.pipeline import lineage as reader
    from finagent_model.settings import Settings

    if signal_id is not None:
        return reader.lineage_of_signal(signal_id, Settings.load())
    if version is not None:
        return reader.lineage_of_version(name, version, Settings.load())
    return reader.lineage_of_data(str(data))
