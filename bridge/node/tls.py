"""TLS under the distribution, with certificates both ways, as OTP's ``-proto_dist inet_tls`` has it.

Source: OTP's "ssl" application, "Erlang Distribution over TLS"; ``inet_tls_dist`` checks the certificate of a
node that it dials against the host part of the node's name, and so does this side.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final, cast

from bridge.node.transport import DistTransport

_RECORD_BYTES: Final = 16_384
"""of plain text in one TLS record at most"""
_BATCH_BYTES: Final = 262_144
"""encrypted before it goes to the socket; each step costs a copy of what waits"""
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_HOST_MISMATCH: Final = (62, 64)
_WRONG_PURPOSE: Final = 26
_REVOKED: Final = 23
_REVOCATIONS: Final = (3, 11, 12)
_UNKNOWN_AUTHORITY: Final = (2, 7, 18, 19, 20, 21)


class TlsLayer(asyncio.Protocol):
    """TLS between a socket and a ``DistTransport``: each takes it for the other.

    The event loops' own layers close without the alert that tells the peer what was wrong.

    Args:
        transport: gets the plain text; its handshake deadline covers that of TLS too.
        context: of ``Credentials``.
        host: whom the certificate of the peer must be for; ``None`` where the peer dialled.
        seconds: for the handshake of TLS.
    """

    def __init__(
        self, transport: DistTransport, context: ssl.SSLContext, host: str | None, seconds: float
    ) -> None:
        self._inner = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=host
        )
        self._seconds = seconds
        self._socket: asyncio.Transport
        self._timer: asyncio.TimerHandle
        self._stands = False
        self._closing = False
        self._failure: Exception | None = None
        self._waiting: list[bytes | memoryview] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket stands."""
        self._socket = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._too_late)
        self._inner.connection_made(cast(asyncio.BaseTransport, self))
        self._advance()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        """asyncio: the peer closed its side; so do we."""
        if self._stands:
            self._inner.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the socket is gone."""
        self._timer.cancel()
        if self._failure is None and not self._stands and not self._closing:
            self._failure = exc or ConnectionResetError("closed without a word")
        self._closing = True
        self._inner.connection_lost(self._failure or exc)

    def pause_writing(self) -> None:
        """asyncio: the peer reads slower than we write."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """asyncio: writing may go on."""
        self._inner.resume_writing()

    def pause_reading(self) -> None:
        """As asyncio's transports; what is decrypted already still comes."""
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """As asyncio's transports."""
        self._socket.resume_reading()

    def write(self, data: bytes) -> None:
        """Encrypt and send; before TLS stands it waits."""
        if not self._closing:
            self._waiting.append(data)
            if self._stands:
                self._encrypt()

    def close(self) -> None:
        """Send what was written, say that it was all, and close."""
        if self._closing:
            return
        if self._stands:
            self._encrypt()
            with contextlib.suppress(ssl.SSLError):  # it waits for the peer's farewell, which nobody needs
                self._tls.unwrap()
            self._send()
        self._closing = True
        self._socket.close()

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
        self._closing = True
        self._socket.abort()

    def _advance(self) -> None:
        """Do what the bytes that came allow."""
        if self._closing:
            return
        try:
            if not self._stands:
                self._tls.do_handshake()
                self._stands = True
                self._timer.cancel()
            if self._waiting:
                self._encrypt()
            self._decrypt()
        except ssl.SSLWantReadError:
            self._send()
        except ssl.SSLError as error:
            self._fail(error)

    def _decrypt(self) -> None:
        chunks = []
        ended = False
        try:
            while chunk := self._tls.read(_RECORD_BYTES):
                chunks.append(chunk)
            ended = True
        except ssl.SSLWantReadError:
            pass
        finally:
            self._send()  # TLS has words of its own, such as new keys
            if chunks:
                self._inner.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if ended:
            self._inner.eof_received()

    def _encrypt(self) -> None:
        waiting, self._waiting = self._waiting, []
        for place, data in enumerate(waiting):
            view = memoryview(data)
            try:
                while view:
                    view = view[self._tls.write(view) :]
                    if self._outgoing.pending >= _BATCH_BYTES:
                        self._send()
            except ssl.SSLWantReadError:
                # The peer agrees on new keys first (TLS 1.2); its bytes bring us back here.
                self._waiting = [view, *waiting[place + 1 :]]
                break
            except ssl.SSLError as error:
                self._fail(error)
                return
        self._send()

    def _send(self) -> None:
        if self._outgoing.pending:
            self._socket.write(self._outgoing.read())

    def _too_late(self) -> None:
        self._fail(TimeoutError(f"nothing within {self._seconds:g} s"))

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._send()  # the alert that tells the peer what is wrong
        self._closing = True
        self._socket.close()


