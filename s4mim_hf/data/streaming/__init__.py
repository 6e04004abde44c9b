"""Unlabelled images streamed from parquet shards and webdataset tars, for pools that fit on no disk.

Which images a micro-batch has is a function of the seed, the shards, the settings and its number alone, as for data on
disk. So a run resumes exactly, ranks are never uneven, and the number of workers changes no picture.
"""

from s4mim_hf.data.streaming.pool import ShardPool, open_pool
from s4mim_hf.data.streaming.stream import ImageStream

__all__ = ["ImageStream", "ShardPool", "open_pool"]
