"""What in a run folder is ours to replace: only what an earlier run wrote there.

`.kun-build.json` in the folder lists the names that runs have made. Whatever else has such a name, for example a
`dataset/` that was there before `--output .`, is somebody's own, and the run stops before it reads a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from kun_builder.errors import RunError
from kun_builder.files import replace_file
from kun_builder.report import read_report

MARKER = ".kun-build.json"
NAMES = (
    *("shards", "kept", "dataset", "rejected", "report.json", "report.html", "recipe.lock.yaml"),
    *(".fresh", ".spent.json"),
    *(f".{name}.{state}" for name in ("kept", "dataset") for state in ("new", "old")),
)
"""All that a run makes, replaces or deletes in its folder."""
_ABOUT = "Names of what kun-build made here, and may replace."


@dataclass(frozen=True)
class Ownership:
    """Knows which names in the folder `path` runs have made. Only the holder of the folder's lock may use it."""

    path: Path

    def check(self) -> None:
        """Raise RunError if something that a run would replace was not made by one."""
        foreign = [name for name in NAMES if name not in self._ours() and _exists(self.path / name)]
        if foreign:
            raise _foreign([self.path / name for name in foreign])

    def claim(self, *names: str) -> None:
        """Note that runs make `names` from here on. Raises RunError if one of them exists and no run has made it."""
        ours = self._ours()
        if foreign := [self.path / name for name in names if name not in ours and _exists(self.path / name)]:
            raise _foreign(foreign)
        if set(names) - ours or not (self.path / MARKER).exists():
            content = {"about": _ABOUT, "written": sorted(ours.union(names))}
            replace_file(self.path / MARKER, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def _ours(self) -> set[str]:
        """Names that runs have made, by the marker file; all of them in the folder of a run from before markers."""
        try:
            return {str(name) for name in orjson.loads((self.path / MARKER).read_bytes())["written"]}
        except FileNotFoundError:
            return set(NAMES) if self._before_markers() else set()
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.path / MARKER} is damaged", hint="give the run another folder with --output"
            ) from error

    def _before_markers(self) -> bool:
        """Whether this is the folder of a run without a marker: a finished one, or one that has only read so far."""
        try:
            read_report(self.path / "report.json")
        except (RunError, OSError):
            unfinished = (self.path / ".lock").exists() and (self.path / "shards/read").is_dir()
            return unfinished and not any(_exists(self.path / name) for name in ("dataset", "kept", "rejected"))
        return True


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _foreign(paths: list[Path]) -> RunError:
    return RunError(
        f"{', '.join(map(str, paths))} would be replaced, but no run of kun-build has made it",
        hint="give the run a folder of its own with --output, or move what is there",
    )
