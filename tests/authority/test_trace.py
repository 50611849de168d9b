from bridge.authority.trace import CASES, Message, messages_per_transfer, transfers


def message(trace: int, hop: int, kind: str, sender: str, receiver: str, at: int = 0) -> Message:
    return Message(
        trace=bytes([trace]) * 16, hop=hop, kind=kind, sender=sender, receiver=receiver, at_ns=at or hop
    )


PUSH = [
    message(1, 0, "push", "a", "home"),
    message(1, 1, "answer", "home", "a"),
    message(1, 1, "grant", "home", "b"),
    message(1, 2, "accepted", "b", "a"),
]
PULL = [
    message(2, 0, "pull", "a", "home"),
    message(2, 1, "answer", "home", "a"),
    message(2, 1, "recall", "home", "b"),
    message(2, 2, "released", "b", "a"),
]
SWITCH = [
    message(3, 0, "offer", "a", "b"),
    message(3, 1, "claim", "b", "home"),
    message(3, 2, "answer", "home", "b"),
    message(3, 3, "state", "b", "a"),
]

ASK = [
    message(4, 0, "request", "a", "home"),
    message(4, 1, "answer", "home", "a"),
    message(4, 1, "ask", "home", "m"),
    message(4, 2, "decision", "m", "home"),
    message(4, 3, "answer", "home", "m"),
    message(4, 3, "outcome", "home", "a"),
    message(4, 3, "recall", "home", "b"),
    message(4, 4, "released", "b", "a"),
]


def test_asking_is_eight_messages_with_five_on_the_critical_path() -> None:
    """R0-8: a pull, and one round trip to the master."""
    (transfer,) = transfers(ASK)
    kinds, path = CASES["ask"].kinds, CASES["ask"].path
    assert (transfer.case, transfer.critical_path) == ("ask", path)
    assert sorted(m.kind for m in transfer.messages) == sorted(kinds)


def test_a_push_is_four_messages_with_two_on_the_critical_path() -> None:
    """R0-29."""
    (transfer,) = transfers(PUSH)
    assert (transfer.case, len(transfer.messages), transfer.critical_path) == ("push", 4, 2)


def test_a_pull_is_four_messages_with_three_on_the_critical_path() -> None:
    """R0-29."""
    (transfer,) = transfers(PULL)
    assert (transfer.case, len(transfer.messages), transfer.critical_path) == ("pull", 4, 3)


def test_switching_is_four_messages_with_three_on_the_critical_path() -> None:
    """R0-33."""
    (transfer,) = transfers(SWITCH)
    assert (transfer.case, len(transfer.messages), transfer.critical_path) == ("switch", 4, 3)


def test_a_message_told_twice_counts_once() -> None:
    again = message(1, 1, "grant", "home", "b", at=99)
    (transfer,) = transfers([*PUSH, again])
    assert len(transfer.messages) == 4


def test_the_mean_is_over_transfers() -> None:
    assert messages_per_transfer(transfers([*PUSH, *PULL[:2]])) == 3.0
    assert messages_per_transfer([]) == 0.0


def test_what_begins_with_no_known_request_is_another_case() -> None:
    (transfer,) = transfers([message(9, 0, "give", "a", "home")])
    assert (transfer.case, transfer.critical_path) == ("other", 0)
