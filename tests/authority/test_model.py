"""The models of leases and grants, and of escrow (``docs/authority-model.md``), searched by Spin."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# A search takes seconds; the limit is for machines that do other things beside it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def model_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "model-check", *arguments],
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )


def test_every_quick_configuration_keeps_all_properties() -> None:
    checked = model_check("--quick")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert len(checked.stdout.splitlines()) == 7, checked.stdout


@pytest.mark.parametrize(
    "defect",
    [
        "LESSOR_WAITS_L",
        "NO_EARLY_STOP",
        "NO_EPOCH_CHECK",
        "ACT_BEFORE_RELEASE",
        "FAILOVER_TO_DUE",
        "MIDDLE_WAITS",
        "DELETED_AT_ONCE",
        "NEVER_EXPIRES",
        "ESCROW_TAKES_BACK",
        "ESCROW_FORGETS",
    ],
)
def test_a_seeded_defect_is_found(defect: str) -> None:
    checked = model_check("--bugs", defect)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "assertion violated" in checked.stdout


def test_what_does_not_exist_is_not_checked_and_passed() -> None:
    assert model_check("--bugs", "NO_SUCH_DEFECT").returncode != 0
