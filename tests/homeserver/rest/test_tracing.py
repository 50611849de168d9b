from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bridge.homeserver.rest.tracing import Tracing, step_of

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def _asked(headers: dict[str, str]) -> tuple[str, str]:
    async def tell(request: Request) -> JSONResponse:
        step = step_of(request)
        assert step.hop == 0
        return JSONResponse(step.trace.hex())

    app = Tracing(Starlette(routes=[Route("/", tell)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rest") as client:
        response = await client.get("/", headers=headers)
    return response.json(), response.headers["Khepri-Trace"]


async def test_the_trace_of_a_request_goes_on() -> None:
    assert await _asked({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}) == (TRACE, TRACE)


@pytest.mark.parametrize(
    "parent", ["", "00-1-2-01", f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE.upper()}-b7-01"]
)
async def test_a_request_without_a_trace_gets_a_new_one(parent: str) -> None:
    inside, outside = await _asked({"traceparent": parent})
    assert inside == outside
    assert len(inside) == 32
    assert inside not in (TRACE, "0" * 32)
