from __future__ import annotations

from prometheus_client import generate_latest

from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest


@erlang
async def test_requests_are_counted_by_route_and_not_by_name(rest: Rest) -> None:
    client = await rest.client("ops")
    for _ in range(3):
        await client.get(f"/v1/entities/{fresh('nothing')}")
    await client.get("/health")
    await client.get("/nowhere")
    await client.request("BREW", "/health")
    text = generate_latest(rest.context.registry).decode()
    requests = [line for line in text.splitlines() if line.startswith("khepri_bridge_rest_requests_total")]
    assert (
        'khepri_bridge_rest_requests_total{method="GET",route="/v1/entities/{entity}",status="404"} 3.0'
        in requests
    )
    assert 'khepri_bridge_rest_requests_total{method="GET",route="/health",status="200"} 1.0' in requests
    assert 'khepri_bridge_rest_requests_total{method="GET",route="none",status="404"} 1.0' in requests
    assert any('method="other"' in line and 'status="405"' in line for line in requests)
    assert "khepri_bridge_rest_requests_open 0.0" in text
