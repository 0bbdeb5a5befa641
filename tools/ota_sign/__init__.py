"""The signing helper: creates keys, signs firmware images for the release pipeline, and checks what was signed."""
