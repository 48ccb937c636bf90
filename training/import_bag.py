"""Writes the frames of ROS 2 bags as folders of images that training reads and people can look at.

One folder a bag: rgb/STAMP.jpg, depth/STAMP.png (16-bit millimetres, 0 = none) and dataset.yaml.
Images are rectified and matched with the depth registered to them, as when a bag is trained on
directly. Bags without an index, or compressed as a whole, have to be imported to train on them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from training.data.folder import DEFAULT_DEPTH_SCALE, write_pair, write_settings
from training.data.frame import DataError
from training.data.rosbag import open_recording


def import_bag(
    bag: Path,
    out: Path,
    every: int = 1,
    image_topic: str | None = None,
    depth_topic: str | None = None,
) -> tuple[Path, int]:
    """Writes a bag's frames to a folder of its name.

    Args:
        bag: folder, or .mcap or .db3 file.
        out: where the folder is made.
        every: n takes the first of every n frames.
        image_topic, depth_topic: None searches.

    Returns:
        The folder, and how many frames are in it.

    Raises:
        DataError: the bag cannot be used (see `read_bag`), or the folder is there already.
        OSError: a file cannot be written.
    """
    recording = open_recording(bag, image_topic, depth_topic)
    name = recording.camera.name
    folder = out / name
    if folder.exists():
        raise DataError(f"{folder}: is there already; remove it, or choose another --out")
    count = len(recording.matches[::every])
    for pair in tqdm(recording.pairs(every), total=count, desc=name, unit="frame"):
        # Of one length, so that the order of names is that of time.
        stamp = pair.name.rpartition("/")[2].zfill(19)
        write_pair(folder, stamp, pair.image, pair.depth, DEFAULT_DEPTH_SCALE)
    camera = recording.camera.calibration.rectified()
    # Last, because it is what marks the folder as complete.
    write_settings(folder, DEFAULT_DEPTH_SCALE, camera, scene=name, source=f"ROS 2 bag {bag.name}")
    return folder, count


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.import_bag",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m training.import_bag kitchen/ --out data/robot --every 5\n"
        "  python -m training.import_bag hall.mcap --out data/robot \\\n"
        "      --image-topic /front/color/image_raw"
        " --depth-topic /front/aligned_depth_to_color/image_raw",
    )
    parser.add_argument(
        "bags", nargs="+", type=Path, metavar="BAG", help="folder, or .mcap or .db3 file"
    )
    parser.add_argument("--out", required=True, type=Path, help="one folder a bag goes here")
    parser.add_argument("--every", type=int, default=1, help="take one of N frames (default: 1)")
    parser.add_argument("--image-topic", help="colour images (default: found by name)")
    parser.add_argument("--depth-topic", help="depth registered to them (default: found by name)")
    args = parser.parse_args(argv)
    if args.every < 1:
        parser.error(f"--every {args.every}: must be at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        for bag in args.bags:
            folder, count = import_bag(
                bag, args.out, args.every, args.image_topic, args.depth_topic
            )
            print(f"{folder}: {count} frames")
    except (DataError, OSError) as error:
        print(f"training.import_bag: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
