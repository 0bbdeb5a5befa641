"""The only places that touch S3, SSM and PostgreSQL.

Modules here import rules and formats, and know neither Lambda nor HTTP.
"""
