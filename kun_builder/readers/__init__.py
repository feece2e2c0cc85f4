"""From files to records, streaming: containers, JSON, Parquet, CSV, text, and the dirt of real corpora.

A source's own `read` can lean on it: `return Records(path, start)`.
"""

from kun_builder.readers.decode import clean
from kun_builder.readers.find import find_files, name_inputs
from kun_builder.readers.lines import Documents
from kun_builder.readers.records import Records
from kun_builder.readers.spans import Span
from kun_builder.readers.streams import PACKED

__all__ = ["PACKED", "Documents", "Records", "Span", "clean", "find_files", "name_inputs"]
