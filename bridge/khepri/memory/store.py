"""The functions of a homeserver on a tree in this process: terms in, terms out, no I/O.

Source: ``docs/protocol.md`` §1 and §3; the Erlang modules ``kb_khepri`` and ``kb_api``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.errors import RemoteRaisedError
from bridge.etf import Atom, ErlangMap, encode_term
from bridge.khepri.conditions import PathMatches, condition_term
from bridge.khepri.memory import operations, requests
from bridge.khepri.memory.feed import ChangeFeed, Send
from bridge.khepri.memory.keep_while import IMPLICIT
from bridge.khepri.memory.nodes import Payload
from bridge.khepri.memory.order import names_key
from bridge.khepri.memory.outcomes import Outcomes
from bridge.khepri.memory.requests import BRIDGE, RefusedError
from bridge.khepri.memory.tree import Change, Tree
from bridge.khepri.memory.walk import TreeError
from bridge.khepri.paths import NativePath

NODE: Final = Atom("memory@nohost")
_FEATURES: Final = frozenset({"feed", "transactions", "operation_ids", "purposes", "keep_while"})
_OK: Final = Atom("ok")
_MAX_GROUP: Final = 64
_MAX_WRITES: Final = 10_000
_MAX_PIPELINE_BYTES: Final = 67_108_864
_MAX_WATCHERS: Final = 10_000
_KHEPRI: Final = b"0.16.0"
"""whose rules the tree has"""
_OTP: Final = b"25"
"""which version of OTP the order of small maps is that of"""

Write = tuple[str, NativePath, Payload | None]
Function = Callable[..., Any]


class MemoryStore:
    """One store.

    Args:
        store: its id.
        send: delivers messages of the feed.
        run: 8 bytes that name this run in cursors; another store's must differ.
    """

    def __init__(self, store: Atom, send: Send, *, run: bytes = bytes(8)) -> None:
        self._store = store
        self._tree = Tree()
        self._outcomes = Outcomes()
        self._feed = ChangeFeed(NODE, run, send)
        identity = {
            Atom("type"): Atom("homeserver"),
            Atom("instance"): b"memory",
            Atom("cluster_id"): bytes(16),
            Atom("format"): 1,
        }
        self._tree.put((BRIDGE, Atom("identity")), Payload(identity))
        self._tree.keep_while.forget()
        self._functions: Mapping[tuple[str, str, int], Function] = {
            ("kb_khepri", "get", 3): self._get,
            ("kb_khepri", "get_each", 3): self._get_each,
            ("kb_khepri", "get_many", 3): self._get_many,
            ("kb_khepri", "exists", 3): self._exists,
            ("kb_khepri", "has_data", 3): self._has_data,
            ("kb_khepri", "is_sproc", 3): self._is_sproc,
            ("kb_khepri", "count", 3): self._count,
            ("kb_khepri", "is_empty", 2): self._is_empty,
            ("kb_khepri", "put", 4): self._put,
            ("kb_khepri", "delete", 3): self._delete,
            ("kb_khepri", "transaction", 4): self._transaction,
            ("kb_khepri", "transactions", 3): self._ungrouped,
            ("kb_khepri", "writes", 3): self._ungrouped,
            ("kb_khepri", "pipeline", 3): self._pipeline,
            ("kb_khepri", "fence", 2): self._fence,
            ("kb_khepri", "cluster", 2): self._cluster,
            ("kb_khepri", "wait_for_leader", 2): self._wait_for_leader,
            ("kb_khepri", "info", 2): self._info,
            ("kb_api", "health", 1): self._health,
            ("kb_api", "subscribe", 2): lambda request: self._feed.subscribe(self._tree, request),
        }
        self._storeless: Mapping[tuple[str, str, int], Function] = {
            ("kb_khepri", "stores", 0): lambda: [self._store],
            ("kb_api", "version", 0): lambda: 1,
            ("kb_api", "supports", 1): lambda feature: str(feature) in _FEATURES,
            ("kb_api", "acknowledge", 3): self._acknowledge,
            ("kb_api", "unsubscribe", 2): self._unsubscribe,
            ("kb_procedures", "functions", 0): list,
        }

    def call(self, module: str, function: str, arguments: Sequence[Any]) -> Any:
        """``{ok, Value}`` or ``{error, {Reason, Props}}``.

        Raises:
            RemoteRaisedError: there is no such function.
        """
        key = (module, function, len(arguments))
        if key in self._storeless:
            return _answer(self._storeless[key], *arguments)
        if key in self._functions:
            return _answer(self._on_store, self._functions[key], *arguments)
        if module in ("kb_procedures", "kb_export", "kb_api"):
            return RefusedError(
                "not_allowed", "a tree in memory does not do this: it takes a homeserver"
            ).term()
        raise RemoteRaisedError(
            f"{module}:{function}/{len(arguments)} is no function of the store", reason=Atom("undef")
        )

    def _on_store(self, function: Function, store: Any, *arguments: Any) -> Any:
        if not isinstance(store, Atom):
            raise RefusedError("invalid_options", "a store is an atom such as homeserver")
        if store is not self._store:
            raise RefusedError("store_not_running", "the store does not run on this member: ask another one")
        return function(*arguments)

    def _get(self, path: Any, options: Any) -> Any:
        target = requests.one(path)
        props, _, root = requests.read_options(options)
        for found in operations.nodes_term(
            self._tree.find(target, one=True, include_root=root), props
        ).values():
            return found
        raise operations.not_as_demanded(target)

    def _get_each(self, paths: Any, options: Any) -> Any:
        if type(paths) is not list or len(paths) > _MAX_GROUP:
            raise RefusedError("invalid_options", "up to 64 paths are read at once")
        return [_answer(self._get, path, options) for path in paths]

    def _get_many(self, path: Any, options: Any) -> Any:
        props, one, root = requests.read_options(options)
        target = requests.one(path) if one else requests.pattern(path)
        return operations.nodes_term(self._tree.find(target, one=one, include_root=root), props)

    def _exists(self, path: Any, options: Any) -> bool:
        target = requests.one(path)
        requests.read_options(options)
        return operations.exists(self._tree, target)

    def _has_data(self, path: Any, options: Any) -> bool:
        target = requests.one(path)
        requests.read_options(options)
        return operations.has_data(self._tree, target)

    def _is_sproc(self, path: Any, options: Any) -> bool:
        self._has_data(path, options)
        return False

    def _count(self, path: Any, options: Any) -> int:
        _, one, root = requests.read_options(options)
        target = requests.one(path) if one else requests.pattern(path)
        return len(self._tree.find(target, include_root=root))

    def _is_empty(self, options: Any) -> bool:
        requests.read_options(options)
        return operations.is_empty(self._tree)

    def _put(self, path: Any, data: Any, options: Any) -> Any:
        target = requests.writable(path)
        payload = Payload(requests.data(data))
        requests.write_options(options)
        self._apply("put", target, payload)
        return _DONE

    def _delete(self, path: Any, options: Any) -> Any:
        target = requests.writable(path)
        requests.write_options(options)
        self._apply("delete", target, None)
        return _DONE

    def _apply(self, kind: str, target: NativePath, payload: Payload | None) -> None:
        if kind == "put":
            _, changes = self._tree.put(target, payload, one=True)
        else:
            _, changes = self._tree.delete(target, one=True)
        self._committed(changes)

    def _committed(self, changes: Sequence[Change]) -> None:
        self._tree.keep_while.forget()
        self._feed.record(changes)

    def _transaction(self, wanted: Any, operation: Any, options: Any) -> Any:
        instructions = operations.checked(wanted)
        requests.write_options(options)

        def execute() -> Any:
            try:
                results, changes = operations.run(self._tree, instructions)
            except RefusedError as refused:
                return refused
            self._committed(changes)
            return results

        outcome = self._outcomes.once(operation, execute)
        if isinstance(outcome, RefusedError):
            raise outcome
        return outcome

    def _ungrouped(self, *_: Any) -> Any:
        """What is asked for in groups saves entries of a log, which there is not."""
        raise RefusedError(
            "ungrouped", "send each of these transactions by itself, with the same operation id"
        )

    def _pipeline(self, writes: Any, options: Any) -> Any:
        checked = _checked_writes(writes)
        requests.write_options(options)
        for _, write in checked:
            self._apply(*write)
        return [(correlation, (_OK, _DONE)) for correlation, _ in checked]

    def _fence(self, options: Any) -> Any:
        requests.write_options(options)
        return _DONE

    def _cluster(self, options: Any) -> Any:
        requests.write_options(options)
        return {
            Atom("members"): [NODE],
            Atom("leader"): NODE,
            Atom("running"): True,
            Atom("machine_version"): 1,
            Atom("effective_machine_version"): 1,
            Atom("khepri"): _KHEPRI,
            Atom("otp"): _OTP,
        }

    def _wait_for_leader(self, options: Any) -> Any:
        requests.write_options(options)
        return {Atom("leader"): NODE}

    def _health(self) -> Any:
        return {
            Atom("node"): NODE,
            Atom("store"): self._store,
            Atom("type"): Atom("homeserver"),
            Atom("instance"): b"memory",
            Atom("cluster_id"): bytes(16),
            Atom("running"): True,
            Atom("leader"): NODE,
            Atom("role"): Atom("leader"),
            Atom("members"): [NODE],
            Atom("khepri"): _KHEPRI,
            Atom("otp"): _OTP,
        }

    def _info(self, options: Any) -> Any:
        requests.write_options(options)
        kept = sorted(
            (
                (watcher, conditions)
                for watcher, conditions in self._tree.keep_while.items()
                if dict(conditions) != {watcher: IMPLICIT}
            ),
            key=lambda pair: names_key(pair[0]),
        )
        shown = [
            ErlangMap(
                (requests.path_term(path), condition_term(condition))
                for path, condition in conditions.items()
            )
            for _, conditions in kept[:_MAX_WATCHERS]
        ]
        return {
            Atom("nodes"): len(self._tree.find((PathMatches(),))),
            Atom("members"): [NODE],
            Atom("keep_while"): ErlangMap.of_distinct([list(watcher) for watcher, _ in kept], shown),
            Atom("keep_while_count"): len(kept),
            Atom("projections"): [],
        }

    def _acknowledge(self, reference: Any, sequence: Any, pid: Any) -> Any:
        self._feed.acknowledge(reference, sequence, pid)
        return _DONE

    def _unsubscribe(self, reference: Any, pid: Any) -> Any:
        self._feed.unsubscribe(reference, pid)
        return _DONE


_DONE: Final[Mapping[Any, Any]] = {}


def _answer(function: Function, *arguments: Any) -> Any:
    try:
        return (_OK, function(*arguments))
    except TreeError as error:
        return requests.refusal(error).term()
    except RefusedError as refused:
        return refused.term()


def _checked_writes(writes: Any) -> list[tuple[Any, Write]]:
    if type(writes) is not list or not 1 <= len(writes) <= _MAX_WRITES:
        raise _malformed()
    size = len(encode_term(writes))
    if size > _MAX_PIPELINE_BYTES:
        raise RefusedError(
            "too_large",
            "a pipeline has up to 64 MiB: send it in parts",
            {"size": size, "maximum": _MAX_PIPELINE_BYTES},
        )
    made = []
    for index, write in enumerate(writes):
        try:
            made.append(_checked_write(write))
        except RefusedError as refused:
            if refused.reason != "invalid_operation":
                refused.props["index"] = index
            raise
    return made


def _checked_write(write: Any) -> tuple[Any, Write]:
    match write:
        case (correlation, (Atom() as kind, path, data)) if kind is Atom("put"):
            return correlation, ("put", requests.writable(path), Payload(requests.data(data)))
        case (correlation, (Atom() as kind, path)) if kind is Atom("delete"):
            return correlation, ("delete", requests.writable(path), None)
    raise _malformed()


def _malformed() -> RefusedError:
    return RefusedError(
        "invalid_operation",
        "a pipeline is a list of 1 to 10000 {Correlation, {put, Path, Data} | {delete, Path}}",
    )
