"""Data sets, batches, and tables by name or file."""

from graphjit.data.catalog import SOURCES, File, Source
from graphjit.data.dataset import Dataset, Subset, TensorDataset, collate, random_split
from graphjit.data.loader import DataLoader
from graphjit.data.sources import load, status
from graphjit.data.table import Table

__all__ = [
    "SOURCES", "DataLoader", "Dataset", "File", "Source", "Subset", "Table", "TensorDataset", "collate", "load",
    "random_split", "status",
]
