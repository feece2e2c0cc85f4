"""What many tests need the path of."""

import sys
from pathlib import Path

KUN_BUILD = Path(sys.executable).with_name("kun-build")
STAGES = Path(__file__).parent / "stages"
"""The stages that the tests of the runner use: a folder of plugins."""
