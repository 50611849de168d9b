"""The signer's socket: who can open it may have signed what the policy allows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bridge.errors import ConfigurationError, DecodeError, LimitExceededError, SignatureError
from bridge.homeserver.signer.messages import (
    LENGTH_BYTES,
    Answer,
    AskKeys,
    AskStatus,
    Keys,
    Question,
    Refused,
    Sign,
    Signed,
    Status,
    decode_question_untrusted,
    encode_frame,
    frame_length_untrusted,
)
from bridge.homeserver.signer.policy import SigningPolicy
from bridge.jose.encoding import json_object_untrusted

MAX_CONNECTIONS: Final = 64
"""at once: each REST process has one"""


@contextlib.asynccontextmanager
async def serving_signer(
    policy: SigningPolicy, path: Path, *, group: str | None = None
) -> AsyncIterator[None]:
    """Answer at a Unix socket as long as the context lasts.

    Args:
        group: whose members may use the socket too (mode 0660): for a signer that runs as a user of its own.
            Without it the socket is for this user alone (0600).

    Raises:
        ConfigurationError: another signer listens there, or something else lies there; no such group.
        OSError: the socket cannot be made.
    """
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(_converse(policy, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    bound = _bind(path, group)
    server = await asyncio.start_unix_server(connected, sock=bound)
    try:
        yield
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        _remove(path)


def answer(policy: SigningPolicy, question: Question, *, now: float, monotonic: float) -> Answer:
    """The answer to a question.

    Args:
        now: Unix seconds.
        monotonic: seconds of a clock that never goes back.
    """
    match question:
        case AskKeys():
            return Keys(keys=tuple(key.to_json() for key in policy.public_keys()))
        case AskStatus():
            return Status(instance=policy.instance, signed=dict(policy.signed), refused=policy.refused)
        case Sign(typ=typ, claims=raw):
            try:
                claims = json_object_untrusted(raw)
            except ValueError as error:
                policy.refused += 1
                return Refused(reason=f"the claims are no JSON object: {error}")
            try:
                return Signed(token=policy.sign(typ, claims, now=now, monotonic=monotonic))
            except SignatureError as error:
                return Refused(reason=str(error))


async def _converse(
    policy: SigningPolicy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while True:
            length = frame_length_untrusted(await reader.readexactly(LENGTH_BYTES))
            question = decode_question_untrusted(await reader.readexactly(length))
            writer.write(encode_frame(answer(policy, question, now=time.time(), monotonic=time.monotonic())))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, DecodeError, LimitExceededError):
        # Gone, or not one of ours: either way there is nothing more to say.
        pass
    finally:
        writer.close()


def _bind(path: Path, group: str | None) -> socket.socket:
    _clear(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
        if group is not None:
            shutil.chown(path, group=group)
            path.chmod(0o660)
    except LookupError:
        bound.close()
        _remove(path)
        raise ConfigurationError(f"there is no group {group}") from None
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(before)
    return bound


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove what an earlier signer left, and nothing else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError(f"{path} is there and is no socket: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            _remove(path)
            return
    raise ConfigurationError(f"another signer listens at {path}: end it first")
