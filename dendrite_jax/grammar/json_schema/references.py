"""What a $ref stands for: a JSON pointer, an anchor or an id inside the document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urljoin

from dendrite_jax.grammar.errors import GrammarError
from dendrite_jax.grammar.json_schema.subschemas import Path, subschemas


class References:
    """The base URIs, ids and anchors of a document, which must hold every schema object once."""

    def __init__(self, document: Any) -> None:
        self._document = document
        draft = document.get("$schema", "") if isinstance(document, Mapping) else ""
        self._id = "id" if isinstance(draft, str) and "draft-04" in draft else "$id"
        # By the identity of a schema: the URI that references in it are relative to.
        self._bases: dict[int, str] = {}
        self._resources: dict[str, Path] = {"": ()}
        self._anchors: dict[tuple[str, str], Path] = {}
        self._index(document, (), "")

    def find(self, uri: str, schema: Mapping[str, Any]) -> tuple[str, Any]:
        """The JSON pointer (as a fragment, "#/…") and the value that a $ref in `schema` names.

        Raises:
            GrammarError: there is none in the document.
        """
        base = self._bases.get(id(schema), "")
        relative, _, fragment = uri.partition("#")
        target, fragment = _joined(base, relative), unquote(fragment)
        if target not in self._resources:
            raise GrammarError(
                f"$ref {uri!r} is not supported: it leads outside the document, which has no "
                f"schema of the id {target!r}"
            )
        path = self._resources[target]
        if fragment.startswith("/") and fragment != "/":
            return self._follow(uri, path, target, fragment[1:].split("/"))
        if fragment not in ("", "/"):
            if (target, fragment) not in self._anchors:
                raise GrammarError(f"$ref {uri!r} leads nowhere: there is no anchor {fragment!r}")
            path = self._anchors[target, fragment]
        return self._follow(uri, path, target, [])

    def _follow(self, uri: str, path: Path, base: str, segments: list[str]) -> tuple[str, Any]:
        found, outer = self._document, base
        for key in path:
            found = found[key]
        for segment in segments:
            key = segment.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and key in found:
                path, found = (*path, key), found[key]
            elif isinstance(found, list) and key in map(str, range(len(found))):
                path, found = (*path, int(key)), found[int(key)]
            else:
                raise GrammarError(f"$ref {uri!r} leads nowhere: there is no {key!r}")
            outer, base = base, self._base_of(found, base)
        if isinstance(found, Mapping) and id(found) not in self._bases:
            # No keyword says that this is a schema, but the reference does.
            self._index(found, path, outer)
        return "#" + "".join(f"/{_escaped(str(key))}" for key in path), found

    def _index(self, schema: Any, path: Path, base: str) -> None:
        bases = {path[:-1]: base}
        for here, found in subschemas(schema, path):
            outer = next(bases[here[:n]] for n in range(len(here), -1, -1) if here[:n] in bases)
            own = bases[here] = self._bases[id(found)] = self._base_of(found, outer)
            if own != outer or here == ():
                self._resources.setdefault(own, here)
            names = [found.get(keyword) for keyword in ("$anchor", "$dynamicAnchor")]
            # Before draft 2019-09 an anchor was an id that is only a fragment.
            names.append(found[self._id].partition("#")[2] if self._has_id(found) else None)
            for name in names:
                if isinstance(name, str) and name:
                    self._anchors.setdefault((own, name), here)

    def _base_of(self, value: Any, outer: str) -> str:
        """The base URI of what is inside `value`."""
        if not isinstance(value, Mapping) or not self._has_id(value):
            return outer
        return _joined(outer, value[self._id].partition("#")[0])

    def _has_id(self, schema: Mapping[str, Any]) -> bool:
        return isinstance(schema.get(self._id), str)


def _joined(base: str, uri: str) -> str:
    """A URI that is relative to another."""
    try:
        return urljoin(base, uri) if uri else base
    except ValueError as exc:
        raise GrammarError(f"{uri!r} is not a URI: {exc}") from exc


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
