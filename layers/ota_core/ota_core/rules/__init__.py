"""Values to decisions: what may become a release, what a rollout does next, what a device is offered.

Pure; time is an argument. Modules here import `ota_core.formats` and `ota_core.errors`.
"""
