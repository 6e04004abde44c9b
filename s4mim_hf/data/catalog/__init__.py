"""Data sets that are known by name: their classes, colours and how they are evaluated."""

from __future__ import annotations

from s4mim_hf.data.catalog.ade20k import ADE20K
from s4mim_hf.data.catalog.camvid import CAMVID
from s4mim_hf.data.catalog.cityscapes import CITYSCAPES
from s4mim_hf.data.catalog.coco import COCO
from s4mim_hf.data.catalog.info import Color, DatasetInfo, LabelStatistics, default_palette
from s4mim_hf.data.catalog.msrc21 import MSRC21
from s4mim_hf.data.catalog.voc import VOC

CATALOG: dict[str, DatasetInfo] = {info.name: info for info in (CAMVID, MSRC21, VOC, CITYSCAPES, COCO, ADE20K)}

__all__ = ["CATALOG", "Color", "DatasetInfo", "LabelStatistics", "default_palette"]
