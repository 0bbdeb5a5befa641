"""The signing helper: makes keys, signs firmware images for the release pipeline, and checks what was signed."""
