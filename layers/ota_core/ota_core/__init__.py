"""What the functions and the signing helper share, in rooms.

A folder says what its modules may do: `formats` and `rules` are pure, `stores` do the I/O, `stages` are what functions
do, `http` and `runtime` surround them. Import Linter holds the order (`make lint`; see `pyproject.toml`).
"""
