"""From files to records, streaming: containers, JSON lines and arrays, Parquet, text, and the dirt of real corpora.

A source's own `read` can lean on it: `return Records(path, start)`.
"""

from kun_builder.readers.decode import clean
from kun_builder.readers.find import find_files, name_inputs
from kun_builder.readers.lines import Documents
from kun_builder.readers.records import Records

__all__ = ["Documents", "Records", "clean", "find_files", "name_inputs"]
