"""Fly into a picture: a loop whose every iteration goes a little nearer, and what it saw as a film.

The workflow has "image" on both sides: what comes out of one iteration goes into the next. That is all a feedback loop
takes.
"""

import asyncio
from pathlib import Path

from PIL import Image

from discomfort import Discomfort

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "zoom"


async def main() -> None:
    async with await Discomfort.create() as d:
        photo = d.Tools.open_image_as_tensor(HERE / "photos" / "sea.jpg")
        result = await d.run(
            [HERE / "workflows" / "zoom.json"],
            inputs={"image": photo},  # what the first iteration begins with
            iterations=32,
            collect=["image"],
            progress=True,
        )
    # Pictures are tensors [batch, height, width, channels] of numbers from 0 to 1.
    tensors = [photo, *result["image"]]
    frames = [
        Image.fromarray((tensor[0].clamp(0, 1) * 255).round().byte().numpy()).resize((480, 320)) for tensor in tensors
    ]
    film = frames + frames[-2:0:-1]  # there, and back again
    RESULTS.mkdir(parents=True, exist_ok=True)
    film[0].save(RESULTS / "zoom.webp", save_all=True, append_images=film[1:], duration=60, loop=0, quality=80)
    d.Tools.save_comfy_image_to_disk(tensors[-1], RESULTS / "nearest.png")
    print(f"{len(film)} pictures: {RESULTS / 'zoom.webp'}")


if __name__ == "__main__":
    asyncio.run(main())
