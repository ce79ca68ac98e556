"""Read a wheel of this package that somebody gives: all of it is foreign.

A wheel is a zip file whose RECORD lists the hash of every file. Nothing of it is run here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from finagent_model.errors import BadInputError
from finagent_model.model.wheel import NAME, record_hash

MAX_WHEEL_BYTES = 100 * 1024 * 1024
MAX_UNPACKED_BYTES = 400 * 1024 * 1024
MAX_FILES = 20_000
MAX_CHARS_SHOWN = 80
MAX_PATH_BYTES = 1000
"""Of a file in the wheel; systems allow 4096 with the folder that it is unpacked to."""
MAX_NAME_BYTES = 255
"""Of a file or a folder, as file systems allow."""
VERSION = re.compile(
    r"v?(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?"
    r"(-\d+|[-_.]?(post|rev|r)[-_.]?\d*)?([-_.]?dev[-_.]?\d*)?(\+[a-z0-9]+([-_.][a-z0-9]+)*)?",
    re.ASCII | re.IGNORECASE,
)
"""A version as PEP 440 spells it."""
MAX_VERSION_CHARS = 100
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class WheelCode:
    """The files of a wheel of this package, each as its RECORD says."""

    path: Path
    version: str
    sha256: str
    """Of the wheel's file."""
    files: dict[str, bytes]
    """Content by path in the wheel."""

    @classmethod
    def read(cls, path: Path, sha256: str | None = None) -> WheelCode:
        """Return the wheel's files. Raises BadInputError for what is no wheel of this package.

        With `sha256` the file must have that hash.
        """
        content = _read_bytes(path)
        found = hashlib.sha256(content).hexdigest()
        if sha256 is not None and sha256.strip().lower() != found:
            raise BadInputError(
                f"{path} has the SHA-256 {found}, not {sha256[:MAX_CHARS_SHOWN]!r}; take the "
                "wheel that the hash was published with"
            )
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                files = _unzip(path, archive)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, EOFError, OSError):
            raise _bad_wheel(path, "it is not a zip file, or a damaged one") from None
        folder = _find_info(path, files)
        headers = HeaderParser().parsestr(files[f"{folder}/METADATA"].decode(errors="replace"))
        name = str(headers["Name"])
        if re.sub(r"[-_.]+", "_", name).lower() != NAME:
            raise BadInputError(
                f"{path} is a wheel of {name[:MAX_CHARS_SHOWN]!r}, not of {NAME.replace('_', '-')}"
            )
        _check_record(path, files, f"{folder}/RECORD")
        foreign = [each for each in files if each.split("/")[0] not in (NAME, folder)]
        if foreign:
            # They would take the place of modules that the code imports.
            raise _bad_wheel(path, f"it also holds {foreign[0][:MAX_CHARS_SHOWN]!r}")
        return cls(path, _read_version(path, headers["Version"]), found, files)

    def unpack(self, folder: Path) -> None:
        """Write the files below `folder`, from which Python can import them.

        Raises BadInputError where they can't be written.
        """
        for name, content in self.files.items():
            target = folder / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "its name has no such encoding here"
                raise BadInputError(
                    f"{self.path}: {name[:MAX_CHARS_SHOWN]!r} can't be unpacked ({reason}); set "
                    "TMPDIR to a folder that can take it"
                ) from None

    def read_pins(self) -> dict[str, str]:
        """Return the requirements that the wheel's models have, version by normal name."""
        content = self.files.get(f"{NAME}/model/requirements.txt")
        if content is None:
            raise _bad_wheel(self.path, "it has no list of requirements")
        return parse_pins(content.decode(errors="replace"), str(self.path))


