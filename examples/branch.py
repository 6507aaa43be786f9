"""Decide for each picture what is done to it: dark ones are brightened, the others are sharpened.

A Branch is a step like a workflow. Its condition is asked when its turn comes, and reads the values of the run.
"""

import asyncio
from pathlib import Path

from discomfort import Branch, Discomfort

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "branch"

BRIGHTEN, SHARPEN = (HERE / "workflows" / name for name in ("brighten.json", "sharpen.json"))
# A condition is an expression, a port's name, or a function of the values. "image" is what the run was given; behind
# a workflow with an OUTPUT port of that name it would be what that delivered.
STEPS = [Branch("mean(image) < 0.3", then=[BRIGHTEN], otherwise=[SHARPEN])]


async def main() -> None:
    async with await Discomfort.create() as d:
        for photo in sorted((HERE / "photos").glob("*.jpg")):
            image = d.Tools.open_image_as_tensor(photo)
            result = await d.run(STEPS, inputs={"image": image})
            d.Tools.save_comfy_image_to_disk(result["image"], RESULTS / f"{photo.stem}.png")
            [step] = result.record.steps  # the record knows which way it went
            print(
                f"{photo.name:<14} brightness {image.mean():.2f} -> {step.workflow}, {result['image'].mean():.2f} now"
            )
    print(f"Results: {RESULTS}")


if __name__ == "__main__":
    asyncio.run(main())
