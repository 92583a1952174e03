"""Diffdask finds the rare diffuse frames among the millions that an X-ray laser records.

The verbs are in :mod:`diffdask.verbs`, the same in Python and on the command line.
"""
