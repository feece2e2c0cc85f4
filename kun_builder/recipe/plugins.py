"""Plugins: found one by one, checked, and gathered in a Registry, in which every name has one owner.

A plugin is a module under the entry-point group `kun_builder`, or a file or package in a plugins folder; the built-in
ones come through the same door. One that cannot be imported, or that was written for another version of the API, is
left out and reported in `Registry.problems`. One that is loaded but wrong stops the start: PluginError.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from kun_builder import hookspecs
from kun_builder.errors import KunError, PluginError, suggest
from kun_builder.recipe.plugin_checks import checked_options, checked_values
from kun_builder.recipe.registry import Entry, Plugin, Problem, Registry
from kun_builder.types import API_VERSION

GROUP = "kun_builder"
KINDS = {
    "kun_sources": "source",
    "kun_stages": "stage",
    "kun_engines": "engine",
    "kun_sections": "section",
    "kun_presets": "preset",
}
"""The hooks, and what their values are called."""

_UNSAID = 1  # a plugin without `kun_api` is from before there were others
_SLOW = 5.0  # seconds of an import after which it is mentioned
_MARK = "put `@kun_builder.hookimpl` above `def kun_sources():`"


def load_plugins(
    dirs: Sequence[Path] = (), disable: Sequence[str] = (), say: Callable[[str], None] = lambda message: None
) -> Registry:
    """Load the installed plugins and those in `dirs`, but for those named in `disable`.

    `say` is told of a plugin whose import takes more than a few seconds, so that one which hangs can be recognised.
    Raises PluginError, with the owner's name, for a plugin that is loaded but wrong: an unknown hook, a hook with
    arguments, a hook that raises, a value of the wrong kind or signature, a name that two plugins give.
    """
    loader = _Loader(disable, say)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        loader.add(_installed(point), point.load, point.module)
    for folder in dirs:
        for plugin in _in_folder(folder):
            loader.add(plugin, functools.partial(_import_file, plugin))
    return loader.registry()


class _Loader:
    """Takes in one plugin after the other, and remembers which of them gave each value."""

    def __init__(self, disable: Sequence[str], say: Callable[[str], None]) -> None:
        self._say = say
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._disable = set(disable)
        self._plugins: dict[str, Plugin] = {}
        self._owners: dict[int, tuple[Plugin, object]] = {}  # the object is kept, so that its id stays its own
        self._problems: list[Problem] = []

    def add(self, plugin: Plugin, load: Callable[[], Any], module: str = "") -> None:
        """Import a plugin, which is in `module` if it is installed, and register its hooks, unless it is disabled."""
        other = self._plugins.setdefault(plugin.name, plugin)
        if other is not plugin:
            raise PluginError(
                f"two plugins are called `{plugin.name}`: of {other.package} and of {plugin.package}",
                hint="rename one, or uninstall one of the packages",
            )
        if plugin.name in self._disable:
            return
        slow = threading.Timer(_SLOW, self._say, [f"{plugin} takes long to import"])
        slow.daemon = True
        slow.start()
        try:
            loaded = load()
        except (Exception, SystemExit) as error:  # importing runs a stranger's code: it may raise anything
            self._leave_out(
                plugin, f"cannot be imported: {type(error).__name__}: {error}", _cure(plugin, error, module)
            )
            return
        finally:
            slow.cancel()
        written_for = getattr(loaded, "kun_api", _UNSAID)
        if written_for != API_VERSION:
            what = f"is written for version {written_for!r} of the plugin API; this is version {API_VERSION}"
            newer = "update kun-builder, or " if isinstance(written_for, int) and written_for > API_VERSION else ""
            cure = f"{newer}install a version of {plugin.package} that has `kun_api = {API_VERSION}`"
            self._leave_out(plugin, what, cure)
            return
        extends = str(getattr(loaded, "kun_extends", ""))
        plugin = replace(plugin, path=plugin.path or _path(loaded), doc=inspect.getdoc(loaded) or "", extends=extends)
        self._plugins[plugin.name] = plugin
        self._register(plugin, loaded)

    def registry(self) -> Registry:
        """Call the hooks and gather what they return."""
        with self._pluggy_errors():
            self._manager.check_pending()
        for name in sorted(self._disable - set(self._plugins)):
            self._problems.append(Problem("", f"no plugin `{name}` to disable{suggest(name, self._plugins)}", ""))
        self._check_extended()
        found = {f"{kind}s": self._gather(hook, kind) for hook, kind in KINDS.items()}
        return Registry(**found, problems=tuple(self._problems))

    def _check_extended(self) -> None:
        for plugin in self._plugins.values():
            if (name := plugin.extends) and name not in self._plugins:
                raise PluginError(
                    f"{plugin}: `kun_extends` is `{name}`, but there is no such plugin{suggest(name, self._plugins)}",
                    hint=_without(plugin),
                )

    def _extended(self, plugin: Plugin) -> Plugin:
        """The plugin, with those that extend it, or what it has replaced."""
        names = {plugin.name, *(other.name for other in plugin.with_)}
        more = tuple(other for other in self._plugins.values() if other.extends in names)
        return replace(plugin, with_=plugin.with_ + more) if more else plugin

    def _leave_out(self, plugin: Plugin, what: str, hint: str) -> None:
        self._problems.append(Problem(plugin.name, f"{plugin} {what}", hint))

    def _register(self, plugin: Plugin, module: Any) -> None:
        """Register a stand-in for the plugin, whose hooks note which values the plugin returned."""
        stand_in = ModuleType(plugin.name)
        hooks = [name for name in dir(module) if self._manager.parse_hookimpl_opts(module, name) is not None]
        for name in hooks:
            setattr(stand_in, name, self._watched(plugin, getattr(module, name)))
        unmarked = [name for name in KINDS if name not in hooks and callable(getattr(module, name, None))]
        if unmarked:
            raise PluginError(f"{plugin}: `{unmarked[0]}` is not marked as a hook", hint=_MARK)
        if not hooks and not plugin.extends:
            self._leave_out(plugin, "has no hook", _MARK)
            return
        with self._pluggy_errors():
            self._manager.register(stand_in, plugin.name)

    @contextmanager
    def _pluggy_errors(self) -> Iterator[None]:
        try:
            yield
        except pluggy.PluginValidationError as error:
            stand_in: Any = error.plugin
            plugin = self._plugins[stand_in.__name__]
            hooks = [name for name in vars(stand_in) if not name.startswith("__")]
            unknown = [name for name in hooks if name not in KINDS]
            if unknown:
                what = f"there is no hook `{unknown[0]}`{suggest(unknown[0], KINDS)}"
            else:
                what = str(error).splitlines()[-1]
            raise PluginError(f"{plugin}: {what}", hint=f"hooks take no arguments; {_without(plugin)}") from error

    def _watched(self, plugin: Plugin, hook: Callable[[], Any]) -> Callable[[], Any]:
        """The hook as the manager calls it: its values and errors are remembered as the plugin's."""
        if inspect.isgeneratorfunction(hook):  # a wrapper, which may replace what others returned

            @functools.wraps(hook)
            def wrapper() -> Generator[Any, Any, Any]:
                with _blame(plugin, hook.__name__):
                    results = yield from hook()
                    for value in (value for values in results or () for value in values):
                        below = [p for p, o in self._owners.values() if getattr(o, "name", o) == value.name]
                        self._claim(replace(plugin, with_=tuple(below[-1:])), [value])
                    return results

            return wrapper

        @functools.wraps(hook)
        def plain() -> Any:
            with _blame(plugin, hook.__name__):
                return self._claim(plugin, checked_values(hook()))

        return plain

    def _claim(self, plugin: Plugin, values: Sequence[object]) -> Sequence[object]:
        for value in values:
            self._owners.setdefault(id(value), (plugin, value))
        return values

    def _gather(self, hook: str, kind: str) -> dict[str, Entry[Any]]:
        entries: dict[str, Entry[Any]] = {}
        for value in (value for values in getattr(self._manager.hook, hook)() for value in values):
            plugin = self._extended(self._owners[id(value)][0])
            with _blame(plugin, hook):
                entry = Entry(value, plugin, checked_options(kind, value))
            other = entries.setdefault(value.name, entry)
            if other is not entry:
                raise PluginError(
                    f"two plugins give the {kind} `{value.name}`: {other.owner} and {plugin}",
                    hint=f"leave one of them out: `plugins: {{disable: [{plugin.name}]}}` in the recipe",
                )
        return entries


