"""Rules that hold for every test."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from bridge.etf import set_atom_budget

pytest_plugins = [
    "tests.support.target",
    "tests.support.cluster",
    "tests.support.federation",
    "tests.support.packing",
]

# No timed assertions: a property that takes long on a busy machine is as true as on an idle one.
settings.register_profile("bridge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bridge")

# Properties make atoms at random, and none of them reaches a node that lives for long.
set_atom_budget(None)

# Where tests run in the background, SIGINT is ignored; here and in children Ctrl-C is to be what it is.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """In continuous integration a skipped test is a failure: nothing passes by not having run."""
    del item, call
    report: pytest.TestReport = yield
    if _IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """A module that skips itself as a whole is no better."""
    del collector
    report: pytest.CollectReport = yield
    if _IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
