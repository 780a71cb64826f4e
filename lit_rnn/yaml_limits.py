"""YAML is measured before it is built: a few lines of it may stand for more than any memory holds."""

from __future__ import annotations

import yaml

MOST_CHARACTERS, MOST_NODES, DEEPEST = 1_000_000, 100_000, 50
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, as jsonargparse takes it: ten times as fast


class YAMLLimitError(yaml.YAMLError):
    """YAML larger than anything that this project writes or reads."""


class _Keys:
    """The keys of one mapping: every other node in it."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.next = True

    def take(self, event: yaml.NodeEvent) -> None:
        key, self.next = self.next, not self.next
        if key and isinstance(event, yaml.ScalarEvent):
            if event.value in self.seen and event.value != "<<":
                again = f", again in line {event.start_mark.line + 1}" if event.start_mark else ""
                raise YAMLLimitError(f"the key {event.value} stands twice in one mapping{again}")
            self.seen.add(event.value)


def check_yaml(text: str) -> None:
    """Measure YAML before it is built: characters, depth, and nodes, an alias counted as all that it stands for.

    Raises:
        YAMLLimitError: if it is beyond `MOST_CHARACTERS`, `DEEPEST` or `MOST_NODES`, or a mapping has a key twice, of
            which the loader would keep the last.
        yaml.YAMLError: if it is no YAML.
    """
    # too short to be any of it, but an alias can stand inside itself, and a key twice
    if len(text) < DEEPEST and "*" not in text and text.count(":") < 2:
        return
    if len(text) > MOST_CHARACTERS:
        raise YAMLLimitError(f"it has {len(text):,} characters, and at most {MOST_CHARACTERS:,} are read")
    sizes: dict[str, int] = {}  # nodes of what an anchor stands for
    begun: list[tuple[str | None, int]] = []  # open collections: anchor, nodes before
    open_keys: list[_Keys | None] = []  # of the collections that are open; None for a list
    nodes = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, yaml.NodeEvent) and open_keys and open_keys[-1] is not None:
            open_keys[-1].take(event)
        if isinstance(event, yaml.CollectionStartEvent):
            open_keys.append(_Keys() if isinstance(event, yaml.MappingStartEvent) else None)
            begun.append((event.anchor, nodes))
            nodes += 1
            if len(begun) > DEEPEST:
                raise YAMLLimitError(f"it is more than {DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            open_keys.pop()
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in begun):
                raise YAMLLimitError(f"the alias *{event.anchor} stands inside what it stands for")
            nodes += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if nodes > MOST_NODES:
            raise YAMLLimitError(f"its aliases expand to more than {MOST_NODES:,} nodes, which is what is read at most")
