"""A graph of nodes, written once and given in both of ComfyUI's formats.

The page's format has positions and nameless widget values; the API's has named inputs only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..node_specs import NODE_SPECS, OURS, PAGE, NodeSpec

_PAGE_FORMAT = 0.4
_FLOOR = "0.3.64"  # the oldest host, for the page's "made with"


@dataclass(frozen=True)
class Output:
    """One output of a node, to connect to a socket."""

    node: int
    slot: int
    wire: str


@dataclass(frozen=True)
class Node:
    number: int
    name: str
    at: tuple[int, int]
    inputs: dict[str, object]  # by name: an Output, or a widget's value

    @property
    def spec(self) -> NodeSpec:
        return NODE_SPECS[self.name]

    def out(self, slot: int = 0) -> Output:
        return Output(self.number, slot, self.spec.outputs[slot][1])


@dataclass
class Graph:
    """Nodes in the order they run: each is added after those it takes from."""

    nodes: list[Node] = field(default_factory=list)

    def add(self, name: str, at: tuple[int, int], **inputs: object) -> Node:
        """A node with its upper left corner at this place of the page.

        inputs: every socket that is not optional, and those widgets that differ from the default.
        Raises ValueError for one that does not exist, is missing, or carries something else.
        """
        spec = NODE_SPECS[name]
        unknown = inputs.keys() - spec.sockets.keys() - spec.widgets.keys()
        wires = {key: getattr(inputs.get(key), "wire", None) for key in spec.sockets}
        wanted = {k: w for k, w in spec.sockets.items() if k in inputs or k not in spec.optional}
        if unknown or {k: w for k, w in wires.items() if k in wanted} != wanted:
            raise ValueError(f"{name}: expected {wanted}, got {wires} and {unknown}")
        node = Node(len(self.nodes) + 1, name, at, {**spec.widgets, **inputs})
        self.nodes.append(node)
        return node

    def api(self) -> dict:
        """The format that POST /prompt takes."""
        return {
            str(node.number): {
                "inputs": {key: _named(value) for key, value in node.inputs.items()},
                "class_type": node.name,
                "_meta": {"title": node.spec.title},
            }
            for node in self.nodes
            if node.spec.pack != PAGE
        }

    def page(self) -> dict:
        """The format that the page saves and loads."""
        links = self._links()
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": [_page_node(node, links) for node in self.nodes],
            "links": links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": _PAGE_FORMAT,
        }

    def _links(self) -> list[list]:
        """[number, from node, from slot, to node, to slot, wire], numbered from 1."""
        ends = [
            (start, node, slot)
            for node in self.nodes
            for slot, socket in enumerate(node.spec.sockets)
            if isinstance(start := node.inputs.get(socket), Output)
        ]
        return [
            [number, start.node, start.slot, node.number, slot, start.wire]
            for number, (start, node, slot) in enumerate(ends, 1)
        ]


def _named(value: object) -> object:
    return [str(value.node), value.slot] if isinstance(value, Output) else value


def _page_node(node: Node, links: list[list]) -> dict:
    incoming = {link[4]: link[0] for link in links if link[3] == node.number}  # by slot
    outgoing = [
        [link[0] for link in links if link[1:3] == [node.number, slot]]
        for slot in range(len(node.spec.outputs))
    ]
    return {
        "id": node.number,
        "type": node.name,
        "pos": list(node.at),
        "size": list(node.spec.size),
        "flags": {},
        "order": node.number - 1,
        "mode": 0,
        "inputs": [
            {"name": name, "type": wire, "link": incoming.get(slot)}
            for slot, (name, wire) in enumerate(node.spec.sockets.items())
        ],
        "outputs": [
            {"name": name, "type": wire, "links": out, "slot_index": slot}
            for slot, ((name, wire), out) in enumerate(
                zip(node.spec.outputs, outgoing, strict=True)
            )
        ],
        "properties": _properties(node),
        "widgets_values": _widget_values(node),
    }


def _properties(node: Node) -> dict:
    if node.spec.pack == PAGE:
        return {}
    properties: dict = {"Node name for S&R": node.name, "cnr_id": node.spec.pack}
    if node.spec.pack != OURS:
        properties["ver"] = node.spec.since or _FLOOR
    if node.spec.files:
        named = [file for file in node.spec.files if file["name"] in node.inputs.values()]
        properties["models"] = named or list(node.spec.files[:1])
    return properties


def _widget_values(node: Node) -> list:
    values = []
    for name in node.spec.widgets:
        values.append(node.inputs[name])
        if name in node.spec.page_widgets:
            values.append(node.spec.page_widgets[name])
    return values
