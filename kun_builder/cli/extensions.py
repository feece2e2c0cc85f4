"""Commands that packages add to `kun-build`: entry points of the group `kun_builder.commands`.

    [project.entry-points."kun_builder.commands"]
    poems = "kun_poems.command:command"

The name is the command's, the value a `click.Command`. They are no hook of a plugin, since loading all plugins would
make `kun-build --help` slow. The help imports the value's module too, so heavy imports belong inside the command.
"""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import EntryPoint, entry_points

import click

from kun_builder.errors import PluginError

GROUP = "kun_builder.commands"


def commands(taken: Container[str]) -> dict[str, list[EntryPoint]]:
    """Commands of packages in the order of their names, each with all that give it; without those `taken`."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name not in taken:
            found.setdefault(point.name, []).append(point)
    return found


def load(points: list[EntryPoint]) -> click.Command:
    """Import the command. Raises PluginError, with the owners' names, if several give it or it cannot be had."""
    point, owner = points[0], _owner(points[0])
    if len(points) > 1:
        owners = " and ".join(map(_owner, points))
        raise PluginError(f"two packages give the command `{point.name}`: {owners}", hint="uninstall one of them")
    try:
        command = point.load()
    except (Exception, SystemExit) as error:  # importing runs a stranger's code: it may raise anything
        what = f"the command `{point.name}` of {owner} cannot be imported: {type(error).__name__}: {error}"
        raise PluginError(what, hint=f"update {owner}, or uninstall it") from error
    if not isinstance(command, click.Command):
        what = f"the command `{point.name}` of {owner} is of type {type(command).__name__}, not `click.Command`"
        raise PluginError(what, hint=f"`{point.value}` must name one; update {owner}, or uninstall it")
    return command


def line(points: list[EntryPoint]) -> str:
    """What `kun-build --help` says about it: the first sentence of its help, or why there is none."""
    try:
        return load(points).get_short_help_str(limit=80)
    except PluginError as error:
        return f"({error.message})"


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
