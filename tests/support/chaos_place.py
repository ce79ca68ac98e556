"""Places to break: clones of a trained one, and what must hold in them whatever was killed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.places import Place


def clone(source: Place, folder: Path) -> Place:
    """Copy a place; MLflow's absolute addresses of artifacts are moved along."""
    shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        ):
            store.execute(
                f"update {table} set {column} = replace({column}, ?, ?)",
                (str(source.folder), str(folder)),
            )
        store.commit()
    return Place(folder)


def rows(place: Place, query: str, file: str = "mlflow.db") -> list[tuple[Any, ...]]:
    """Read a database of the place; its tables are quicker than a client."""
    with closing(sqlite3.connect(place.folder / file)) as store:
        return store.execute(query).fetchall()


def assert_whole(place: Place) -> None:
    """Assert that no alias, version or package is half there."""
    versions = rows(
        place,
        "select version, storage_location, source from model_versions "
        "where name = 'finagent' and current_stage != 'Deleted_Internal'",
    )
    numbers = {version for version, *_ in versions}
    aliases = rows(place, "select alias, version from registered_model_aliases")
    assert {version for _, version in aliases} <= numbers
    for _, location, source in versions:
        [package] = (place.folder / "mlruns").rglob(f"{Path(source or location).name}/**/package")
        manifest = json.loads((package / "manifest.json").read_text())
        assert {p.name for p in package.iterdir()} >= {"manifest.json", "policy.json"}
        assert manifest["content_hash"]
    for (record,) in rows(
        place, "select value from model_version_tags where key = 'finagent.champion'"
    ):
        assert json.loads(record)["who"]


def add_version(place: Place) -> None:
    """Register version 1's package once more, as version 2, champion after it."""
    with closing(sqlite3.connect(place.folder / "mlflow.db")) as store:
        for table in ("model_versions", "model_version_tags"):
            columns = [name for _, name, *_ in store.execute(f"pragma table_info({table})")]
            values = ", ".join("2" if name == "version" else name for name in columns)
            store.execute(
                f"insert into {table} ({', '.join(columns)}) select {values} from {table} "
                "where name = 'finagent'"
            )
        store.execute(
            "update model_version_tags set value = json_set(value, '$.was', '1', '$.when', ?) "
            "where version = 2 and key = 'finagent.champion'",
            (datetime.now(UTC).isoformat(),),
        )
        store.execute(
            "update model_version_tags set key = 'finagent.previous', value = '1' "
            "where version = 2 and key = 'finagent.judged_beside'"
        )
        store.execute("update registered_model_aliases set version = 2")
        store.commit()


def champion(place: Place) -> int | None:
    """Return the champion's version."""
    found = rows(place, "select version from registered_model_aliases where alias = 'champion'")
    return found[0][0] if found else None
