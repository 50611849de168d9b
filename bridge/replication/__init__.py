"""Entity state as arrays: shared world slots, rounded records and the payloads that carry them."""

from bridge.replication.bindings import Bindings
from bridge.replication.last_state import decode_state_untrusted, encode_state, state_hash
from bridge.replication.nearest import NearestGrid
from bridge.replication.quantise import ANGULAR_VELOCITY_STEP, POSITION_STEP, VELOCITY_STEP
from bridge.replication.records import (
    COMPACT,
    FULL,
    MAX_PAYLOAD_BYTES,
    Decoded,
    Layout,
    Payloads,
    Records,
    compact_records,
    decode_payloads_untrusted,
    decode_records_untrusted,
    encode_payloads,
    encode_records,
    full_records,
    records_per_payload,
    states_of,
    ticks_of,
)
from bridge.replication.seats import (
    GROUP_SEATS,
    Rows,
    empty_rows,
    handles_of,
    rows_of,
    seen_states,
)
from bridge.replication.snapshots import Outgoing, Received, SnapshotReceiver, SnapshotSender, View
from bridge.replication.world import NO_ROTATION, EntityFlag, States, World, WorldState

__all__ = [
    "ANGULAR_VELOCITY_STEP",
    "COMPACT",
    "FULL",
    "GROUP_SEATS",
    "MAX_PAYLOAD_BYTES",
    "NO_ROTATION",
    "POSITION_STEP",
    "VELOCITY_STEP",
    "Bindings",
    "Decoded",
    "EntityFlag",
    "Layout",
    "NearestGrid",
    "Outgoing",
    "Payloads",
    "Received",
    "Records",
    "Rows",
    "SnapshotReceiver",
    "SnapshotSender",
    "States",
    "View",
    "World",
    "WorldState",
    "compact_records",
    "decode_payloads_untrusted",
    "decode_records_untrusted",
    "decode_state_untrusted",
    "empty_rows",
    "encode_payloads",
    "encode_records",
    "encode_state",
    "full_records",
    "handles_of",
    "records_per_payload",
    "rows_of",
    "seen_states",
    "state_hash",
    "states_of",
    "ticks_of",
]
