"""The release: a giver's last state, signed, and sealed for the taker (docs/protocol.md §7)."""

from __future__ import annotations

from bridge.authority import Release, decode_release_untrusted, encode_message, release_context
from bridge.errors import DecodeError
from bridge.jose import Jwk, open_signed_box, seal_signed_box
from bridge.replication import WorldState, decode_state_untrusted, encode_state


def sealed_release(
    entity: str,
    epoch: int,
    state: WorldState,
    *,
    sender: Jwk,
    recipient: Jwk,
    session: bytes,
    now_ms: int,
) -> str:
    """A release of what was held at ``epoch``.

    Args:
        session: of the giver, 16 bytes.
        now_ms: Unix time.

    Raises:
        BoxError: nothing can be sealed for the key of the recipient.
    """
    return seal_signed_box(
        encode_message(Release(entity=entity, epoch=epoch, state=encode_state(state))),
        sender=sender,
        recipient=recipient,
        session=session,
        sequence=epoch,
        issued_at_ms=now_ms,
        lifetime_ms=0,
        purpose="release",
        direction="n",
        context=release_context(entity, epoch),
    )


def opened_release(
    box: str, *, recipient: Jwk, giver: Jwk, entity: str, epoch: int, now_ms: int
) -> WorldState:
    """The state in a release (R0-20, R0-21).

    Args:
        giver: key that the homeserver has for the giver.

    Raises:
        SignatureError: not signed by the giver, or for something else.
        BoxError: not sealed for this recipient.
        DecodeError: no release inside, or of another entity or epoch.
    """
    opened = open_signed_box(
        box,
        recipient=recipient,
        sender=giver,
        purpose="release",
        direction="n",
        context=release_context(entity, epoch),
        now_ms=now_ms,
    )
    release = decode_release_untrusted(opened.payload)
    if (release.entity, release.epoch) != (entity, epoch):
        raise DecodeError(f"a release of {release.entity} at {release.epoch} in a box for {entity}")
    return decode_state_untrusted(release.state)
