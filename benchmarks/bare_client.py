"""What the benchmarks compare with: the least that runs a prompt on a ComfyUI server and knows that it is done."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp


class BareClient:
    """POST, one websocket, history; no error is expected, nothing is recovered, nothing is tidied up."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client_id = uuid.uuid4().hex

    async def __aenter__(self) -> BareClient:
        self.session = aiohttp.ClientSession()
        self.socket = await self.session.ws_connect(f"{self.address}/ws?clientId={self.client_id}", max_msg_size=0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.session.close()

    async def run(self, prompt: Mapping[str, Any], extra_data: Mapping[str, Any]) -> dict[str, Any]:
        body = {"prompt": prompt, "client_id": self.client_id, "extra_data": extra_data}
        async with self.session.post(f"{self.address}/prompt", json=body) as response:
            prompt_id = (await response.json())["prompt_id"]
        async for message in self.socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                content = json.loads(message.data)
                data = content["data"]
                if content["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                    break
        async with self.session.get(f"{self.address}/history/{prompt_id}") as response:
            entry: dict[str, Any] = (await response.json())[prompt_id]
        assert entry["status"]["status_str"] == "success", entry["status"]
        return entry
