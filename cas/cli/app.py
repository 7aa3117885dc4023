"""The command `cas`: which commands there are, and what happens around each of them.

Floor 9. Invariant: a command's module is imported when the command is called, and no other; an
invocation ends with one exit code of docs/errors.md, and every error is told once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from cas.cli.front import Front
from cas.cli.options import WithCommon, said_json
from cas.cli.problems import BROKEN_PIPE, Problem, debugging, problem_of

if TYPE_CHECKING:
    from cas.worktree.glance import Glance

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": ("init", "Make a store."),
    "put": ("objects", "Store files as objects and print their ids."),
    "get": ("objects", "Print or write the content of an object."),
    "snapshot": ("save", "Save a folder as the next commit of a branch."),
    "restore": ("restore", "Write the files of a revision into a folder."),
    "ls": ("browse", "List the files of a revision."),
    "cat": ("browse", "Print a file of a revision."),
    "show": ("browse", "Tell what a commit, a path or an object is."),
    "write": ("edit", "Write files into a branch."),
    "rm": ("edit", "Remove files from a branch."),
    "mv": ("edit", "Move files within a branch, or to another."),
    "cp": ("edit", "Copy files of any revision into a branch."),
    "edit": ("editor", "Change a file of a branch in an editor."),
    "grep": ("grep", "Search the files of a revision."),
    "export": ("archive", "Write a revision, or a part of it, as an archive."),
    "import": ("archive", "Save an archive as the next commit of a branch."),
    "import-git": ("gitimport", "Take in the history of a git folder."),
    "diff": ("compare", "Show what changed between two revisions, or in a folder."),
    "log": ("history", "Show the commits that led to a revision."),
    "blame": ("blame", "Show which commit each line or entry comes from."),
    "merge": ("merge", "Merge a revision into a branch."),
    "cherry-pick": ("picking", "Make the change of one commit once more, on a branch."),
    "revert": ("picking", "Take back what one commit changed, and leave what came since."),
    "conflicts": ("merge", "List conflicts that a commit holds."),
    "resolve": ("merge", "Settle conflicts of a branch."),
    "undo": ("undo", "Take back what a journal entry did."),
    "redo": ("undo", "Take back an undo."),
    "rewind": ("undo", "Put a branch, a path or everything back to what it was."),
    "journal": ("history", "Show what was done to the store, and by whom."),
    "branch": ("refs", "List, make, move or delete branches."),
    "tag": ("refs", "List, make or delete tags."),
    "find": ("recall", "Find memories and other aggregates by words and fields."),
    "recall": ("recall", "Recall what fits a query, in a budget of tokens."),
    "links": ("recall", "Show links between aggregates, and which went stale."),
    "forget": ("recall", "Archive memories by policy; expired ones in any case."),
    "taint": ("recall", "Show everything that came from a source, and take it back."),
    "pin": ("keep", "Keep an object whatever becomes of the refs."),
    "unpin": ("keep", "Keep an object no longer."),
    "protect": ("keep", "Protect branches and tags."),
    "hold": ("keep", "Keep an object by a legal hold, which nothing overrides."),
    "retain": ("retain", "Give up the content of old commits, by rules."),
    "purge": ("purge", "Remove content from all history, for good."),
    "why": ("why", "Tell what keeps an object."),
    "fsck": ("fsck", "Check every object, every history and the journal."),
    "backup": ("backup", "Back the store up into another folder."),
    "prove": ("backup", "Prove a backup: rebuild it and read every byte."),
    "restore-store": ("backup", "Make a store of a backup."),
    "expire": ("expire", "Give up old positions of a backup, by rules."),
    "maintain": ("maintain", "Do what is due for the store, within a time."),
    "gc": ("gc", "Give back the space of what nothing leads to."),
    "copy": ("copy", "Copy a store, or branches and tags of it, into another."),
    "repair": ("repair", "Make a damaged store good."),
    "salvage": ("repair", "Copy everything that can be read into a new store."),
    "stats": ("stats", "Show what the store holds and what it takes."),
    "workspace": (
        "workspace",
        "Look at a workspace, branch it, and have it as files.",
    ),
    "memory": ("aggregates", "Add, list, show and remove what agents remember."),
    "artifact": ("aggregates", "Keep content with a name, its versions and its origin."),
    "sprint": ("aggregates", "Plan sprints and move them through their states."),
    "events": ("events", "Show the domain events of all contexts, oldest first."),
    "bench": ("bench", "Measure what a store does on this machine and this disk."),
}
"""Name -> (module of cas.cli, one line of help), in the order of the help page."""

_COMPLETE = "_CAS_COMPLETE"


class LazyGroup(WithCommon, click.Group):
    """The group `cas`, whose commands are modules that are not loaded yet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, as the help page shows them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, its module loaded now; None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"cas.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name. Raises `UsageError` with what is close to it."""
        name = args[0]
        if name not in COMMANDS and not ctx.resilient_parsing:
            from difflib import get_close_matches

            close = get_close_matches(name, COMMANDS)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"There is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_module, help) in COMMANDS.items()])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands first: they are what people look for."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run one command line and leave with its exit code; click's own is not used, because
        errors have their own form here. Raises `SystemExit` and nothing else.
        """
        raise SystemExit(main(list(sys.argv[1:] if args is None else args)))


@click.command(
    cls=LazyGroup,
    invoke_without_command=True,
    no_args_is_help=False,
    subcommand_metavar="COMMAND [ARGUMENTS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, help="Show the versions of cas and of what it stands on.")
@click.pass_context
def cli(ctx: click.Context, version: bool) -> None:
    """A versioned, content-addressed store for the workspaces of AI agents.

    The store is named by --store, by CAS_STORE, or is the nearest .cas here or above.
    """
    if version:
        from cas.cli.about import print_versions

        print_versions(ctx.ensure_object(Front))
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        raise click.UsageError("Name a command; `cas --help` lists them.", ctx)


def main(arguments: list[str], *, alone: bool = False, ahead: Glance | None = None) -> int:
    """Run one command line; the exit code. Raises nothing. `alone`: nothing else runs here, but
    for a look `ahead` at the folder that is probably meant.
    """
    front = Front(alone=alone, ahead=ahead)
    try:
        try:
            code = _invoke(front, arguments)
            sys.stdout.flush()
        except click.exceptions.Exit as leave:
            code = leave.exit_code
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except BaseException as error:
        problem = problem_of(error, front.interrupted)
        # Words that did not parse may have ended before --json was met.
        as_json = front.settings.json or (problem.code == "usage" and said_json(arguments))
        return _tell(problem, as_json=as_json)
    return code


def _invoke(front: Front, arguments: list[str]) -> int:
    instruction = os.environ.get(_COMPLETE)
    settings: MutableMapping[str, Any] = {"obj": front}
    if instruction:
        from click.shell_completion import shell_complete

        from cas.cli.completion import register

        register()
        return shell_complete(cli, settings, "cas", _COMPLETE, instruction)
    for stream in (sys.stdout, sys.stderr):
        # Names are escaped, but a terminal that is not UTF-8 must not end a command.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    # A copy: parsing takes away what it has read.
    with cli.make_context("cas", [*arguments], **settings) as context:
        cli.invoke(context)
    return front.exit_code


def _tell(problem: Problem, *, as_json: bool) -> int:
    """Write a problem to standard error; its exit code."""
    if debugging():
        import traceback

        traceback.print_exc()
    text = problem.document() if as_json else problem.sentence()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _drop_output()
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return problem.exit_code
    return problem.exit_code


def _drop_output() -> None:
    """Forget what could not be written, so that leaving does not try again."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        return
