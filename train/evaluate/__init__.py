"""Estimates against truth, by protocol."""
