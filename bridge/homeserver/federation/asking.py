"""A question to another instance and its answer, each under its seal."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from bridge.errors import ConfigurationError, SignatureError
from bridge.homeserver.federation.documents import Answer, Question, act_of, decode_answer_untrusted
from bridge.homeserver.federation.escrows import Escrows
from bridge.homeserver.federation.link import Link
from bridge.homeserver.federation.sealing import check_seal_untrusted, seal_document
from bridge.jose.credentials import Signer


class Asker:
    """Asks other instances in the name of this one.

    Args:
        escrows: the instance's store, which has whom it trusts.
        instance: its name.
        signer: its key.
        link: to other instances.
        clock: Unix seconds.
    """

    def __init__(
        self,
        escrows: Escrows,
        *,
        instance: str,
        signer: Signer,
        link: Link,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._escrows = escrows
        self._instance = instance
        self._signer = signer
        self._link = link
        self._clock = clock

    async def ask(self, instance: str, question: Question) -> Answer:
        """The answer of an instance, whose seal holds.

        Raises:
            ConfigurationError: the instance is not pinned.
            SignatureError: the answer is not by a pinned key, or to another question.
            DecodeError: it is no answer.
            BridgeError: the instance, the signer or the store does not answer; as of ``Link.ask``.
        """
        peer = await self._escrows.peer(instance)
        if peer is None:
            raise ConfigurationError(f"{instance} is not pinned here (any more)")
        sealed = await seal_document(
            question,
            signer=self._signer,
            instance=self._instance,
            audience=instance,
            question=None,
            now=self._clock(),
            random=secrets.token_bytes(16),
        )
        body, seal = await self._link.ask(peer, sealed.body, sealed.seal)
        checked = check_seal_untrusted(
            seal,
            body,
            keys=peer.keyring,
            instance=instance,
            audience=self._instance,
            question=sealed.id,
            now=self._clock(),
        )
        answer = decode_answer_untrusted(body)
        if checked.act != act_of(answer):
            raise SignatureError("the seal is of another kind of document")
        return answer
