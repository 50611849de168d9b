"""``box verify-datagram``: who sent what to whom, from one kept datagram of a signed session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import Json, emit
from bridge.errors import DecodeError, SignatureError

if TYPE_CHECKING:
    from bridge.udp.evidence import Evidence, ProofFields

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def verify_datagram(
    file: Annotated[Path, typer.Argument(help="Evidence file.", metavar="FILE")],
    key: Annotated[Path, typer.Option("--key", help="Public key of the sender, JWK or PEM.")],
    recipient: Annotated[
        str | None,
        typer.Option(help="Thumbprint of the key it must have been sealed for.", metavar="THUMBPRINT"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a kept datagram of a signed session, and print who sent what to whom, and when."""
    from bridge.cli.box import read_key
    from bridge.jose.encoding import base64url_encode
    from bridge.udp.evidence import MAX_EVIDENCE_BYTES, parse_evidence_untrusted

    with file.open("rb") as opened:
        evidence = parse_evidence_untrusted(opened.read(MAX_EVIDENCE_BYTES + 1))
    proof = evidence.check(read_key(key))
    if recipient is not None and recipient != base64url_encode(evidence.recipient):
        raise SignatureError(f"the datagram was for {base64url_encode(evidence.recipient)}, not {recipient}")
    result = _told(evidence, proof)
    emit(result, as_json=as_json, text=_text(result))


def _told(evidence: Evidence, proof: ProofFields) -> dict[str, Any]:
    from bridge.jose.encoding import base64url_encode

    return {
        "sender": evidence.sender.thumbprint(),
        "recipient": base64url_encode(evidence.recipient),
        "session": base64url_encode(evidence.session_id),
        "sequence": evidence.sequence,
        "sealed_at_ms": proof.sealed_at_ms,
        "sealed_at": _time(proof.sealed_at_ms),
        "tree_size": proof.size,
        "leaf": proof.leaf,
        "states": _states(evidence.plaintext),
    }


def _states(plaintext: bytes) -> list[dict[str, Any]]:
    """What the sender signed; a session would not have taken it if it were no frames."""
    from bridge.jose.encoding import base64url_encode
    from bridge.udp.wire import PROLOGUE, State, parse_frames_untrusted

    try:
        frames = parse_frames_untrusted(plaintext, PROLOGUE.size)
    except DecodeError as error:
        raise DecodeError(f"the signature holds, but what it covers is no datagram: {error}") from error
    return [
        {"stream": frame.stream, "number": frame.number, "payload": base64url_encode(frame.payload)}
        for frame in frames
        if isinstance(frame, State)
    ]


def _time(milliseconds: int) -> str | None:
    """RFC 3339; ``None`` for what the calendar does not reach."""
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(result: dict[str, Any]) -> str:
    moment = result["sealed_at"] or f"{result['sealed_at_ms']} ms after 1970"
    lines = [
        f"sender     {result['sender']}",
        f"recipient  {result['recipient']}",
        f"session    {result['session']}",
        f"sequence   {result['sequence']}",
        f"sealed at  {moment}, as the sender claims",
        f"tree       leaf {result['leaf']} of {result['tree_size']}",
    ]
    lines += [
        f"state      stream {state['stream']}, number {state['number']}: {state['payload'] or '(empty)'}"
        for state in result["states"]
    ]
    return "\n".join(lines)
