"""R1-1, R3-10: a stock nginx over two service processes, with the configuration of docs/rest.md; one is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bridge.authority import Rule
from bridge.homeserver.local import LocalCluster
from bridge.khepri import Khepri
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.rest import kind

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
