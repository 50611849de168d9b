"""Where another instance's questions are answered: checked, decided in one transaction, sealed.

The desk keeps nothing. Asked again, it gives the answer that the tree has; so whoever lost an answer asks
again, any process of the instance answers, and a question that somebody replays changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.authority import Message
from bridge.errors import AuthorityError, DecodeError, SignatureError
from bridge.homeserver.federation.documents import (
    MAX_QUESTION_BYTES,
    Answer,
    AskEntity,
    AskServers,
    Cancel,
    Moved,
    Offer,
    Question,
    Settle,
    decode_question_untrusted,
)
from bridge.homeserver.federation.escrows import Escrows
from bridge.homeserver.federation.sealing import Correspondent, Sealed, claimed_instance_untrusted
from bridge.jose.credentials import Signer
from bridge.jose.encoding import base64url_decode_untrusted


class UnpinnedError(SignatureError):
    """The document is not by an instance that is trusted here, or not by a pinned key of it."""


class LaterError(AuthorityError):
    """Nothing was decided: this instance waits for word from elsewhere; ask again."""


class SettledError(AuthorityError):
    """The transfer is over; its number is used up."""


class Desk:
    """One instance's answers to others.

    Args:
        escrows: the instance's store.
        instance: its name.
        signer: its key.
        on_message: is told of each document of a transfer that was taken, for traces.
        clock: Unix seconds.
    """

    def __init__(
        self,
        escrows: Escrows,
        *,
        instance: str,
        signer: Signer,
        on_message: Callable[[Message], None] = lambda message: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._escrows = escrows
        self._here = Correspondent(instance=instance, signer=signer, clock=clock)
        self._on_message = on_message

    async def serve(self, body: bytes, seal: str) -> Sealed:
        """Answer a question of another instance.

        Args:
            body: the document as it came.
            seal: what came beside it.

        Raises:
            UnpinnedError: nobody that is trusted here signed it.
            SignatureError: it was altered, is for another instance, or has expired.
            DecodeError: it is no question.
            LaterError: ask again, nothing was decided.
            SettledError: the transfer is over.
            AuthorityError: refused for another reason; nothing was changed.
            BridgeError: the store or the signer does not answer; ask again.
        """
        if len(body) > MAX_QUESTION_BYTES:
            raise DecodeError(f"a question has at most {MAX_QUESTION_BYTES} bytes")
        asker = claimed_instance_untrusted(seal)
        peer = await self._escrows.peer(asker)
        if peer is None:
            raise UnpinnedError(f"the instance {asker!r:.80} is not pinned here")
        question, checked = self._here.read_untrusted(body, seal, decode_question_untrusted, by=peer)
        if checked.issued_at < peer.since:
            raise UnpinnedError(f"{asker} sealed this before it was trusted here")
        try:
            answer = await self._answer(asker, question)
        except AuthorityError as error:
            match str(error.reason):
                case "elsewhere":
                    raise LaterError(str(error), reason=error.reason, props=error.props) from error
                case "settled":
                    raise SettledError(str(error), reason=error.reason, props=error.props) from error
                case "no_peer":
                    raise UnpinnedError(str(error)) from error
            raise
        return await self._here.write(answer, to=asker, answering=checked.id)

    async def _answer(self, asker: str, question: Question) -> Answer:
        match question:
            case Offer():
                self._crossed(asker, question)
                return await self._escrows.accept(asker, question)
            case Cancel():
                return await self._escrows.refuse(asker, question)
            case Settle():
                return await self._escrows.settle(asker, question.low)
            case Moved():
                return await self._escrows.moved(asker, question)
            case AskServers():
                return await self._escrows.servers()
            case AskEntity():
                return await self._escrows.standing(asker, question)

    def _crossed(self, asker: str, offer: Offer) -> None:
        self._on_message(
            Message(
                trace=base64url_decode_untrusted(offer.trace),
                hop=offer.hop,
                kind="escrow",
                sender=asker,
                receiver=self._here.instance,
                at_ns=time.monotonic_ns(),
            )
        )
