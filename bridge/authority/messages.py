"""Messages between simulation servers, and the release, in MessagePack (``docs/protocol.md`` §7)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from bridge.errors import DecodeError

MAX_BOX_BYTES: Final = 16_384
"""bytes of a release in its box; a release carries one entity's last state"""

MAX_RELIEF: Final = 64
"""entities in one question for relief"""

MAX_BORDER: Final = 128
"""entities in one message about a border; a longer list takes more of them"""

_Id16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Epoch = Annotated[int, msgspec.Meta(ge=0)]
_Hop = Annotated[int, msgspec.Meta(ge=0, le=64)]
_Box = Annotated[str, msgspec.Meta(max_length=MAX_BOX_BYTES)]
_Few = Annotated[tuple[_Name, ...], msgspec.Meta(max_length=MAX_RELIEF)]
_Metres = Annotated[float, msgspec.Meta(ge=0)]
_Near = Annotated[tuple[tuple[_Name, _Metres], ...], msgspec.Meta(max_length=MAX_BORDER)]
_Handle = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class Released(msgspec.Struct, frozen=True, array_like=True, tag="released"):
    """The former holder's signed release, straight to the new one (pull)."""

    trace: _Id16
    hop: _Hop
    entity: _Name
    epoch: _Epoch
    box: _Box


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="accepted"):
    """The new holder has opened the release and acts under ``epoch`` (push)."""

    trace: _Id16
    hop: _Hop
    entity: _Name
    epoch: _Epoch


class Offer(msgspec.Struct, frozen=True, array_like=True, tag="offer"):
    """The holder hands over its release of ``epoch``; the receiver claims at the homeserver (switch)."""

    trace: _Id16
    hop: _Hop
    entity: _Name
    epoch: _Epoch
    owner: _Name
    box: _Box


class Bind(msgspec.Struct, frozen=True, array_like=True, tag="bind"):
    """From now on the sender's state records with ``handle`` are about this entity and epoch."""

    handle: _Handle
    entity: _Name
    epoch: _Epoch


class Update(msgspec.Struct, frozen=True, array_like=True, tag="update"):
    """A player changes an entity that the receiver holds (Case 3); its credit is the acknowledgement.

    Attributes:
        epoch: of the grant under which the receiver holds it.
        by: the player, its owner.
        velocity: metres a second, the new one.
        owner: who owns it from now on; ``None``: still ``by``.
    """

    trace: _Id16
    hop: _Hop
    entity: _Name
    epoch: _Epoch
    by: _Name
    velocity: tuple[float, float, float]
    owner: _Name | None = None


class Relief(msgspec.Struct, frozen=True, array_like=True, tag="relief"):
    """Which of these entities would the receiver take? ``Room`` answers.

    The sender has too much to do; or, between servers of a mesh, they are in the receiver's zone.
    """

    entities: _Few


class Room(msgspec.Struct, frozen=True, array_like=True, tag="room"):
    """The sender holds ``load`` entities and would take these; without a mesh it has them streamed in."""

    load: Annotated[int, msgspec.Meta(ge=0)]
    entities: _Few


class Border(msgspec.Struct, frozen=True, array_like=True, tag="border"):
    """Entities that the sender holds in the strip around the receiver's zone, which follows them as ghosts.

    Attributes:
        near: names, and metres from the receiver's zone.
        more: whether the list goes on in the next message; else it is whole, in place of the one before.
    """

    near: _Near
    more: bool


PeerMessage = Released | Accepted | Offer | Bind | Update | Relief | Room | Border


class Release(msgspec.Struct, frozen=True, array_like=True, tag="release"):
    """Payload of a release box: what the holder last knew.

    Attributes:
        entity: name.
        epoch: the released one.
        state: the last state, 44 bytes (§6); empty where the entity has none.
    """

    entity: _Name
    epoch: _Epoch
    state: Annotated[bytes, msgspec.Meta(max_length=1024)]


# msgspec lets the errors of text that is no UTF-8 and of deep nesting through as they are.
_REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
_peer_decoder = msgspec.msgpack.Decoder(PeerMessage)
_release_decoder = msgspec.msgpack.Decoder(Release)


def encode_message(message: PeerMessage | Release) -> bytes:
    """Bytes of a message."""
    return _encoder.encode(message)


def decode_message_untrusted(data: bytes) -> PeerMessage:
    """A message from a peer.

    Raises:
        DecodeError: of another kind, shape or range.
    """
    try:
        message: PeerMessage = _peer_decoder.decode(data)
    except _REFUSED as error:
        raise DecodeError(f"no message between servers: {error}") from error
    return message


def decode_release_untrusted(data: bytes) -> Release:
    """Payload of a release box.

    Raises:
        DecodeError: of another shape or range.
    """
    try:
        return _release_decoder.decode(data)
    except _REFUSED as error:
        raise DecodeError(f"no release: {error}") from error


def release_context(entity: str, epoch: int) -> str:
    """Context that binds a release box to what it releases."""
    return f"{epoch}:{entity}"
