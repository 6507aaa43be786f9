"""How prompts are executed: order, lists, lazy inputs, expansion, blockers, errors."""

from __future__ import annotations

from typing import Any

from conformance.driver import link, node

_SUM = {
    "1": node("TinyNumber", value=3),
    "2": node("TinyAdd", a=link("1"), b=4),
    "9": node("TinyShow", value=link("2")),
}


async def test_a_prompt_runs_in_the_order_of_its_links(client: Any) -> None:
    """Three nodes, one after the other, and what the last one shows is in the history."""
    run = await client.run(_SUM)
    assert run.ran() == ["1", "2", "9"]
    assert run.shown("9") == [7]
    assert run.history["status"]["status_str"] == "success"
