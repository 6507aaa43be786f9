"""Use ComfyConnector without the rest: start a server, run an ordinary workflow on it, fetch the picture.

No ports, no loops, no context: mirror.json is a workflow as the editor saves it. The connector turns it into a prompt
with ComfyUI's own frontend, runs it, and ends the server.
"""

import asyncio
import json
from pathlib import Path

import aiohttp

from discomfort import ComfyConnector

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "connector_alone"


async def main() -> None:
    connector = await ComfyConnector.create()
    try:
        print(f"{connector.server_description}\nIt is {connector.state}.")
        # As a file of the input folder, until the connector ends.
        photo = Path(connector.upload_data(HERE / "photos" / "night.jpg", is_ephemeral=True))
        workflow = json.loads((HERE / "workflows" / "mirror.json").read_text())
        prompt = await connector.get_prompt_from_workflow(workflow)
        for node in prompt.values():
            if node["class_type"] == "LoadImage":
                node["inputs"]["image"] = photo.name

        history = await connector.run_workflow(
            prompt,
            use_workflow_json=False,  # it is a prompt already
            on_event=lambda event: print(f"  {event.type}"),  # what the server says meanwhile
        )
        [entry] = history.values()
        RESULTS.mkdir(parents=True, exist_ok=True)
        async with aiohttp.ClientSession(connector.server_address) as http:
            for output in entry["outputs"].values():
                for image in output["images"]:  # where it is: filename, subfolder, type
                    answer = await http.get("/view", params=image)
                    (RESULTS / "mirror.png").write_bytes(await answer.read())
    finally:
        await connector.kill_api()  # server, browser, temp files and the uploaded photo are gone
    print(f"It is {connector.state}. Result: {RESULTS / 'mirror.png'}")


if __name__ == "__main__":
    asyncio.run(main())
