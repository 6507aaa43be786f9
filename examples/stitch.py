"""Make one workflow of two, which computes what they compute one after the other, and opens in the editor.

brighten.json delivers "image", postcard.json reads it: in the stitched workflow a wire goes from the one to the other.
"""

import asyncio
import json
from pathlib import Path

import torch

from discomfort import Discomfort

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "stitch"
PARTS = [HERE / "workflows" / "brighten.json", HERE / "workflows" / "postcard.json"]


async def main() -> None:
    async with await Discomfort.create() as d:
        # The ports between the two are left out, and their ends wired to each other.
        stitched = d.Tools.stitch_workflows(PARTS, delete_input_ports=True, delete_output_ports=True)
        workflow = stitched["stitched_workflow"]
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "stitched.json").write_text(json.dumps(workflow, indent=2))
        print(f"In: {', '.join(stitched['inputs'])}. Out: {', '.join(stitched['outputs'])}.")
        print(f"{len(workflow['nodes'])} nodes: {', '.join(node['type'] for node in workflow['nodes'])}")

        photo = d.Tools.open_image_as_tensor(HERE / "photos" / "night.jpg")
        one_after_the_other = await d.run(PARTS, inputs={"image": photo})
        as_one = await d.run([RESULTS / "stitched.json"], inputs={"image": photo})
        d.Tools.save_comfy_image_to_disk(as_one["image"], RESULTS / "stitched.png")
        print(f"They give the same picture: {torch.equal(as_one['image'], one_after_the_other['image'])}")
    print(f"Open this in ComfyUI: {RESULTS / 'stitched.json'}")


if __name__ == "__main__":
    asyncio.run(main())
