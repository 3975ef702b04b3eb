"""Exact values without input or output: decimals, times, the frame of usage, cells of CSV files."""
