"""Git's hashes of files and folders, without Git: what is about to run can be held against the pin
on any machine.

Every file counts as an ordinary one (mode 100644): the pin has no other, and stores of artifacts
drop modes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def blob_hash(content: bytes) -> str:
    """Of one file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def tree_hash(folder: Path) -> str:
    """Of a folder with all that is in it, hidden files too; a symbolic link hashes as no file
    does.
    """
    entries = []
    for path in folder.iterdir():
        name = path.name.encode()
        if path.is_symlink():
            entries.append((name, b"120000", blob_hash(str(path.readlink()).encode())))
        elif path.is_dir():
            entries.append((name + b"/", b"40000", tree_hash(path)))
        else:
            entries.append((name, b"100644", blob_hash(path.read_bytes())))
    entries.sort()  # Git sorts a folder as if its name ended in a slash
    body = b"".join(
        mode + b" " + name.removesuffix(b"/") + b"\0" + bytes.fromhex(found)
        for name, mode, found in entries
    )
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
