"""The paged key-value cache whose branches fork by copying a block-table row."""
