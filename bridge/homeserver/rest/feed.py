"""The live feed: server-sent events of what the store applies, in that order, resumed where they broke off.

An event's id is a cursor of the store's feed. It holds for one member, as long as that has the changes since:
a client that comes back with ``Last-Event-ID`` goes on there, and gets a fresh snapshot, which says ``gap``,
anywhere else. Delivery is at least once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bridge.errors import BridgeError, ConfigurationError, SignatureError
from bridge.etf import Atom
from bridge.homeserver.rest.authentication import Anyone
from bridge.homeserver.rest.callers import Caller
from bridge.homeserver.rest.context import Context, Here
from bridge.homeserver.rest.events import event_of, snapshot_events
from bridge.homeserver.rest.problems import ProblemError, too_many
from bridge.homeserver.rest.reading import bridge_path
from bridge.homeserver.rest.scenes import SCENES, hides_address
from bridge.homeserver.rest.sessions import SessionId, session_of
from bridge.homeserver.rest.shapes import Name
from bridge.jose.credentials import Role
from bridge.khepri import Change, Cursor, NameMatches, Pattern, Snapshot

router = APIRouter(prefix="/v1/feed", tags=["feed"])

MAX_ENTITIES: Final = 32
"""named in one feed; the store watches 64 patterns at most"""
_WINDOW: Final = 100
"""changes that wait here for a client that reads slowly; the homeserver keeps the rest"""
_RETRY_MS: Final = 1000
_AT_ONCE: Final = 200
"""events of a snapshot that are made in one turn: some milliseconds"""


class Topic(StrEnum):
    """What a feed is about."""

    ENTITIES = "entities"
    """every entity"""
    SERVERS = "servers"
    SCENES = "scenes"
    ASKS = "asks"
    """what a player is asked as a master, and what becomes of the player's own requests"""
    INBOX = "inbox"
    """grants, recalls and the rest for a server's own session"""


class Feeds:
    """The feeds that a process has open.

    Args:
        maximum: how many there may be.
        of_one: how many of one caller.
    """

    def __init__(self, maximum: int, of_one: int) -> None:
        self._maximum = maximum
        self._of_one = of_one
        self._tasks: dict[asyncio.Task[None], tuple[Role, str]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, here: Context, who: Caller, patterns: Sequence[Pattern], since: Cursor | None
    ) -> _Watching:
        """Begin to watch.

        Raises:
            ProblemError: there are too many already.
        """
        if len(self._tasks) >= self._maximum:
            raise ProblemError("too_many_feeds", "this process has no room", headers={"Retry-After": "1"})
        caller = (who.role, who.subject)
        if list(self._tasks.values()).count(caller) >= self._of_one:
            raise too_many(f"{self._of_one} feeds of one caller are open")
        watching = _Watching(here, patterns, since)
        self._tasks[watching.task] = caller
        watching.task.add_done_callback(self._tasks.pop)
        return watching


class _Watching:
    """Changes of the store, and cursors between them, one after the other in ``queue``; ``None`` is its end.

    A task of its own: when a client goes away, the task that writes to it is cut short at every ``await``, so
    it could not tell the homeserver.
    """

    def __init__(self, here: Context, patterns: Sequence[Pattern], since: Cursor | None) -> None:
        self.queue: asyncio.Queue[Change | Cursor | None] = asyncio.Queue(_WINDOW)
        self.task = asyncio.create_task(self._run(here, patterns, since))

    async def _run(self, here: Context, patterns: Sequence[Pattern], since: Cursor | None) -> None:
        # Where the store refuses, or the node ends: the client comes back and is told by a new request.
        with contextlib.suppress(BridgeError, StopAsyncIteration):
            async with here.store.watch(*patterns, since=since, window=_WINDOW) as feed:
                changes = aiter(feed)
                told = since
                while True:
                    asking = asyncio.ensure_future(anext(changes))
                    # Asked for another one, the feed knows that the last one is done.
                    await asyncio.sleep(0)
                    if not asking.done() and feed.cursor is not None and feed.cursor != told:
                        told = feed.cursor
                        await self.queue.put(told)
                    await self.queue.put(await asking)
        await self.queue.put(None)


class _FeedResponse(StreamingResponse):
    """Events to one client.

    Args:
        watching: where they come from; it ends with the response, also where that never began: the generator
            of the events cannot see to that then.
    """

    def __init__(self, content: AsyncIterator[bytes], watching: _Watching) -> None:
        # nginx and others would collect a stream before they pass it on.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._watching = watching

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._watching.task.cancel()


