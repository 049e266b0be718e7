"""Datasets on disk: shards in Parquet, Arrow or safetensors under one manifest."""

from helix_plugin_synthetic.storage.dataset import Dataset, open_dataset
from helix_plugin_synthetic.storage.formats import FORMATS
from helix_plugin_synthetic.storage.plan import Plan
from helix_plugin_synthetic.storage.write import write_dataset

__all__ = ["FORMATS", "Dataset", "Plan", "open_dataset", "write_dataset"]
