"""The data the sandbox is filled with, made from a seed."""
