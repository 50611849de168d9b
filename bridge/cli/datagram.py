"""``box verify-datagram``: who sent what to whom, from one kept datagram of a signed session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import Json, emit
from bridge.errors import DecodeError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.udp.evidence import Evidence, HandleBinding, ProofFields
    from bridge.udp.frames import (
        State,
    )

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
    """Check a kept datagram of a signed session, and print who sent what to whom, and when.

    Payloads of states are in base64url. Ends with 1 if the evidence does not hold.
    """
    from bridge.cli.key_file import read_key
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
        "states": [_state(state, evidence.bindings) for state in _states(evidence.plaintext)],
    }


def _states(plaintext: bytes) -> list[State]:
    """What the sender signed; a session would not have taken it if it were no frames."""
    from bridge.udp.frames import (
        State,
        parse_frames_untrusted,
    )
    from bridge.udp.wire import PROLOGUE

    try:
        frames = parse_frames_untrusted(plaintext, PROLOGUE.size)
    except DecodeError as error:
        raise DecodeError(f"the signature holds, but what it covers is no datagram: {error}") from error
    return [frame for frame in frames if isinstance(frame, State)]


def _state(state: State, bindings: Sequence[HandleBinding]) -> dict[str, Any]:
    from bridge.jose.encoding import base64url_encode

    told: dict[str, Any] = {
        "stream": state.stream,
        "number": state.number,
        "payload": base64url_encode(state.payload),
    }
    return {**told, "records": _records(state.payload, bindings)} if bindings else told


def _records(payload: bytes, bindings: Sequence[HandleBinding]) -> list[dict[str, Any]]:
    """What a state says of which entities, if the bindings are those whose digest the sender signed."""
    from bridge.jose.encoding import base64url_encode
    from bridge.replication.bindings import Bindings
    from bridge.replication.records import decode_records_untrusted

    try:
        decoded = decode_records_untrusted(payload)
    except DecodeError as error:
        raise DecodeError(f"the file has bindings, but a state of other records: {error}") from error
    if decoded.digests is None:
        raise SignatureError("the file has bindings, but the sender signed no digest of any")
    claimed = Bindings()
    for one in bindings:
        claimed.bind(one.handle, one.entity, one.epoch, one.session)
    if not claimed.match(decoded.records, decoded.digests).all():
        raise SignatureError("the bindings in the file are not those that the sender signed")
    handles = decoded.records["handle"].ravel().tolist()
    by_handle = {one.handle: one for one in bindings}
    if not by_handle.keys() >= set(handles):
        raise SignatureError("the file has bindings, but not of all handles in the datagram")
    states = decoded.states()
    return [
        {
            "entity": by_handle[handle].entity,
            "epoch": by_handle[handle].epoch,
            "session": base64url_encode(by_handle[handle].session),
            "tick": tick,
            "position": position,
        }
        for handle, tick, position in zip(
            handles,
            states.ticks.tolist(),
            states.positions.tolist(),
            strict=True,
        )
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
    for state in result["states"]:
        of_which = f"state      stream {state['stream']}, number {state['number']}: "
        if "records" not in state:
            lines.append(of_which + (state["payload"] or "(empty)"))
        for record in state.get("records", ()):
            x, y, z = record["position"]
            # A name that somebody else chose must not write lines of its own.
            name = record["entity"] if record["entity"].isprintable() else ascii(record["entity"])
            lines.append(
                f"{of_which}{name} at epoch {record['epoch']} of session {record['session']}, "
                f"tick {record['tick']}: {x:.3f} {y:.3f} {z:.3f} m"
            )
    return "\n".join(lines)
