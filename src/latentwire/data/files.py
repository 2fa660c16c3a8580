"""From a path to JSON values: the one place where data files are found, decoded, parsed and taken apart.

Text is UTF-8, with or without a byte-order mark; every other encoding is refused, never guessed.
"""

import json
from pathlib import Path
from typing import TypeVar

from latentwire.errors import DataError

T = TypeVar("T")
_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "an integer"}
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def data_files(path: str | Path, suffix: str) -> list[Path]:
    """The file itself, or every file of a folder whose name ends in `suffix`, sorted by name.

    Raises:
        DataError: Nothing at `path`, nothing readable there, or a folder without such a file.
    """
    path = Path(path)
    try:
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise DataError(f"expected a file or folder at {path}, found nothing; check the path")
        files = sorted(file for file in path.iterdir() if file.name.endswith(suffix) and file.is_file())
    except OSError as error:
        raise DataError(f"{path}: expected a readable path, got '{error.strerror}'; check it") from None
    if not files:
        raise DataError(f"expected *{suffix} files in {path}, found none; add one or give the path of a file")
    return files


def read_text(file: Path) -> str:
    """The file's text; a UTF-8 byte-order mark is harmless and dropped.

    Raises:
        DataError: A file that cannot be read or is not UTF-8.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: expected a readable file, got '{error.strerror}'; check its permissions") from None
    if raw.startswith(_OTHER_MARKS) or b"\0" in raw[:4]:
        raise DataError(f"{file}: expected UTF-8 text, got UTF-16 or UTF-32; save the file as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise DataError(f"{file}: expected UTF-8 text, got {byte}; save the file as UTF-8") from None


def parse_json(text: str, where: str) -> object:
    """The JSON value in `text`.

    Raises:
        DataError: Truncated or malformed JSON, or text that no UTF-8 file can hold (half of a surrogate pair).
    """
    try:
        value: object = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected whole JSON, got '{error}'; write or download it again") from None
    return value


def describe(value: object) -> str:
    """What a JSON value is, in words."""
    return "nothing" if value is None else _KINDS.get(type(value), type(value).__name__)


def quote(text: str) -> str:
    """The text in quotes, on one line; the end of a long one is left out."""
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


def member(entry: object, name: str, kind: type[T], where: str) -> T:
    """`entry[name]`, which must be of `kind`; `DataError` names what is there instead."""
    todo = "fix it, or choose the data set or field names that fit this file"
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object with '{name}', got {describe(entry)}; {todo}")
    value = entry.get(name)
    if not isinstance(value, kind):
        raise DataError(f"{where}: expected '{name}' to be {_KINDS[kind]}, got {describe(value)}; {todo}")
    return value
