"""Watch a run while it goes on: every iteration, step and node, as typed events.

A function that is given as progress= is called with each event, on the event loop, so it must return at once. Without
one there is a progress bar on a terminal. A sampler tells of its steps (NodeProgress) and shows previews, too.
"""

import asyncio
import time
from pathlib import Path

from discomfort import Discomfort
from discomfort import progress_events as events

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "watch"


class Watcher:
    """Prints what happens, and when."""

    def __init__(self):
        self.started = time.perf_counter()

    def __call__(self, event):
        match event:
            case events.RunStarted():
                self.say(f"run {event.run_id[:8]}, {event.iterations} iterations, on {event.server}")
            case events.IterationStarted():
                self.say(f"iteration {event.iteration + 1} of {event.iterations}")
            case events.StepStarted():
                self.say(f"    {event.workflow}")
            case events.NodeStarted():
                self.say(f"        {event.title} ({event.class_type})")
            case events.NodeProgress():
                self.say(f"        {event.percent:.0f} %")
            case events.StepFinished():
                self.say(f"    done after {event.seconds:.3f} s")
            case events.RunFinished():
                self.say(f"failed: {event.error}" if event.error else f"{event.iterations} iterations are done")

    def say(self, text):
        print(f"{time.perf_counter() - self.started:7.3f} s  {text}", flush=True)


async def main() -> None:
    async with await Discomfort.create() as d:
        photo = d.Tools.open_image_as_tensor(HERE / "photos" / "night.jpg")
        steps = [HERE / "workflows" / "brighten.json", HERE / "workflows" / "sharpen.json"]
        result = await d.run(steps, inputs={"image": photo}, iterations=3, progress=Watcher())
        d.Tools.save_comfy_image_to_disk(result["image"], RESULTS / "watched.png")
    print(f"Result: {RESULTS / 'watched.png'}")


if __name__ == "__main__":
    asyncio.run(main())
