"""The messages of the API, made from its proto files at build."""
