"""Our store inside a RabbitMQ broker, beside the broker's own: both work, and neither harms the other."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from bridge.errors import BridgeError
from bridge.khepri import Khepri, Put, Snapshot, Updated
from bridge.node import HiddenNode, NodeConfig
from tests.support.amqp import Amqp
from tests.support.containers import Container, Homeservers, host_name
from tests.support.docker import broker_image, docker_client

__all__ = ["broker_image", "docker_client"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

_BROKER: Final = "rabbit@rb1.kb"
_STORE: Final = "players"
_SECONDS: Final = 60.0
_POISON: Final = (
    f"khepri:put({_STORE}, [stone], 1),"
    f"try khepri:put({_STORE}, [water], 1, #{{timeout => 1000,"
    " keep_while => #{[stone] => {if_data_matches, 1, [], undefined}}}) catch exit:_ -> {error, exit} end."
)


class Broker:
    """A broker with our plugin in a container; the user ``tester`` may do everything."""

    def __init__(self, client: Any, image: str) -> None:
        self._network = Homeservers(client, image)
        self.cookie = self._network.cookie
        self.container: Container = self._network.run(
            "rb1", image, environment={"KB_COOKIE": self.cookie, "KB_STORE": _STORE}
        )

    @property
    def address(self) -> str:
        return self._network.address("rb1")

    def await_ready(self, *, times: int = 1) -> None:
        """Wait until broker and store have come up so often, over all starts."""
        self._network.await_ready("rb1", times=times, seconds=_SECONDS)
        self.control("await_startup")

    def control(self, *arguments: str) -> str:
        """Standard output of ``rabbitmqctl``."""
        return self.container.execute("rabbitmqctl", "--quiet", *arguments)

    def evaluate(self, expressions: str) -> str:
        """Value of Erlang expressions in the broker."""
        return self.control("eval", expressions)

    def await_value(self, expressions: str, wanted: str) -> None:
        """Wait until expressions have a value."""
        deadline = time.monotonic() + _SECONDS
        while (found := self.evaluate(expressions)) != wanted:
            if time.monotonic() > deadline:
                pytest.fail(f"{expressions} is {found}, not {wanted}:\n{self.container.logs()[-3000:]}")
            time.sleep(0.5)

    def allow_tester(self) -> None:
        self.control("add_user", "tester", "secret")
        self.control("set_permissions", "tester", ".*", ".*", ".*")

    def amqp(self) -> Amqp:
        """A connection, with one channel."""
        return Amqp(self.address, "tester", "secret")

    def close(self) -> None:
        self._network.close()


@pytest.fixture
def broker(docker_client: Any, broker_image: str) -> Iterator[Broker]:
    """A running broker of the test's own."""
    running = Broker(docker_client, broker_image)
    try:
        running.await_ready()
        running.allow_tester()
        yield running
    finally:
        running.close()


@asynccontextmanager
async def connected(broker: Broker) -> AsyncIterator[Khepri]:
    """A client of our store on a hidden node of this host."""
    config = NodeConfig(register=False, epmd_port=4369, addresses={host_name("rb1"): broker.address})
    async with (
        HiddenNode("python@host.kb", cookie=broker.cookie, config=config) as node,
        Khepri.connect(node, _BROKER, store=_STORE) as store,
    ):
        yield store


def metadata(broker: Broker) -> set[str]:
    """Users and queues that the broker knows."""
    users = broker.control("list_users", "--formatter", "json")
    queues = broker.control("list_queues", "name", "type", "--formatter", "json")
    return {*re.findall(r'"user":"(\w+)"', users), *re.findall(r'"name":"(\w+)"', queues)}


