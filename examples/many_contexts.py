"""Run several workflows at once, and let runs and processes share values.

Each run has a context, which holds its values: runs that go on at the same time do not see each other's. A context of
your own goes from run to run, and other processes look into it while it lives.
"""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from discomfort import Discomfort, WorkflowContext, get_context

HERE = Path(__file__).parent
WORKFLOWS = HERE / "workflows"
RESULTS = Path.cwd() / "discomfort-results" / "many_contexts"


def look_from_another_process(run_id: str) -> str:
    """Runs in another process. The picture is not copied there: both read the same memory."""
    context = get_context(run_id)
    return f"{context.list_keys()}, the image has the shape {tuple(context.load('image').shape)}"


async def main() -> None:
    async with await Discomfort.create() as d:
        # All at once. They all say "image"; each means its own.
        photos = sorted((HERE / "photos").glob("*.jpg"))
        images = [d.Tools.open_image_as_tensor(photo) for photo in photos]
        runs = [d.run([WORKFLOWS / "sharpen.json"], inputs={"image": image}) for image in images]
        for photo, result in zip(photos, await asyncio.gather(*runs), strict=True):
            d.Tools.save_comfy_image_to_disk(result["image"], RESULTS / f"{photo.stem}.png")
            print(f"{photo.name}: run {result.record.run_id[:8]}, {result.record.seconds:.2f} s")

        # One context for two runs: the second reads what the first delivered, and needs no inputs.
        with WorkflowContext() as context:
            await d.run([WORKFLOWS / "brighten.json"], inputs={"image": images[0]}, context=context)
            postcard = await d.run([WORKFLOWS / "postcard.json"], context=context)
            d.Tools.save_comfy_image_to_disk(postcard["image"], RESULTS / "postcard.png")

            # And another process, which needs nothing but the run's id.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                loop = asyncio.get_running_loop()
                seen = await loop.run_in_executor(pool, look_from_another_process, context.run_id)
            print(f"Another process sees {seen}")
        # Here the context ends, and nothing of it is left. The pictures that were returned stay good.
    print(f"Results: {RESULTS}")


if __name__ == "__main__":
    asyncio.run(main())
