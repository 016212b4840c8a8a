"""Photographs, developed stage by stage by a pool of processes: large numpy arrays on the move.

A camera's sensor sees one colour at each point. Three stages make a picture of that: the missing
colours are filled in, the picture is sharpened, and a thumbnail is made. Every stage is a call of
its own; its argument and its result are whole pictures.

    python photo_pipeline.py
    juggler run photo_pipeline.py

What to look at:

* The standard library pickles each picture into bytes, sends them through a pipe and puts them
  together again, there and back. On juggler the arrays lie in memory that the processes share.
* A stage may change the array that it got: it is this call's alone, on both runtimes.
* `wait` returns as soon as one picture has taken a stage, so the pictures overtake each other; only
  so many are under way as there is work for, and memory stays small.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

import numpy as np

Picture = np.ndarray[Any, Any]


def expose(number: int, height: int, width: int) -> Picture:
    """What the sensor saw: 12 bits a point, in a mosaic of red, green, green and blue."""
    columns = np.sin(np.arange(width) / (40 + number)) * 1000
    rows = np.cos(np.arange(height) / 60) * 1000
    grain = np.random.default_rng(number).integers(0, 64, (height, width), np.uint16)
    seen: Picture = (columns + rows[:, None] + 2000).astype(np.uint16) + grain
    return seen


def fill_in_colours(mosaic: Picture) -> Picture:
    """Give each point the three colours of the 2 x 2 points around it: uint16 to float32."""
    light = mosaic.astype(np.float32) / 4095
    colours = np.empty((*mosaic.shape, 3), np.float32)
    red, green, blue = light[::2, ::2], (light[::2, 1::2] + light[1::2, ::2]) / 2, light[1::2, 1::2]
    for channel, seen in enumerate((red, green, blue)):
        colours[..., channel] = seen.repeat(2, axis=0).repeat(2, axis=1)
    return colours


def sharpen(picture: Picture) -> Picture:
    """Add to each point how much it differs from its neighbours; changes its argument."""
    blurred = picture[:-2] + picture[2:]
    picture[1:-1] *= 1.5
    picture[1:-1] -= blurred * 0.25
    np.clip(picture, 0, 1, out=picture)
    return picture


def shrink(picture: Picture) -> Picture:
    """Make a thumbnail, an eighth as high and as wide: the means of 8 x 8 points, as bytes."""
    height, width, colours = picture.shape
    strips = picture[: height // 8 * 8].reshape(height // 8, 8, width, colours).mean(axis=1)
    blocks = strips[:, : width // 8 * 8].reshape(height // 8, width // 8, 8, colours)
    thumbnail: Picture = (blocks.mean(axis=2) * 255).astype(np.uint8)
    return thumbnail


STAGES = (fill_in_colours, sharpen, shrink)


def develop(
    pool: ProcessPoolExecutor, mosaics: Iterator[Picture], under_way: int
) -> dict[int, Picture]:
    """Take each mosaic through the stages, at most `under_way` at a time; thumbnails by number."""
    thumbnails: dict[int, Picture] = {}
    waiting: dict[Future[Picture], tuple[int, int]] = {}
    numbered = enumerate(mosaics)
    while True:
        while len(waiting) < under_way and (following := next(numbered, None)):
            number, mosaic = following
            waiting[pool.submit(STAGES[0], mosaic)] = number, 1
        if not waiting:
            return thumbnails
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            number, stage = waiting.pop(future)
            if stage < len(STAGES):
                waiting[pool.submit(STAGES[stage], future.result())] = number, stage + 1
            else:
                thumbnails[number] = future.result()


def main() -> int:
    """Develop the photographs, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(description="Develop photographs in a pool of processes.")
    parser.add_argument("--photos", type=int, default=10)
    parser.add_argument("--height", type=int, default=1600, help="points; an even number")
    parser.add_argument("--width", type=int, default=2400, help="points; an even number")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.height % 2 or options.width % 2:
        parser.error("--height and --width must be even")

    mosaics = (expose(number, options.height, options.width) for number in range(options.photos))
    with ProcessPoolExecutor(options.workers) as pool:
        thumbnails = develop(pool, mosaics, under_way=options.workers + 1)
    for number in range(options.photos):
        thumbnail = thumbnails[number]
        size = "x".join(str(length) for length in thumbnail.shape)
        digest = zlib.crc32(thumbnail.tobytes())
        print(f"photo {number}  {size}  mean {thumbnail.mean():.2f}  {digest:08x}")
    print(f"photos  {len(thumbnails)}")
    return 0 if len(thumbnails) == options.photos else 1


if __name__ == "__main__":
    sys.exit(main())
