"""Limits of providers over HTTP: the operator's, listed, set and taken away."""

from __future__ import annotations

from pathlib import Path

from tests.server.serving import served


async def test_set_list_and_take_away(tmp_path: Path) -> None:
    """A limit is set whole under its counted name, and gone when it is taken away."""
    async with served(tmp_path) as server:
        url = f"{server.url}/v1/quotas"
        async with server.session.put(f"{url}/openai-chat:gpt-5", json={"rpm": 500}) as answer:
            assert (answer.status, (await answer.json())["name"]) == (200, "openai:gpt-5")
        async with server.session.get(url) as answer:
            [quota] = (await answer.json())["quotas"]
            assert (quota["rpm"], quota["tpm"], quota["window_s"]) == (500, None, 60.0)
        async with server.session.put(f"{url}/nobody", json={"rpm": 500}) as answer:
            assert answer.status == 422
        async with server.session.put(f"{url}/openai", json={}) as answer:
            assert answer.status == 422
        for status in (200, 404):
            async with server.session.delete(f"{url}/openai:gpt-5") as answer:
                assert answer.status == status


async def test_a_tenant_s_key_does_not_reach_them(tmp_path: Path) -> None:
    """Where there are keys, limits are set on the data."""
    async with served(tmp_path, tenants=["acme"]) as server:
        headers = {"authorization": f"Bearer {server.key}"}
        for method in ("GET", "DELETE"):
            path = "/v1/quotas" if method == "GET" else "/v1/quotas/openai"
            async with server.session.request(method, server.url + path, headers=headers) as answer:
                assert answer.status == 403
