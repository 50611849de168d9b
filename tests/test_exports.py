"""The public surface is a list: every room names it, and nothing else of a room is public."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import bridge

ROOMS = sorted(module.name for module in pkgutil.iter_modules(bridge.__path__) if module.ispkg)
WITH_EXPORTS = [room for room in ROOMS if room not in ("cli", "cluster", "homeserver", "sim")]


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_face_only_hands_names_on(room: str) -> None:
    face = Path(bridge.__path__[0]) / room / "__init__.py"
    for node in ast.parse(face.read_text()).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_list = isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(node)
        assert is_docstring or is_list or isinstance(node, ast.ImportFrom), ast.unparse(node)


@pytest.mark.parametrize("room", WITH_EXPORTS)
def test_every_exported_name_exists_and_is_listed_once(room: str) -> None:
    module = importlib.import_module(f"bridge.{room}")
    names = module.__all__
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []


def test_the_names_that_programs_rely_on_are_there() -> None:
    surface = {
        "etf": "Atom Pid Reference Port ExportFun ImproperList BitString encode_term decode_term",
        "node": "HiddenNode",
        "khepri": "Khepri",
        "jose": "Jwk box_encrypt box_decrypt sign verify",
        "udp": "UdpEngine UdpConfig",
    }
    for room, names in surface.items():
        assert set(names.split()) <= set(importlib.import_module(f"bridge.{room}").__all__)


def test_importing_the_codec_loads_nothing_else() -> None:
    code = "import sys, bridge.etf; print([m for m in sys.modules if m.startswith('bridge.')])"
    loaded = ast.literal_eval(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
    assert {module.split(".")[1] for module in loaded} == {"etf", "errors"}


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(bridge.__path__[0]) / "py.typed").is_file()
