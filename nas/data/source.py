"""The earlier place and name of `DatasetPlugin`, for plugins that import them."""

from nas.data.plugin import FRAMINGS, stratified
from nas.data.plugin import DatasetPlugin as Source

__all__ = ["FRAMINGS", "Source", "stratified"]
