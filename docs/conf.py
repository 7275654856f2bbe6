"""Sphinx builds the documentation with this: ``make docs``."""

from importlib.metadata import version as installed_version

project = "a2wsgi"
copyright = "the a2wsgi authors"  # noqa: A001 - Sphinx's name for it
release = installed_version("a2wsgi")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"a2wsgi {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# As in the docstrings: `WSGIMiddleware`.
default_role = "py:obj"
nitpicky = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it in words

napoleon_custom_sections = ["Threading", "Cancellation", "Spec"]

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
