"""Send every picture of a folder through a workflow, and go on where it stopped the last time.

    python batch_folder.py [FOLDER]

Run it twice: the second time nothing is left to do. Add a picture, change one, or delete a result, and only that one
is made. A picture that cannot be read does not end the batch; it is tried again the next time.
"""

import asyncio
import sys
from pathlib import Path

from discomfort import Discomfort

HERE = Path(__file__).parent
RESULTS = Path.cwd() / "discomfort-results" / "batch_folder"


async def main(folder: Path) -> None:
    async with await Discomfort.create() as d:
        batch = d.run_batch(
            [HERE / "workflows" / "postcard.json"],
            folder,  # each of its pictures goes to the only INPUT port, "image"
            checkpoint=RESULTS,  # what is done is noted there
        )
        async for item in batch:  # as soon as it is done
            print(f"{item.key}: {item.state} after {item.seconds:.2f} s", *item.files.get("image", []))
    # The same table, for all items, is results.csv; report.html shows pictures and times.
    print(batch.table())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "photos"))
