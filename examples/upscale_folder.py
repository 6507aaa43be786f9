"""Enlarge every picture of a folder with an upscale model.

It needs a ComfyUI (COMFYUI_PATH) with an upscale model, for instance RealESRGAN_x4plus.pth, in its folder
models/upscale_models. Like batch_folder.py it goes on where it stopped the last time.

    python upscale_folder.py [--model NAME] [FOLDER]
"""

import argparse
import asyncio
from pathlib import Path

from models import find_model

from discomfort import Discomfort

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "upscale_folder"


async def main(model: str | None, folder: Path) -> None:
    async with await Discomfort.create() as d:
        model = await find_model(d, "UpscaleModelLoader", "model_name", "models/upscale_models", model)
        print(f"{model} on {d.Worker.server_description}")
        batch = d.run_batch(
            [HERE / "workflows" / "upscale.json"],
            folder,
            input="image",  # the port that gets the pictures
            inputs={"upscaler": model},  # the same for all of them: it is loaded once
            checkpoint=RESULTS,
            progress=True,
        )
        async for item in batch:
            print(f"{item.key}: {item.state}", *item.files.get("image", []))
    print(batch.table())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Enlarge every picture of a folder.")
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "photos")
    parser.add_argument("--model", help="a file of models/upscale_models; without it, the first one")
    asyncio.run(main(**vars(parser.parse_args())))
