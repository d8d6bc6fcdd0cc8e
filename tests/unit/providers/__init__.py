"""Twins of aiproxyd.providers."""
