"""Benchmarks' label files as people with truth, their images as crops, and what each benchmark is called."""
