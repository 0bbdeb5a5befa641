"""What the functions do with the stores, one stage of the pipeline per module.

Modules here know nothing of HTTP and read no environment variables.
"""
