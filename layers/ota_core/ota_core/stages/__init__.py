"""What the functions do with the stores, one stage of the pipeline per module.

Modules here know nothing of API Gateway and Lambda, and read no environment variables. What RFC 9110 says of a
download is part of delivery.
"""
