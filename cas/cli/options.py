"""What every command takes, before or after its name, and the arguments that complete.

Floor 9. Invariant: `cas --json ls main` and `cas ls main --json` are the same request; what is
said later wins.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cas.cli.front import Front

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def _set(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Note a common option in the settings of this invocation, if it was given."""
    if value is not None and parameter.name is not None:
        front = context.find_object(Front)
        if front is not None:
            setattr(front.settings, parameter.name, value)


def _set_raw(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    front = context.find_object(Front)
    if front is not None:
        front.raw = front.raw or value


raw_option = click.option(
    "--raw",
    is_flag=True,
    expose_value=False,
    callback=_set_raw,
    help="Also a branch of the workspace, past it.",
)
"""For commands that change branches; whoever takes it calls `Front.check_branches`."""


def _common(*names: str, help: str, **settings: Any) -> click.Option:
    return click.Option(
        names, help=help, default=None, expose_value=False, callback=_set, **settings
    )


COMMON: tuple[click.Option, ...] = (
    _common(
        "--store",
        metavar="PATH",
        help="The store; else CAS_STORE, else the nearest .cas here or above.",
    ),
    _common("--json", is_flag=True, flag_value=True, help="Give the result as one JSON document."),
    _common("-q", "--quiet", is_flag=True, flag_value=True, help="No notes and no progress."),
    _common(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        help="Colours; auto knows NO_COLOR, FORCE_COLOR and terminals.",
    ),
    _common(
        "--progress/--no-progress",
        help="Progress on standard error; else where that is a terminal.",
    ),
)


class WithCommon(click.Command):
    """What the group and every command have: the common options, in a section of their own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Own parameters, then the common ones, then --help."""
        *own, help_option = super().get_params(ctx)
        return [*own, *COMMON, help_option]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lists: what this command adds, and what every one takes."""
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                (common if parameter in COMMON else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        with formatter.section("Options of every command, before or after its name"):
            formatter.write_dl(common)


class CasCommand(WithCommon):
    """A command."""


if TYPE_CHECKING:
    _ParamType = click.ParamType[str]
else:
    # Generic only since click 8.5, and older ones will do.
    _ParamType = click.ParamType


class RevisionType(_ParamType):
    """A revision, or with `path=True` REV[:PATH]; completes branches, tags and paths."""

    name = "revision"

    def __init__(self, *, path: bool = False, refs: str = "") -> None:
        self._path = path
        self._refs = refs

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """What was typed, but for an empty name, which a variable that is not set gives."""
        if value == "":
            self.fail("the name is empty; leave it out, or name one.", param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that go on from what was typed; nothing when there is no store."""
        from cas.cli.completion import complete

        front = ctx.find_object(Front) or Front()
        return complete(front, incomplete, paths=self._path, refs=self._refs)


REVISION = RevisionType()
TARGET = RevisionType(path=True)
BRANCH = RevisionType(refs="heads/")
TAG = RevisionType(refs="tags/")


class _FolderType(click.Path):
    """A folder; an empty name, which a script with a variable that is not set gives, is none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path as it was given."""
        if value == "":
            self.fail("the name of the folder is empty (the one you stand in is .)", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = _FolderType(file_okay=False)


def needed(argument: str | None, what: str) -> str:
    """An argument that not every action of a command takes, and this one does. Raises
    `click.UsageError` where it was not given.
    """
    if argument is None:
        raise click.UsageError(f"Give {what}.")
    return argument


def said_json(arguments: list[str]) -> bool:
    """Whether --json stands among arguments that may not even parse."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in before


def default_author() -> str:
    """CAS_AUTHOR, else user@host."""
    named = os.environ.get("CAS_AUTHOR")
    if named:
        return named
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    if not user:
        import pwd

        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"
