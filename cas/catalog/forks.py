"""What a forked child inherits of SQLite, and how it gets rid of it.

Floor 2. Invariant: no connection is opened in a process in which SQLite still knows the file from
before the fork.

SQLite keeps, per process and file, what it has locked. A forked child inherits that belief but
none of the locks (POSIX locks belong to one process), so a connection that it opens takes none:
another process may then remove the log under it, and commits that were acknowledged are lost
(reproduced: parent opens, forks; the child opens; the parent closes; the child commits). SQLite
forgets the file when its last connection closes, so the child closes those it inherited first,
without the checkpoint that belongs to closing: the files are still its parent's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from cas.errors import ForkedStore

if TYPE_CHECKING:
    import apsw

_opened: WeakKeyDictionary[apsw.Connection, tuple[int, str]] = WeakKeyDictionary()
_inherited = False


def note(connection: apsw.Connection, path: str) -> None:
    """A connection that this process has opened."""
    _opened[connection] = (os.getpid(), path)


def disinherit(path: str) -> None:
    """Close what the parent had open, before this process opens `path` itself.

    Raises `ForkedStore` when a connection to that file was in use while the process forked: in
    the middle of its work it can neither be closed nor be left alone.
    """
    global _inherited
    if not _inherited:
        return
    busy = False
    for connection, (pid, name) in list(_opened.items()):
        if pid != os.getpid():
            if _close(connection):
                del _opened[connection]
            else:
                busy = busy or name == path
    if busy:
        raise ForkedStore(
            f"{path} was in use while the process forked, so the child cannot open it safely; "
            "fork when nothing is under way, or start the child with `spawn`."
        )
    _inherited = any(pid != os.getpid() for pid, _name in _opened.values())


def _close(connection: apsw.Connection) -> bool:
    import apsw

    try:
        # Rolling back would clear shared memory that the parent's writer goes on to use.
        if connection.in_transaction:
            return False
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close(True)
    except apsw.ConnectionClosedError:
        return True
    except apsw.Error:
        return False
    return True


def _in_child() -> None:
    """Nothing here may call SQLite: another thread may have been inside it."""
    global _inherited
    if not _opened:
        return
    import ctypes

    _inherited = True
    for connection in list(_opened):
        # Never collected: that would close it, and with it possibly the parent's log.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(after_in_child=_in_child)
