"""What a replay leaves on disk: one JSON object a line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from bridge.authority import Entry, Message, decode_entries, encode_entry, of_instance
from bridge.errors import ConfigurationError, DecodeError

HISTORY: Final = "history.jsonl"
MESSAGES: Final = "messages.jsonl"


def make_directory(directory: Path) -> None:
    """Make the directory of a record, before what is to be recorded.

    Raises:
        ConfigurationError: no file can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write the record to {directory}: {error.strerror}") from error
    if not os.access(directory, os.W_OK):
        raise ConfigurationError(f"cannot write the record to {directory}: {os.strerror(errno.EACCES)}")


def write_record(directory: Path, entries: Iterable[Entry], messages: Iterable[Message]) -> None:
    """Write both files into a directory, which is made.

    Raises:
        ConfigurationError: it cannot be written.
    """
    make_directory(directory)
    try:
        (directory / HISTORY).write_bytes(b"".join(encode_entry(entry) + b"\n" for entry in entries))
        encode = msgspec.json.Encoder().encode
        (directory / MESSAGES).write_bytes(b"".join(encode(message) + b"\n" for message in messages))
    except OSError as error:
        raise ConfigurationError(f"cannot write the record to {directory}: {error.strerror}") from error


def read_history(file: Path) -> list[Entry]:
    """Entries of a history file; the last line may lack its end, because its writer was killed.

    Raises:
        ConfigurationError: it cannot be read.
        DecodeError: a line is no entry.
    """
    lines = _lines(file)
    if lines and not _ends_whole(file):
        with contextlib.suppress(DecodeError):
            return decode_entries(lines)
        del lines[-1]
    return decode_entries(lines)


def read_history_of(argument: str) -> list[Entry]:
    """Entries of ``FILE``, or of ``INSTANCE=FILE``, to be checked together with other instances'.

    Raises:
        ConfigurationError: it cannot be read.
        DecodeError: a line is no entry.
    """
    instance, is_given, file = argument.partition("=")
    if not is_given or Path(argument).exists():
        instance, file = "", argument
    try:
        entries = read_history(Path(file))
    except DecodeError as error:
        raise DecodeError(f"{file}: {error}") from error
    return of_instance(entries, instance) if instance else entries


def read_messages(file: Path) -> list[Message]:
    """Messages of a record.

    Raises:
        ConfigurationError: the file cannot be read, or a line is no message.
    """
    decoder = msgspec.json.Decoder(Message)
    messages = []
    for number, line in enumerate(_lines(file), start=1):
        try:
            messages.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file}, line {number}: {error}") from error
    return messages


def _ends_whole(file: Path) -> bool:
    return file.read_bytes().endswith(b"\n")


def _lines(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
