"""Data sets, batches, and tables that are at hand offline."""

from graphjit.data.dataset import Dataset, Subset, TensorDataset, collate, random_split
from graphjit.data.loader import DataLoader
from graphjit.data.sources import SOURCES, Table, load

__all__ = [
    "SOURCES", "DataLoader", "Dataset", "Subset", "Table", "TensorDataset", "collate", "load", "random_split",
]
