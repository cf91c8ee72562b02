"""A key-value cache with preallocated rows that requests join and leave while others go on decoding.

transformers' `DynamicCache` copies every key and value on every step and keeps finished rows. Here
each layer owns one buffer; a step writes one column, and attention sees views of it.

    rows     0..n-1 are live; a finished row is overwritten by the last live one
    columns  every live row ends at column `t` (right-aligned); row i begins at `start[i]`

Because a row is contiguous, distances between columns are distances between tokens, so sliding-window
masks are exact. Positions come from `start`, never from the column.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class _Extent:
    """Live rows `n` and filled columns `t`, shared by all layers of one cache."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.n, self.t = 0, 0


class RowLayer(CacheLayerMixin):
    """One layer's buffers. Shape (rows, kv heads, columns, head size), allocated at the first write."""

    is_sliding = False

    def __init__(self, extent: _Extent) -> None:
        super().__init__()
        self.extent = extent

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = self._buffer(key_states)
        self.values = self._buffer(value_states)
        self.is_initialized = True

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = like.shape
        shape = (self.extent.rows, heads, self.extent.columns, size)
        return torch.zeros(shape, dtype=like.dtype, device=like.device)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        n, t = self.extent.n, self.extent.t
        end = t + key_states.shape[2]
        self.keys[:n, :, t:end] = key_states
        self.values[:n, :, t:end] = value_states
        return self.keys[:n, :, :end], self.values[:n, :, :end]

    def get_seq_length(self) -> int:
        return self.extent.t

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.extent.t + int(query_length), 0


class RowCache(Cache):
    """The cache of a whole model: `layers` buffers of `rows` x `columns` tokens."""

    def __init__(self, layers: int, rows: int, columns: int) -> None:
        self.extent = _Extent(rows, columns)
        super().__init__(layers=[RowLayer(self.extent) for _ in range(layers)])
        self.start = torch.zeros(rows, dtype=torch.long)

    @property
    def n(self) -> int:
        """Live rows."""
        return self.extent.n

    @property
    def t(self) -> int:
        """Filled columns."""
        return self.extent.t

    def set_extent(self, n: int, t: int) -> None:
        """Say which rows and columns are filled; the next write goes to column `t`."""
        self.extent.n, self.extent.t = n, t

    def advance(self) -> None:
        """Count the column that the last step wrote."""
        self.extent.t += 1

    def fill_prefix(self, prefix: RowCache, n: int) -> None:
        """Copy a one-row cache into the first columns of rows 0..n-1, left-aligned."""
        length = prefix.t
        for mine, theirs in zip(self.layers, prefix.layers, strict=True):
            if not mine.is_initialized:
                mine.lazy_initialization(theirs.keys, theirs.values)
            mine.keys[:n, :, :length] = theirs.keys[:1, :, :length]
            mine.values[:n, :, :length] = theirs.values[:1, :, :length]

    def join(self, other: RowCache, other_row: int, length: int) -> int:
        """Append row `other_row` of another cache, its first `length` columns, ending at `t`."""
        row, begin = self.extent.n, self.extent.t - length
        for mine, theirs in zip(self.layers, other.layers, strict=True) if length else ():
            if not mine.is_initialized:
                mine.lazy_initialization(theirs.keys, theirs.values)
            mine.keys[row, :, begin : self.extent.t] = theirs.keys[other_row, :, :length]
            mine.values[row, :, begin : self.extent.t] = theirs.values[other_row, :, :length]
        self.start[row] = begin
        self.extent.n += 1
        return row

    def leave(self, row: int) -> None:
        """Drop a live row: the last live row takes its place."""
        last = self.extent.n - 1
        if row != last:
            begin = int(self.start[last])
            for layer in self.layers:
                layer.keys[row, :, begin : self.t] = layer.keys[last, :, begin : self.t]
                layer.values[row, :, begin : self.t] = layer.values[last, :, begin : self.t]
            self.start[row] = begin
        self.extent.n = last

    def shift_left(self, columns: int) -> None:
        """Drop leading columns that no live row uses, to make room at the end."""
        n, t = self.extent.n, self.extent.t
        for layer in self.layers:
            layer.keys[:n, :, : t - columns] = layer.keys[:n, :, columns:t].clone()
            layer.values[:n, :, : t - columns] = layer.values[:n, :, columns:t].clone()
        self.start[:n] -= columns
        self.extent.t = t - columns

    def step_inputs(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention mask (n, t + 1) and position ids (n, 1) of the next single-token step."""
        start = self.start[: self.n]
        columns = torch.arange(self.t + 1)
        mask = columns[None, :] >= start[:, None]
        return mask.to(device), (self.t - start)[:, None].to(device)
