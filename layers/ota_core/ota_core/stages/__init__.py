"""What a function does, over stores: a stage of the pipeline each.

Modules here know no HTTP and read no environment.
"""
