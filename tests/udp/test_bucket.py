from __future__ import annotations

from bridge.udp.bucket import HostBuckets, TokenBucket


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    bucket = TokenBucket(rate=10, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(0.05)
    assert bucket.take(0.11)


def test_a_long_rest_fills_no_more_than_the_burst() -> None:
    bucket = TokenBucket(rate=10, burst=2)
    bucket.take(0.0)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


def test_the_level_is_the_share_of_the_burst() -> None:
    bucket = TokenBucket(rate=10, burst=4)
    assert bucket.level(0.0) == 1
    bucket.take(0.0)
    assert bucket.level(0.0) == 0.75
    assert bucket.level(0.05) == 0.875


def test_each_host_has_a_bucket_of_its_own() -> None:
    buckets = HostBuckets(rate=1, burst=1)
    assert buckets.take("192.0.2.1", 0.0)
    assert not buckets.take("192.0.2.1", 0.0)
    assert buckets.take("192.0.2.2", 0.0)


def test_ipv6_hosts_share_the_bucket_of_their_prefix_and_none_with_ipv4() -> None:
    buckets = HostBuckets(rate=1, burst=1)
    assert buckets.take("2001:db8::1", 0.0)
    assert not buckets.take("2001:db8::ffff:2%eth0", 0.0)
    assert buckets.take("2001:db8:0:1::1", 0.0)
    assert buckets.take("0.0.0.1", 0.0)
    assert buckets.take("::1", 0.0)


def test_ipv4_hosts_that_a_socket_for_both_families_shows_are_told_apart() -> None:
    buckets = HostBuckets(rate=1, burst=1)
    assert buckets.take("::ffff:192.0.2.1", 0.0)
    assert buckets.take("::ffff:192.0.2.2", 0.0)
    assert not buckets.take("192.0.2.1", 0.0)


def test_hosts_are_forgotten_when_there_are_too_many_those_unused_for_longest_first() -> None:
    buckets = HostBuckets(rate=0.001, burst=1)
    assert buckets.take("192.0.2.1", 0.0)
    for number in range(1023):
        assert buckets.take(f"10.0.{number // 256}.{number % 256}", 0.0)
    assert not buckets.take("192.0.2.1", 0.0)
    assert buckets.take("10.9.9.9", 0.0)
    assert len(buckets) == 1024
    assert not buckets.take("192.0.2.1", 0.0)
    assert buckets.take("10.0.0.0", 0.0)
