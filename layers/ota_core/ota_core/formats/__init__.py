"""Bytes to values and back: every format that the pipeline reads or writes.

Pure. Modules here import `ota_core.errors` and each other, and do no I/O.
"""
