"""Bring outside data in: declared tables, strict files, quality, sources, the local engine in memory.

`layout` holds the words, `dataset` reads them from TOML, `files` reads a site's rows by them, `quality`
judges and clamps the rows, `sources` says which rows stand where, `arrow_engine` runs local plans.
"""
