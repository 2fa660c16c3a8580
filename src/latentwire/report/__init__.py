"""Rows to verdict, tables, charts and one page: knows result files only, never a model or a method."""
