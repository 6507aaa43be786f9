"""Kill a run in the middle, go on with it, and get what an undisturbed run gives.

The script starts itself as a child, which is killed (SIGKILL, nobody can catch that) in the sixth of eight iterations.
Then it makes the same call again: what is safely on the disk is taken from there, the rest is run.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import torch

from discomfort import Discomfort, progress_events

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "survive_a_crash"


def die_in_the_sixth_iteration(event):
    if isinstance(event, progress_events.StepStarted) and event.path == (5,):  # counted from 0
        os.kill(os.getpid(), signal.SIGKILL)


async def run(**more):
    async with await Discomfort.create() as d:
        photo = d.Tools.open_image_as_tensor(HERE / "photos" / "mountains.jpg")
        return await d.run(
            [HERE / "workflows" / "grain.json"],
            inputs={"image": photo},
            iterations=8,
            collect=["image"],
            seed_policy="randomize",  # each iteration draws another seed
            **more,
        )


async def main() -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, __file__, "child")
    print(f"The child ended with status {await child.wait()}; -9 is SIGKILL.")

    resumed = await run(checkpoint=RESULTS)  # the same call
    print(f"{resumed.record.recalled_steps} steps of 8 were taken from {RESULTS}, the others run.")

    undisturbed = await run(master_seed=resumed.master_seed)  # without a folder, in one go
    same = resumed.seeds == undisturbed.seeds and all(map(torch.equal, resumed["image"], undisturbed["image"]))
    print(f"Pictures and seeds are {'identical, bit for bit' if same else 'NOT identical'}. The seeds:")
    print(*[seed for step in resumed.seeds for node in step.values() for seed in node.values()])
    print(f"What happened: {RESULTS / 'report.html'}")


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        # resume=False: what an earlier start of this script has left is moved aside.
        asyncio.run(run(checkpoint=RESULTS, resume=False, progress=die_in_the_sixth_iteration))
    else:
        asyncio.run(main())
