"""Sharpen a photograph, step by step, until it is sharp enough: a loop around a ComfyUI workflow.

The workflow (refine.json, open it in ComfyUI) has two INPUT ports, "image" and "amount", and an OUTPUT port "image".
"""

import asyncio
from pathlib import Path

from matplotlib.cbook import get_sample_data  # a photograph that comes with it: Grace Hopper, public domain
from pictures import draw_contact_sheet, out_of_focus, sharpness

from discomfort import Discomfort, PerIteration

WORKFLOW = Path(__file__).parent / "workflows" / "refine.json"
RESULTS = Path.cwd() / "discomfort-results"


async def main() -> None:
    async with await Discomfort.create() as d:
        photo = out_of_focus(d.Tools.open_image_as_tensor(get_sample_data("grace_hopper.jpg", asfileobj=False)))
        goal = 7 * sharpness(photo)

        def amount(iteration, values):  # decided from the last result: bold while it is far from the goal
            return 0.008 + 0.024 * (1 - sharpness(values["image"]) / goal)

        result = await d.run(
            [WORKFLOW],
            inputs={"image": photo, "amount": PerIteration(amount)},
            iterations=20,
            loop_condition=lambda values: sharpness(values["image"]) < goal,
            collect=["image"],
            progress=True,
        )
        pictures = [photo, *result["image"]]
        for number, picture in enumerate(pictures):
            d.Tools.save_comfy_image_to_disk(picture, RESULTS / f"iteration-{number:02}.png")
        sheet = draw_contact_sheet(pictures, goal, RESULTS / "contact-sheet.png")
        print(f"{result.record.summary()}\nResults: {sheet}, and every iteration beside it")


if __name__ == "__main__":
    asyncio.run(main())
