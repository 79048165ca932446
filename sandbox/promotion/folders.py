"""A folder that somebody else owns: nothing below it is reached through a link, and nothing in it is overwritten.

Whoever may write there could put a link in the way of a privileged process. Where the system can (not on Windows), each
folder of a path is opened from the one above it and never by name again; elsewhere each is looked at before it is used.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

HAS_DESCRIPTORS = {os.open, os.stat, os.mkdir, os.link, os.unlink, os.rename, os.rmdir} <= os.supports_dir_fd

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system without hard links says."""


class Astray(OSError):
    """A path leads through a link, or through what is no folder."""


class Folder:
    """The folder `path`, itself reached however its name says; paths below it have ``/`` and are no others' to choose.

    :param by_descriptor: open folders one from another, where the system can.
    """

    def __init__(self, path: Path, *, by_descriptor: bool = HAS_DESCRIPTORS) -> None:
        self.path = path.resolve(strict=True)
        if not self.path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        self._root = os.open(self.path, _FOLDER) if by_descriptor else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._root is not None:
            os.close(self._root)

    def status(self, path: str) -> os.stat_result | None:
        """What is at a path, no link followed; None if nothing is.

        :raises Astray: something else than folders is on the way.
        """
        try:
            with self._spot(path) as (name, at):
                return os.stat(name, follow_symlinks=False, **at)  # noqa: PTH116 (Path knows no descriptors)
        except FileNotFoundError:
            return None

    def read(self, path: str) -> IO[bytes]:
        """Open a plain file."""
        with self._spot(path) as (name, at):
            descriptor = os.open(name, os.O_RDONLY | _FILE, **at)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Astray(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.fdopen(descriptor, "rb")

    def create(self, path: str) -> IO[bytes]:
        """Make a file that is not there, for its owner only, and open it for writing."""
        with self._spot(path) as (name, at):
            return os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, **at), "wb")

    def make_folder(self, path: str, mode: int = 0o700) -> None:
        """Make a folder that is not there, in one that is."""
        with self._spot(path) as (name, at):
            os.mkdir(name, mode, **at)  # noqa: PTH102

    def own(self, path: str, uid: int, gid: int, mode: int) -> None:
        """Give a folder its owner and mode, on systems that have them."""
        if self._root is not None:
            with self._opened(path) as descriptor:
                try:
                    os.fchown(descriptor, uid, gid)
                finally:
                    os.fchmod(descriptor, mode)

    def put(self, made: str, path: str) -> None:
        """Move a file to a place, in one instant, if the place is free.

        :raises FileExistsError: it is not.
        """
        with self._spot(made) as (old, at_old), self._spot(path) as (new, at_new):
            sides = {"src": at_old, "dst": at_new}
            ats = {f"{side}_{key}": value for side, at in sides.items() for key, value in at.items()}
            try:
                os.link(old, new, **({"follow_symlinks": False} if ats else {}), **ats)
            except OSError as ex:
                if ex.errno not in _NO_LINKS:
                    raise
                if self.status(path) is not None:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
                os.rename(old, new, **ats)  # noqa: PTH104
            else:
                os.unlink(old, **at_old)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        with self._spot(path) as (name, at):
            os.unlink(name, **at)

    def remove_folder(self, path: str) -> bool:
        """Remove a folder if it is there and empty; return whether it is gone."""
        try:
            with self._spot(path) as (name, at):
                os.rmdir(name, **at)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def names(self, path: str) -> list[str]:
        """What is in a folder below it."""
        if self._root is None:
            return [below.name for below in self._looked_at([*PurePosixPath(path).parts]).iterdir()]
        with self._opened(path) as descriptor:
            return os.listdir(descriptor)  # noqa: PTH208

    def sync(self, path: str) -> None:
        """Bring the names in a folder to the disk, where a folder can be opened."""
        if self._root is not None:
            with self._opened(path) as descriptor:
                os.fsync(descriptor)

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        with self._spot(path) as (name, at):
            descriptor = _open_folder(name, **at)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    @contextmanager
    def _spot(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """How the system is told of a path: its name, and the folder where that is."""
        *parents, name = PurePosixPath(path).parts or (".",)
        if ".." in (*parents, name) or path.startswith("/"):
            raise Astray(errno.EINVAL, os.strerror(errno.EINVAL))
        if self._root is None:
            yield str(self._looked_at(parents) / name), {}
            return
        at = os.dup(self._root)
        try:
            for parent in parents:
                below = _open_folder(parent, dir_fd=at)
                os.close(at)
                at = below
            yield name, {"dir_fd": at}
        finally:
            os.close(at)

    def _looked_at(self, parents: list[str]) -> Path:
        place = self.path
        for parent in parents:
            place /= parent
            info = place.lstat()
            if not stat.S_ISDIR(info.st_mode) or getattr(info, "st_reparse_tag", False):
                raise Astray(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return place


def _open_folder(name: str, **at: Any) -> int:
    try:
        return os.open(name, _FOLDER, **at)
    except OSError as ex:
        if ex.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Astray(ex.errno, ex.strerror) from None
        raise
