"""API Gateway's requests and answers, and who may ask.

Modules here never import stores or stages, so a function without either loads neither.
"""
