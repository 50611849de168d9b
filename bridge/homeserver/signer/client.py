"""The other end of the signer's socket: a ``Signer`` without a key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge.errors import ClosedError, ConnectionLostError, KeyFormatError, ProtocolError, SignatureError
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
    decode_answer_untrusted,
    encode_frame,
    frame_length_untrusted,
)
from bridge.jose import Jwk
from bridge.jose.encoding import json_encode

_RETRY_SECONDS: Final = 0.05


class SignerClient:
    """Asks the signer at a Unix socket; connects when first asked, and again when it was restarted.

    Args:
        path: of the socket.
        timeout: seconds for a question, reconnecting included. Asking twice does no harm.
    """

    def __init__(self, path: Path, *, timeout: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection."""
        self._closed = True
        async with self._lock:
            await self._drop()

    async def sign(self, typ: str, claims: Mapping[str, object]) -> str:
        """As of ``Signer``."""
        try:
            raw = json_encode(claims)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise SignatureError(f"these claims are no JSON: {error}") from error
        match await self._ask(Sign(typ=typ, claims=raw)):
            case Signed(token=token):
                return token
            case other:
                raise _unexpected(other)

    async def keys(self) -> list[Jwk]:
        """As of ``Signer``."""
        match await self._ask(AskKeys()):
            case Keys(keys=texts):
                try:
                    return [Jwk.from_json(text).public() for text in texts]
                except KeyFormatError as error:
                    raise ProtocolError(f"the signer's keys are none: {error}") from error
            case other:
                raise _unexpected(other)

    async def status(self) -> Status:
        """What the signer has done since its start.

        Raises:
            ConnectionLostError: it is away.
        """
        match await self._ask(AskStatus()):
            case Status() as status:
                return status
            case other:
                raise _unexpected(other)

    async def _ask(self, question: Question) -> Answer:
        frame = encode_frame(question)
        try:
            async with asyncio.timeout(self._timeout), self._lock:
                while True:
                    if self._closed:
                        raise ClosedError("this client of the signer was closed")
                    try:
                        return await self._exchange(frame)
                    except (OSError, asyncio.IncompleteReadError):
                        await self._drop()
                        await asyncio.sleep(_RETRY_SECONDS)
                    except BaseException:
                        # An answer that comes later would be taken for that of the next question.
                        await self._drop()
                        raise
        except TimeoutError:
            raise ConnectionLostError(
                f"no signer answers at {self._path}: start it with homeserver signer"
            ) from None

    async def _exchange(self, frame: bytes) -> Answer:
        if self._connection is None:
            self._connection = await asyncio.open_unix_connection(str(self._path))
        reader, writer = self._connection
        writer.write(frame)
        await writer.drain()
        length = frame_length_untrusted(await reader.readexactly(LENGTH_BYTES))
        return decode_answer_untrusted(await reader.readexactly(length))

    async def _drop(self) -> None:
        if self._connection is None:
            return
        writer = self._connection[1]
        self._connection = None
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _unexpected(answer: Answer) -> SignatureError | ProtocolError:
    if isinstance(answer, Refused):
        return SignatureError(f"the signer refuses: {answer.reason}")
    return ProtocolError(f"the signer answered another question: {type(answer).__name__}")
