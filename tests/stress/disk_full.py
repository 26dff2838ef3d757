"""Fill the disk at random moments of a run, make room, start it again, and compare it with an undisturbed run.

python -m tests.stress.disk_full                                  20 full disks, of three kinds (10 minutes, as root)
python -m tests.stress.disk_full --faults 3 --seed 7
python -m tests.stress.disk_full --places checkpoints             only the checkpoint folder is on the disk
python -m tests.stress.disk_full --vanish 4                       also delete the checkpoint folder 4 times

The disk is a small tmpfs, which needs the right to mount one. It holds the checkpoints, the cache or all that the run
writes. Half of the runs begin with a random number of free bytes, and of the others the disk is filled after a random
time. Each must end with one line that names a path, without a traceback and incomplete files, and leave a checkpoint
that can be read. Once there is room, the same command must have the results of an undisturbed run, bit for bit.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanosq import checkpoint
from tests.stress import kill_and_resume

MEBIBYTES = 32
PLACES = ("checkpoints", "cache", "all")


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a small disk while the block is executed."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, *, leave: int) -> None:
    """Fill a disk, but for some bytes."""
    status = os.statvfs(disk)
    with suppress(OSError), (disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - leave))


def folders(place: str, disk: Path, scratch: Path) -> tuple[Path, Path]:
    """Return the working folder and the cache of a run, of which one kind of files is on the disk."""
    if place == "all":
        return disk, disk / "cache"
    folder = Path(tempfile.mkdtemp(dir=scratch))
    if place == "cache":
        return folder, disk / "cache"
    (disk / "checkpoints").mkdir()
    (folder / "checkpoints").symlink_to(disk / "checkpoints")
    return folder, folder / "cache"


def check_end(process: "subprocess.Popen[str]", folder: Path, disk: Path) -> str:
    """Check how a run has ended whose disk was full. Return its error, or nothing if it has finished."""
    output, errors = process.communicate()
    assert "Traceback" not in output + errors, errors
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if process.returncode == 0:
        assert not lines, errors
        return ""
    assert process.returncode in {1, 2, 3}, f"{process.returncode} {errors}"
    assert len(lines) == 1, errors
    check_files(folder, disk)
    return lines[0]


def check_files(folder: Path, disk: Path) -> None:
    """Check that no incomplete files are left, and that checkpoints can be read."""
    incomplete = [
        path for path in (*folder.rglob("*"), *disk.rglob("*")) if path.name.endswith((".partial", "finished"))
    ]
    assert not incomplete, incomplete
    for path in (*folder.glob("checkpoints/*/last.pt"), *disk.glob("checkpoints/*/last.pt")):
        checkpoint.load(path, checkpoint.STATE)


@dataclass(frozen=True)
class Undisturbed:
    """Facts about an undisturbed run, which those that are disturbed are compared with."""

    scratch: Path
    seconds: float
    n_bytes: int  # of all that it has written
    results: dict[str, Any]

    def fill_disk(self, place: str, moments: random.Random, disk: Path) -> str:
        """Run with a disk that is or becomes full, and again with room. Return the error, or nothing if it finished."""
        folder, cache = folders(place, disk, self.scratch)
        is_full_at_first = moments.random() < 0.5
        if is_full_at_first:
            fill(disk, leave=moments.randrange(self.n_bytes))
        process = kill_and_resume.start(folder, cache)
        if not is_full_at_first:
            self.wait(process, moments)
            fill(disk, leave=0)
        error = check_end(process, folder, disk)
        (disk / "ballast").unlink(missing_ok=True)
        if error:
            kill_and_resume.finish(kill_and_resume.start(folder, cache))
            self.check(folder)
        return error

    def delete_checkpoints(self, moments: random.Random) -> str:
        """Delete the checkpoint folder of a run, and run again if it fails. Return its error, if it had one."""
        folder, cache = Path(tempfile.mkdtemp(dir=self.scratch)), self.scratch / "cache"
        process = kill_and_resume.start(folder, cache)
        self.wait(process, moments)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if error := check_end(process, folder, folder):
            kill_and_resume.finish(kill_and_resume.start(folder, cache))
        self.check(folder)
        return error

    def wait(self, process: "subprocess.Popen[str]", moments: random.Random) -> None:
        """Wait for a random time, or until the run has ended."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.2, 1) * self.seconds)

    def check(self, folder: Path) -> None:
        """Check that the run of a folder has the results of the undisturbed one."""
        results = kill_and_resume.result(folder, has_failed=True)
        assert kill_and_resume.same(results, self.results), f"other results: see {folder}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=20, help="number of full disks (default: 20)")
    parser.add_argument("--vanish", type=int, default=0, help="number of folders that are deleted (default: 0)")
    parser.add_argument(
        "--places", nargs="+", choices=PLACES, default=PLACES, help="what is on the disk (default: each)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="nanosq-"))
    try:
        with small_disk(scratch / "undisturbed") as disk:
            begin = time.perf_counter()
            kill_and_resume.finish(kill_and_resume.start(disk, disk / "cache"))
            seconds, used = time.perf_counter() - begin, shutil.disk_usage(disk).used
            undisturbed = Undisturbed(scratch, seconds, used, kill_and_resume.result(disk))
    except subprocess.CalledProcessError:
        print("skipped: this user cannot mount a disk", file=sys.stderr)
        return 0
    print(f"undisturbed: {seconds:.0f} s, {used / 1e6:.1f} MB", flush=True)
    moments = random.Random(options.seed)
    n_runs = n_faults = 0
    while n_faults < options.faults:
        place = options.places[n_faults % len(options.places)]
        n_runs += 1
        with small_disk(scratch / f"disk-{n_runs}") as disk:
            error = undisturbed.fill_disk(place, moments, disk)
        if error:
            n_faults += 1
            print(f"{n_faults}, {place}: {error}", flush=True)
    for number in range(options.vanish):
        print(f"deleted {number + 1}: {undisturbed.delete_checkpoints(moments) or 'finished'}", flush=True)
    print(f"{n_faults} full disks: one line each, and then the results of the undisturbed run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
