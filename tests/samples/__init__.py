"""Samples of every op: the table's tests are made from these."""
