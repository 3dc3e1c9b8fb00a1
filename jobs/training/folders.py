"""The folders of a training's output: the checkpoints that the trainer reads and writes, and the model."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs.storage.store import LocalStore, Store

CHECKPOINTS = "checkpoints"
# Written last, so that a checkpoint that has it is complete.
STATE_FILE = "trainer_state.json"


@contextlib.contextmanager
def checkpoint_folder(run: Store) -> Iterator[Path]:
    """A folder of this machine for the trainer's checkpoints: the run's own, or a copy of it where the run is on S3."""
    if isinstance(run, LocalStore):
        yield run.path(CHECKPOINTS)
        return
    with tempfile.TemporaryDirectory(prefix="tokenpair-training-") as aside:
        for name in files_below(run, CHECKPOINTS):
            path = Path(aside) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(run.read(name))
        yield Path(aside) / CHECKPOINTS


def publish_checkpoints(run: Store, folder: Path) -> None:
    """Make the checkpoints of a run on S3 those of the local ``folder``; a local run has them already."""
    if isinstance(run, LocalStore):
        return
    complete = [path.parent for path in folder.glob(f"*/{STATE_FILE}")]
    for checkpoint in complete:
        name = f"{CHECKPOINTS}/{checkpoint.name}"
        if not run.exists(f"{name}/{STATE_FILE}"):
            copy_folder(run, checkpoint, name)
    kept = {checkpoint.name for checkpoint in complete}
    for name in files_below(run, CHECKPOINTS):
        if name.split("/")[1] not in kept:
            run.remove(name)


def copy_folder(run: Store, folder: Path, name: str) -> None:
    """Write a local folder's files below ``name``; a checkpoint's state comes last."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda path: (path.name == STATE_FILE, path)):
        run.replace(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def remove_folder(run: Store, name: str) -> None:
    """Remove ``name`` and everything below it, if it is there."""
    if isinstance(run, LocalStore):
        with run.guard("remove", name):
            if run.path(name).is_dir():
                shutil.rmtree(run.path(name))
        return
    for file in files_below(run, name):
        run.remove(file)


def files_below(run: Store, folder: str) -> list[str]:
    """Every file below ``folder``, those of its folders too."""
    from pyarrow.fs import FileSelector, FileType

    system, root = run._arrow()
    selector = FileSelector(f"{root}/{folder}", allow_not_found=True, recursive=True)
    infos = run.attempt("list", folder, lambda: system.get_file_info(selector))
    return [info.path.removeprefix(f"{root}/") for info in infos if info.type == FileType.File]
