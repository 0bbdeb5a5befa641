"""What the functions and the signing helper share: the rules of a release, and the few modules that do I/O.

Modules of rules (`envelope`, `manifest`, `esp_image`, `versions`, `targets`, `inbox`, `admission`, `notification`)
are pure and never import the modules that do I/O (`firmware_store`, `release_store`, `database`, `device_notifier`,
`trusted_keys`).
"""
