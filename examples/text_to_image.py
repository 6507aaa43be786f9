"""Paint several prompts with several seeds, and load the checkpoint once for all of them.

It needs a ComfyUI (COMFYUI_PATH) with a checkpoint of Stable Diffusion 1.x, for instance
v1-5-pruned-emaonly-fp16.safetensors, in its folder models/checkpoints.

    python text_to_image.py [--checkpoint NAME] [--steps N] [--size PIXELS]
"""

import argparse
import asyncio
from pathlib import Path

from models import find_model

from discomfort import Discomfort, PerIteration, WorkflowContext

WORKFLOWS = Path(__file__).parent / "workflows"
RESULTS = Path.cwd() / "discomfort-results" / "text_to_image"
PROMPTS = ["a lighthouse in a storm, oil painting", "a fox in the snow, woodcut", "a teapot made of glass, photograph"]
SEEDS = [1, 2]


async def main(checkpoint: str | None, steps: int, size: int) -> None:
    async with await Discomfort.create() as d:
        checkpoint = await find_model(d, "CheckpointLoaderSimple", "ckpt_name", "models/checkpoints", checkpoint)
        print(f"{checkpoint} on {d.Worker.server_description}")

        # All runs use one context. What load.json delivers there are references: the model itself stays in the server,
        # which loads it once.
        with WorkflowContext() as context:
            await d.run([WORKFLOWS / "load.json"], inputs={"checkpoint": checkpoint}, context=context)
            for number, prompt in enumerate(PROMPTS):
                result = await d.run(
                    [WORKFLOWS / "sample.json"],
                    inputs={"prompt": prompt, "seed": PerIteration(SEEDS), "steps": steps, "size": size},
                    iterations=len(SEEDS),
                    context=context,
                    collect=["image"],
                    progress=True,
                )
                for seed, image in zip(SEEDS, result["image"], strict=True):
                    d.Tools.save_comfy_image_to_disk(image, RESULTS / f"{number}-seed-{seed}.png")
                print(f"{prompt}: {result.record.seconds:.1f} s")
    print(f"Results: {RESULTS}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Paint several prompts with several seeds.")
    parser.add_argument("--checkpoint", help="a file of models/checkpoints; without it, the first one")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    asyncio.run(main(**vars(parser.parse_args())))