async def test_python_uses_the_store_while_the_broker_carries_messages(broker: Broker) -> None:
    async with connected(broker) as store:
        with broker.amqp() as amqp:
            for kind in ("classic", "quorum"):
                amqp.declare(kind, kind=kind)
            async with asyncio.timeout(_SECONDS), store.watch("/:score") as feed:
                changes = aiter(feed)
                assert isinstance(await anext(changes), Snapshot)
                await store.put("/:score/blue", 1)
                amqp.publish("quorum", b"goal")
                await store.transaction([Put("/:score/blue", 2), Put("/:score/red", 0)])
                told = [await anext(changes) for _ in range(3)]
            assert [change.data for change in told if isinstance(change, Updated)] == [1, 2, 0]
            assert await store.get("/:score/blue") == 2
            assert amqp.get("quorum") == b"goal"
            assert amqp.get("classic") is None
        assert metadata(broker) == {"guest", "tester", "classic", "quorum"}
        # Not one byte of ours lies in the broker's own store.
        health = await store.health()
        assert health.members == (_BROKER,)
        assert health.store == _STORE


async def test_a_broker_that_is_killed_comes_back_with_what_both_have_acknowledged(broker: Broker) -> None:
    written = 0
    async with connected(broker) as store:
        with broker.amqp() as amqp:
            amqp.declare("quorum", kind="quorum")
            for number in range(50):
                amqp.publish("quorum", b"%d" % number)
        stop = asyncio.Event()

        async def write() -> int:
            number = 0
            while not stop.is_set():
                try:
                    await store.put(f"/:numbers/n{number}", number, timeout=1.0)
                except BridgeError:
                    break
                number += 1
            return number

        writing = asyncio.create_task(write())
        while len(await store.get_many("/:numbers/*")) < 100:
            await asyncio.sleep(0)
        await asyncio.to_thread(broker.container.kill)
        stop.set()
        written = await writing
    before = {"guest", "tester", "quorum"}
    broker.container.start()
    broker.await_ready(times=2)
    async with connected(broker) as store:
        found = await store.get_many("/:numbers/*", favor="consistency")
        assert {data for data in found.values() if data < written} == set(range(written))
    assert metadata(broker) == before
    with broker.amqp() as amqp:
        assert {amqp.get("quorum") for _ in range(50)} == {b"%d" % number for number in range(50)}


async def test_a_store_that_is_killed_by_poison_leaves_the_broker_alive(broker: Broker) -> None:
    with broker.amqp() as amqp:
        amqp.declare("quorum", kind="quorum")
        async with connected(broker) as store:
            await store.put("/:score/blue", 1)
        # Nobody gets there through our functions: the cookie's holder, who calls Khepri itself.
        assert broker.evaluate(_POISON).startswith("{error,")
        broker.await_value(f"whereis({_STORE}).", "undefined")
        amqp.publish("quorum", b"goal")
        amqp.declare("another", kind="quorum")
        assert amqp.get("quorum") == b"goal"
    # The broker starts with our store dead for good, too.
    broker.container.kill()
    broker.container.start()
    deadline = time.monotonic() + _SECONDS
    while "the broker is not affected" not in broker.container.logs() and time.monotonic() < deadline:
        time.sleep(0.5)
    broker.control("await_startup")
    assert metadata(broker) == {"guest", "tester", "quorum", "another"}


async def test_the_plugin_can_be_disabled_and_enabled_while_the_broker_runs(broker: Broker) -> None:
    async with connected(broker) as store:
        await store.put("/:score/blue", 1)
    broker.container.execute("rabbitmq-plugins", "disable", "khepri_bridge")
    assert broker.evaluate(f"whereis({_STORE}).") == "undefined"
    broker.container.execute("rabbitmq-plugins", "enable", "khepri_bridge")
    broker.await_ready(times=2)
    async with connected(broker) as store:
        assert await store.get("/:score/blue") == 1


def test_settings_that_are_wrong_are_told_in_the_brokers_log(docker_client: Any, broker_image: str) -> None:
    network = Homeservers(docker_client, broker_image)
    try:
        container = network.run("rb1", broker_image, environment={"KB_COOKIE": "c", "KB_STORE": "kernel_sup"})
        deadline = time.monotonic() + _SECONDS
        while "the name kernel_sup is taken" not in container.logs():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        container.execute("rabbitmqctl", "--quiet", "await_startup")
    finally:
        network.close()
