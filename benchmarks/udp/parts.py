"""One round of each part of the benchmark, as numbers by name."""

from __future__ import annotations

import statistics

from benchmarks.udp.bare_entities import measure_bare_entities
from benchmarks.udp.entities import PAYLOADS, measure_entities
from benchmarks.udp.fanout import measure_fan_out
from benchmarks.udp.fat import SIGNED_BATCH, SIGNED_OUT, measure_rate
from benchmarks.udp.floors import (
    measure_cipher,
    measure_plain,
    measure_plain_round_trips,
    measure_runs,
)
from benchmarks.udp.memory import measure_peer_kib
from benchmarks.udp.quic import measure_quic
from benchmarks.udp.roundtrip import SIZE, measure_round_trips

Round = dict[str, float]


def rates(seconds: float) -> Round:
    """Datagrams a second, ours and all that they are compared with.

    Sealed and signed at the settings that are best for each; ``signed_x_sealed_alike`` has both at those of
    signed mode.
    """
    plain = measure_plain(seconds)
    sealed = measure_rate(seconds)
    signed = measure_rate(seconds, batch=SIGNED_BATCH, out=SIGNED_OUT, signed=True)
    alike = measure_rate(seconds, batch=SIGNED_BATCH, out=SIGNED_OUT)
    runs = measure_runs(seconds, sealed=False)
    bare = measure_runs(seconds, sealed=True)
    quic, quic_loss = measure_quic(seconds)
    unmerged = measure_rate(seconds, offload=False)
    seal, opened = measure_cipher(seconds / 4)
    return {
        "sealed_per_s": sealed.per_s,
        "sealed_x_plain": sealed.per_s / plain,
        "sealed_x_aioquic": sealed.per_s / quic,
        "signed_x_sealed": signed.per_s / sealed.per_s,
        "signed_x_sealed_alike": signed.per_s / alike.per_s,
        "loss": sealed.loss,
        "signed_per_s": signed.per_s,
        "signed_loss": signed.loss,
        "plain_per_s": plain,
        "aioquic_per_s": quic,
        "aioquic_loss": quic_loss,
        "sealed_without_offload_per_s": unmerged.per_s,
        "gso_per_s": runs,
        "bare_sealed_per_s": bare,
        "aead_seal_us": seal,
        "aead_open_us": opened,
        "limit_per_s": 1e6 / max(seal, opened),
        "limit_x_plain": 1e6 / max(seal, opened) / plain,
    }


def entities(seconds: float) -> Round:
    """Entities a second from world to world."""
    compact = measure_entities(seconds, full=False)
    full = measure_entities(seconds, full=True)
    bare = measure_bare_entities(seconds, payloads=PAYLOADS, full=False)
    bare_full = measure_bare_entities(seconds, payloads=PAYLOADS, full=True)
    return {
        "entities_per_s": compact.per_s,
        "entities_full_per_s": full.per_s,
        "entities_loss": max(compact.loss, full.loss),
        "entities_bare_per_s": bare,
        "entities_full_bare_per_s": bare_full,
        "entities_x_bare": compact.per_s / bare,
        "entities_full_x_bare": full.per_s / bare_full,
    }


def round_trips(count: int) -> Round:
    """Round trips, sealed and plain."""
    plain = statistics.quantiles(measure_plain_round_trips(count, size=SIZE), n=100)
    sealed = statistics.quantiles(measure_round_trips(count, busy_poll=True), n=100)
    woken = statistics.quantiles(measure_round_trips(count, busy_poll=False), n=100)
    return {
        "rtt_p50_us": sealed[49],
        "rtt_p99_us": sealed[98],
        "rtt_woken_p50_us": woken[49],
        "rtt_woken_p99_us": woken[98],
        "plain_rtt_p50_us": plain[49],
        "plain_rtt_p99_us": plain[98],
    }


def fan_out(ticks: int) -> Round:
    """Ticks for a thousand peers."""
    result = measure_fan_out(ticks)
    return {
        "fanout_ms": result.tick_ms,
        "fanout_p99_ms": result.tick_p99_ms,
        "fanout_cpu_ms": result.tick_cpu_ms,
        "fanout_gather_ms": result.gather_ms,
        "fanout_answers_ms": result.answers_ms,
        "fanout_answer_us": result.answer_us,
        "fanout_whole_cpu_ms": result.whole_cpu_ms,
        "fanout_loss": result.loss,
        "fanout_bare_ms": result.bare_ms,
        "fanout_x_bare": result.tick_ms / result.bare_ms,
    }


def memory(peers: int) -> Round:
    """What idle peers take."""
    return {"peer_kib": measure_peer_kib(peers)}