def explain(error: Exception, *, peer: str) -> str:
    """What went wrong with TLS, and what to mend.

    Args:
        error: what the connection ended with, while it was made.
        peer: the node, or who it is called as long as it has no name.
    """
    match error:
        case ssl.SSLCertVerificationError():
            return _refused(error, peer)
        case ssl.SSLError():
            return _told(error, peer)
        case _:
            return (
                f"no TLS with {peer} ({error}); does it run with -proto_dist inet_tls, and what says its log?"
            )


def _refused(error: ssl.SSLCertVerificationError, peer: str) -> str:
    """Why this side did not believe the peer."""
    match error.verify_code:
        case code if code in _UNKNOWN_AUTHORITY:
            return (
                f"the certificate of {peer} is not from an authority in TlsConfig.authority "
                f"({error.verify_message}); give both nodes certificates of one authority"
            )
        case code if code in (_EXPIRED, _NOT_YET):
            return (
                f"the certificate of {peer} is not valid now ({error.verify_message}); "
                "renew it, or set the clock"
            )
        case code if code in _HOST_MISMATCH:
            return (
                f"the certificate of {peer} is for another host ({error.verify_message.rstrip('.')}); its "
                "subjectAltName must have the host part of the node name as dNSName, and an address as "
                "iPAddress too"
            )
        case code if code == _REVOKED:
            return f"the certificate of {peer} is revoked; give it a new one"
        case code if code in _REVOCATIONS:
            return f"TlsConfig.revoked does not tell about {peer} ({error.verify_message}); renew that list"
        case code if code == _WRONG_PURPOSE:
            return (
                f"the certificate of {peer} is not for this use; its extendedKeyUsage must have both "
                "serverAuth and clientAuth, or be left out"
            )
        case _:
            return f"the certificate of {peer} is not valid ({error.verify_message})"


def _told(error: ssl.SSLError, peer: str) -> str:
    """Why the peer did not believe this side, or does not understand it."""
    reason = error.reason or ""
    if "EXPIRED" in reason:
        return f"{peer} says that this node's certificate has expired; renew it, or set the clock"
    if "UNKNOWN_CA" in reason:
        return (
            f"{peer} does not know the authority of this node's certificate; give both nodes certificates of "
            "one authority"
        )
    if "CERTIFICATE" in reason and "NOT_RETURN" not in reason and "REQUIRED" not in reason:
        return f"{peer} refuses this node's certificate ({_words(error)}); its log says why"
    match reason:
        case "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return f"{peer} showed no certificate; set certfile and keyfile for its client side too"
        case "WRONG_VERSION_NUMBER" | "HTTP_REQUEST" | "UNKNOWN_PROTOCOL" | "RECORD_LAYER_FAILURE":
            return f"{peer} speaks no TLS; start it with -proto_dist inet_tls, or this node without TlsConfig"
        case "UNSUPPORTED_PROTOCOL" | "TLSV1_ALERT_PROTOCOL_VERSION" | "NO_PROTOCOLS_AVAILABLE":
            return (
                f"{peer} speaks another version of TLS; give both nodes {{versions, ['tlsv1.3', 'tlsv1.2']}}"
            )
        case "SSLV3_ALERT_HANDSHAKE_FAILURE":
            return (
                f"{peer} refuses this node's certificate or ciphers (handshake failure); is the certificate "
                "for the host part of this node's name?"
            )
        case _:
            return f"no TLS with {peer} ({_words(error)})"


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
