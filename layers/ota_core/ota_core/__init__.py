"""Code that the functions and the signing helper share.

A folder says what its modules may do: `formats` and `rules` are pure, `stores` do the I/O, `stages` do the functions'
work, `http` and `runtime` surround them. Import Linter enforces the order (`make lint`; see `pyproject.toml`).
"""
