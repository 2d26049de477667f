"""Doubles of what cannot be installed: each is one process, made from the product's documentation."""
