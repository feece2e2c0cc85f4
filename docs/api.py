"""Print docs/api.md: the public names, out of their docstrings. `make docs` writes the file."""

from __future__ import annotations

from griffe2md import ConfigDict, render_package_docs

MODULES = ("kun_builder", "kun_builder.readers", "kun_builder.testing")
CONFIG = ConfigDict(
    docstring_options={},
    docstring_style="sphinx",  # ours have no sections that another style could find
    filters=["!^_(?!_call__$)"],
    inherited_members=False,
    line_length=100,
    show_bases=False,
    show_if_no_docstring=False,
    show_object_full_path=False,
    show_root_members_full_path=False,
    show_signature_annotations=True,
    show_submodules=False,
    summary=False,
)

if __name__ == "__main__":
    print("# API of plugins\n\nWritten by `make docs`, out of the docstrings.\n")
    print("\n".join(render_package_docs(module, CONFIG).strip() + "\n" for module in MODULES), end="")
