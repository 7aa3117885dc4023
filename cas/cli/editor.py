"""`cas edit`: a file of a branch in an editor.

Floor 9. Invariant: what an editor left is committed, or unchanged, or it lies in a file whose name
was told; the store is not open while somebody thinks.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import suppress
from typing import Final

import click

from cas.cli.edit import commit_options, request_of, tell_edited
from cas.cli.front import Front, pass_front
from cas.cli.objects import PART_BYTES
from cas.cli.options import TARGET, CasCommand
from cas.commands.edit import Edited, EditRequest, Place, open_to_edit, parse_place, save_edit
from cas.errors import CasError, StorageFailed
from cas.model.ids import digest_blob, digest_parts
from cas.model.names import to_bytes


@click.command("edit", cls=CasCommand)
@click.argument("place", metavar="BRANCH:PATH", type=TARGET)
@commit_options
@pass_front
def edit(front: Front, place: str, message: str, author: str | None, if_match: str | None) -> None:
    """Change a file of a branch in an editor.

    The editor is VISUAL, else EDITOR. What was not changed makes no commit. If the file was
    changed by somebody else meanwhile, nothing is committed, and what the editor left stays in
    a file whose name is told.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise click.UsageError("Say which editor: set VISUAL or EDITOR.")
    request = request_of(message, author, if_match)
    folder = tempfile.mkdtemp(prefix="cas-edit-")
    work = _Work(front, folder, parse_place(place))
    try:
        work.lay_out(if_match)
        edited = work.run(editor, request)
    except BaseException as error:
        if work.is_changed():
            _tell_where(front, error, os.fsdecode(work.file))
        else:
            _remove(folder)
        raise
    _remove(folder)
    tell_edited(front, "edit", edited)


class _Work:
    """A file of the store in a folder of its own, under its own name: editors go by that."""

    def __init__(self, front: Front, folder: str, place: Place) -> None:
        self._front = front
        self._place = place
        self._before = digest_blob(b"")
        name = to_bytes(place.path).rsplit(b"/", 1)[-1]
        self.file = os.path.join(os.fsencode(folder), name)

    def lay_out(self, if_match: str | None) -> None:
        """Write the file as it is in the branch."""
        with self._front.store() as store:
            self._front.check_branches(store, self._place.branch)
            self._opened = open_to_edit(store, self._place, if_match)
            with open(self.file, "wb") as out:
                reader = self._opened.reader
                while reader is not None and (part := reader.read(PART_BYTES)):
                    out.write(part)
        self._before = self._digest()

    def run(self, editor: str, request: EditRequest) -> Edited:
        """Let the editor work, and commit what it left."""
        code = subprocess.call(["/bin/sh", "-c", f'{editor} "$@"', editor, self.file])
        if code:
            raise click.ClickException(
                f"The editor {editor!r} ended with code {code}; nothing was committed."
            )
        if self._digest() == self._before:
            return Edited((), None, ())
        with self._front.store(write=True) as store, open(self.file, "rb") as content:
            return save_edit(store, self._opened, content, request)

    def is_changed(self) -> bool:
        """Whether the file holds what is nowhere else."""
        try:
            return self._digest() != self._before
        except StorageFailed:
            return False

    def _digest(self) -> bytes:
        try:
            with open(self.file, "rb") as content:
                return digest_parts(iter(lambda: content.read(PART_BYTES), b""))
        except OSError as error:
            raise StorageFailed(
                f"The editor left no file to read ({error.strerror}); nothing was committed.",
                path=self.file,
                errno=error.errno,
            ) from error


def _tell_where(front: Front, error: BaseException, file: str) -> None:
    """Say where the words are: inside the error, so that there is one, or before it."""
    text = f" What the editor left is in {file}."
    if isinstance(error, CasError):
        error.message += text
        error.fields["kept"] = file
    elif isinstance(error, click.ClickException):
        raise click.ClickException(error.format_message() + text) from error
    else:
        front.out.warn(text.strip())


def _remove(folder: str) -> None:
    for name in os.listdir(folder):
        with suppress(OSError):
            os.unlink(os.path.join(folder, name))
    with suppress(OSError):
        os.rmdir(folder)


COMMANDS: Final = {"edit": edit}