def parse_pins(text: str, label: str) -> dict[str, str]:
    """Return the version by normal name of a list of `name==version`; wheels are left out.

    Raises BadInputError for any other line, naming `label`.
    """
    pins = {}
    for line in (each.strip() for each in text.splitlines()):
        if not line or line.startswith("#") or line.endswith(".whl"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.+!-]+)", line, re.ASCII)
        if match is None:
            raise BadInputError(
                f"{label} requires {line[:MAX_CHARS_SHOWN]!r}, which names no exact version"
            )
        pins[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return pins


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_WHEEL_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"wheel {path} can't be read: {error.strerror}") from None
    if len(content) > MAX_WHEEL_BYTES:
        raise _bad_wheel(path, f"it has more than {MAX_WHEEL_BYTES:,} bytes")
    return content


def _unzip(path: Path, archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = [each for each in archive.infolist() if not each.is_dir()]
    if len(entries) > MAX_FILES:
        raise _bad_wheel(path, f"it has more than {MAX_FILES:,} files")
    files: dict[str, bytes] = {}
    room = MAX_UNPACKED_BYTES
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        is_plain = "/".join(parts) == entry.filename and not {"..", "/"} & {*parts}
        is_plain &= entry.filename.isprintable() and _is_short(parts)
        is_link = stat.S_ISLNK(entry.external_attr >> 16)
        if not is_plain or is_link or "\\" in entry.filename or entry.filename in files:
            raise _bad_wheel(path, f"it has the path {entry.filename[:MAX_CHARS_SHOWN]!r}")
        if entry.flag_bits & 1:
            raise _bad_wheel(path, "it is encrypted")
        # Others, which wheels don't use, may ask for gigabytes of memory.
        if entry.compress_type not in _METHODS:
            raise _bad_wheel(path, f"it is compressed by method {entry.compress_type}")
        # By what comes out, since a header may understate it.
        content = bytearray()
        with archive.open(entry) as file:
            while chunk := file.read(_CHUNK_BYTES):
                room -= len(chunk)
                if room < 0:
                    raise _bad_wheel(path, f"it unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
                content += chunk
        files[entry.filename] = bytes(content)
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    if both := sorted(folders & files.keys()):
        raise _bad_wheel(path, f"{both[0][:MAX_CHARS_SHOWN]!r} is a file and a folder")
    return files


def _is_short(parts: tuple[str, ...]) -> bool:
    sizes = [len(part.encode(errors="replace")) for part in parts]
    return max(sizes, default=0) <= MAX_NAME_BYTES and sum(sizes) + len(sizes) <= MAX_PATH_BYTES


def _read_version(path: Path, text: object) -> str:
    """Return the version that METADATA names. Raises BadInputError for none, and for no version."""
    version = "" if text is None else str(text)
    if len(version) > MAX_VERSION_CHARS or VERSION.fullmatch(version) is None:
        named = f"the version {version[:MAX_CHARS_SHOWN]!r}" if version else "no version"
        raise _bad_wheel(path, f"its METADATA names {named}; write one such as 0.1.0")
    return version


def _find_info(path: Path, files: dict[str, bytes]) -> str:
    """Return the folder of the wheel's metadata."""
    found = [
        name.split("/")[0] for name in files if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
    ]
    if len(found) != 1:
        raise _bad_wheel(path, "it has no METADATA of one package")
    return found[0]


def _check_record(path: Path, files: dict[str, bytes], record: str) -> None:
    """Raise BadInputError unless RECORD lists every file with its hash."""
    try:
        rows = list(csv.reader(io.StringIO(files[record].decode())))
        listed = {row[0]: row[1] for row in rows if row}
    except (KeyError, IndexError, UnicodeDecodeError, csv.Error):
        raise _bad_wheel(path, "its RECORD can't be read") from None
    for name in sorted({*files, *listed} - {record}):
        if name not in files or listed.get(name) != f"sha256={record_hash(files[name])}":
            raise _bad_wheel(path, f"{name[:MAX_CHARS_SHOWN]!r} is not as its RECORD says")


def _bad_wheel(path: Path, reason: str) -> BadInputError:
    return BadInputError(f"{path} is not a wheel that can be used: {reason}")
