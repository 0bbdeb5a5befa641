"""What a Lambda function needs around its stage: settings, log lines, metrics, AWS calls that are no store.

Modules here never import stores, stages or http.
"""