@contextmanager
def _blame(plugin: Plugin, hook: str) -> Iterator[None]:
    """Turn what is raised inside into a PluginError with the plugin's name, unless the error names a plugin already."""
    try:
        yield
    except PluginError as error:
        if error.message.startswith("plugin `"):
            raise
        raise PluginError(f"{plugin}: {error.message}", hint=error.hint or _without(plugin)) from error
    except KunError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        what = f"`{hook}` failed: {type(error).__name__}: {error}"
        raise PluginError(f"{plugin}: {what}", hint=_without(plugin)) from error


def _without(plugin: Plugin) -> str:
    return f"repair it, or leave it out: `plugins: {{disable: [{plugin.name}]}}` in the recipe"


def _cure(plugin: Plugin, error: BaseException, module: str) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and missing == module:
        return f"install {plugin.package} again: its module is gone"
    return f"install what it needs: `pip install {missing.split('.')[0]}`" if missing else _without(plugin)


# --- where plugins come from -----------------------------------------------------------------------------------


def _installed(point: EntryPoint) -> Plugin:
    """What is known of an installed plugin without importing it."""
    if point.dist is None:
        return Plugin(point.name, point.value)
    about = point.dist.metadata
    license = next((about[key] for key in ("License-Expression", "License") if key in about), "")
    return Plugin(point.name, point.dist.name, point.dist.version, license.partition("\n")[0])


def _path(module: Any) -> Path | None:
    """The file of a plugin's module, or its folder if it is a package."""
    holder = module if isinstance(module, ModuleType) else sys.modules.get(getattr(module, "__module__", ""))
    file = getattr(holder, "__file__", None)
    return None if file is None else Path(file).parent if Path(file).name == "__init__.py" else Path(file)


def _in_folder(folder: Path) -> list[Plugin]:
    """The plugins of a plugins folder: Python files and packages, but for tests and names in `_` or `.`."""
    if not folder.is_dir():
        raise PluginError(
            f"{folder} is no folder of plugins", hint="`--plugins-dir` and `plugins: {dirs: ...}` name one"
        )
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith(("_", ".", "test_", "conftest.")))
    files = [path for path in paths if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return [Plugin(path.stem, str(path), path=path) for path in files]


def _import_file(plugin: Plugin) -> ModuleType:
    """Import a plugin by its path, under a name that a worker process comes to as well."""
    assert plugin.path is not None
    name = f"kun_plugin_{plugin.name}"
    file = plugin.path / "__init__.py" if plugin.path.is_dir() else plugin.path
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and relative imports look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
