"""Columns of a runs table: names and synonyms, units in headers, conversion of cells and of losses."""
