"""Try every combination of two parameters on one photograph, and put what came out side by side.

How few colours does a picture need, and which dither pattern hides it best? A workflow draws the photograph with each
number of colours and each pattern; the script measures how far it is from the original.
"""

import asyncio
import csv
import itertools
from pathlib import Path

from PIL import Image, ImageDraw

from discomfort import Discomfort, PerIteration

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "sweep"
COLORS, DITHERS = [4, 8, 16, 32], ["none", "bayer-4", "floyd-steinberg"]


async def main() -> None:
    grid = list(itertools.product(DITHERS, COLORS))
    async with await Discomfort.create() as d:
        photo = d.Tools.open_image_as_tensor(HERE / "photos" / "sea.jpg")
        result = await d.run(
            [HERE / "workflows" / "quantize.json"],
            inputs={
                "image": photo,
                "dither": PerIteration([dither for dither, _ in grid]),  # iteration 0 gets the first, and so on
                "colors": PerIteration([colors for _, colors in grid]),
            },
            iterations=len(grid),
            collect=["poster"],  # else only the last one is kept
        )
    posters = result["poster"]
    # Pictures are tensors [batch, height, width, channels] of numbers from 0 to 1.
    errors = [float((picture - photo).abs().mean()) for picture in posters]

    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "sweep.csv").open("w", newline="") as file:
        rows = [(*parameters, error) for parameters, error in zip(grid, errors, strict=True)]
        csv.writer(file).writerows([("dither", "colors", "error"), *rows])
    sheet = Image.new("RGB", (len(COLORS) * 400, len(DITHERS) * 300), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (dither, colors, error) in enumerate(rows):
        small = Image.fromarray((posters[number][0].clamp(0, 1) * 255).round().byte().numpy()).resize((384, 256))
        x, y = number % len(COLORS) * 400 + 8, number // len(COLORS) * 300 + 8
        sheet.paste(small, (x, y))
        draw.text((x, y + 264), f"{dither}, {colors} colours: error {error:.4f}", fill="black", font_size=16)
        print(f"{dither:<16} {colors:>3} colours   error {error:.4f}")
    sheet.save(RESULTS / "sweep.png")
    print(f"Results: {RESULTS / 'sweep.png'} and {RESULTS / 'sweep.csv'}")


if __name__ == "__main__":
    asyncio.run(main())
