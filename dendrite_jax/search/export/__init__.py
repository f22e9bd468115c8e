"""A finished search as JSON, as a tree in the terminal and as a web page; runs on the host."""

from dendrite_jax.search.export.html import to_html
from dendrite_jax.search.export.json_document import FORMAT, VERSION, Decode, Judged, document
from dendrite_jax.search.export.text import to_json, to_rich

__all__ = ["FORMAT", "VERSION", "Decode", "Judged", "document", "to_html", "to_json", "to_rich"]
