"""Turns usage into credits: the rate card as data and the rules as pure functions."""
