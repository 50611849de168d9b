"""A question to another instance and its answer, each under its seal."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.errors import ConfigurationError
from bridge.homeserver.federation.documents import Answer, Question, decode_answer_untrusted
from bridge.homeserver.federation.escrows import Escrows
from bridge.homeserver.federation.link import Link
from bridge.homeserver.federation.sealing import Correspondent
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
        self._here = Correspondent(instance=instance, signer=signer, clock=clock)
        self._link = link

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
        sealed = await self._here.write(question, to=instance)
        body, seal = await self._link.ask(peer, sealed.body, sealed.seal)
        answer, _ = self._here.read_untrusted(
            body, seal, decode_answer_untrusted, by=peer, answering=sealed.id
        )
        return answer
