"""The sections of the report, pure functions from runs to HTML.

Everything that comes from a run passes through `html.escape`; nothing here reads a clock.
"""