@router.get(
    "",
    response_class=StreamingResponse,
    responses={200: {"description": "Server-sent events", "content": {"text/event-stream": {}}}},
)
async def feed(
    request: Request,
    here: Here,
    who: Anyone,
    topic: Annotated[list[Topic] | None, Query(description="Once or more.", max_length=len(Topic))] = None,
    entity: Annotated[
        list[Name] | None, Query(description="These entities alone.", max_length=MAX_ENTITIES)
    ] = None,
    session: Annotated[SessionId | None, Query(description="The server's own, for `inbox`.")] = None,
    last: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=100, description="Go on behind this event.")
    ] = None,
) -> StreamingResponse:
    """Follow what changes: a snapshot, then every change in the order in which a member applied it.

    Ends when the access token does, or its key is revoked; come back with a new one and `Last-Event-ID`.
    """
    patterns = await _patterns(here, who, topic or [], entity or [], session)
    subject = _digest(patterns)
    watching = request.app.state.feeds.start(here, who, patterns, _since(last, subject))
    return _FeedResponse(_events(here, who, _token(request), watching, subject), watching)


async def _patterns(
    here: Context, who: Caller, topics: Sequence[Topic], entities: Sequence[str], session: str | None
) -> list[Pattern]:
    every = NameMatches()
    found: list[Pattern] = [bridge_path("entities", entity) for entity in dict.fromkeys(entities)]
    for topic in dict.fromkeys(topics):
        match topic:
            case Topic.ENTITIES:
                found.append([*bridge_path("entities"), every])
            case Topic.SERVERS:
                found.append([*bridge_path("servers"), every])
            case Topic.SCENES:
                found.append([SCENES, every])
            case Topic.ASKS:
                if who.role is not Role.PLAYER:
                    raise ProblemError("role", "`asks` are a player's", members={"roles": ["player"]})
                found.append(bridge_path("asks", who.subject))
                found.append([*bridge_path("inbox"), every, Atom("asks"), every, who.subject.encode()])
            case Topic.INBOX:
                if who.role is not Role.SERVER:
                    raise ProblemError("role", "an `inbox` is a server's", members={"roles": ["server"]})
                if session is None:
                    raise ProblemError("invalid_request", "`inbox` takes the `session`")
                found.append(bridge_path("inbox", (await session_of(here, who, session)).id))
    if not found:
        raise ProblemError("invalid_request", "follow a `topic`, or name an `entity`")
    return found


def _digest(patterns: Sequence[Pattern]) -> str:
    """Stands for what a feed is about: an id of one feed says nothing to another."""
    return hashlib.sha256(repr(patterns).encode()).hexdigest()[:12]


def _since(last: str | None, subject: str) -> Cursor | None:
    """The cursor in an id; one that is of another feed, or none at all, leads to a snapshot."""
    cursor, _, about = (last or "").rpartition(".")
    if about != subject:
        return None
    try:
        return Cursor.parse(cursor)
    except ConfigurationError:
        return None


async def _events(
    here: Context, who: Caller, token: str, watching: _Watching, subject: str
) -> AsyncIterator[bytes]:
    stopping = asyncio.create_task(here.stopping.wait())
    getting: asyncio.Task[Change | Cursor | None] | None = None
    try:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        checked = time.monotonic()
        while (left := who.expires_at - time.time()) > 0:
            getting = getting or asyncio.create_task(watching.queue.get())
            await asyncio.wait(
                {getting, stopping},
                timeout=min(left, here.settings.feed_heartbeat),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if stopping.done():
                break
            if time.monotonic() - checked >= here.settings.feed_heartbeat:
                checked = time.monotonic()
                if not await _holds(here, token):
                    break
            if not getting.done():
                yield b": still here\n\n"
                continue
            item, getting = getting.result(), None
            if item is None:
                break
            try:
                async for text in _told(here, who, item, subject):
                    yield text
            except BridgeError:
                # The store does not answer: the client comes back.
                break
        yield _line("end", {"why": "come back with a token that holds and Last-Event-ID"})
    finally:
        stopping.cancel()
        if getting is not None:
            getting.cancel()


async def _told(here: Context, who: Caller, item: Change | Cursor, subject: str) -> AsyncIterator[bytes]:
    match item:
        case Cursor():
            yield f"id: {item}.{subject}\n\n".encode()
        case Snapshot():
            events = snapshot_events(item, await hides_address(here))
            while some := list(itertools.islice(events, _AT_ONCE)):
                yield b"".join(_line(*event) for event in some if _is_for(who, event[0]))
                # There may be a hundred thousand, and other requests.
                await asyncio.sleep(0)
        case _:
            event = event_of(item, await _hidden(here, item))
            if event is not None and _is_for(who, event[0]):
                yield _line(*event)


def _token(request: Request) -> str:
    return request.headers["Authorization"].partition(" ")[2].strip()


async def _holds(here: Context, token: str) -> bool:
    """Whether a token would still be taken: its key may have been revoked since."""
    try:
        await here.authenticator.authenticate(token)
    except SignatureError:
        return False
    return True


def _is_for(who: Caller, event: str) -> bool:
    """A player's question lies in the inbox of the master's server, under the player's name."""
    return event != "inbox" or who.role is Role.SERVER


async def _hidden(here: Context, change: Change) -> set[str]:
    """Only records of servers hold addresses."""
    path = getattr(change, "path", ())
    return await hides_address(here) if path[:2] == (Atom("bridge"), Atom("servers")) else set()


def _line(event: str, data: Any) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event}\ndata: {text}\n\n".encode()
