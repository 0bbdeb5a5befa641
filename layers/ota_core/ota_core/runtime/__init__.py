"""What a Lambda function needs around its stage: settings, log lines, metrics, and AWS calls outside the stores.

Modules here never import stores, stages or http.
"""
