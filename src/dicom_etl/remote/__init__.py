"""How other machines are reached: Azure's identity, the storage, HTTP.

Nobody else makes a credential or an HTTP client.
"""
