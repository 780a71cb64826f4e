"""The table of experiments names every shipped config, and none that is not there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
# What is laid over an experiment, or read by one, is none itself.
PARTS = ("cluster", "debug", "loggers", "studies/base", "campaign/base")


def named_configs(page: str) -> dict[str, set[str]]:
    """Each pattern of the tables' second columns, with the configs that it stands for."""
    cells = [line.split("|")[2] for line in page.splitlines() if line.startswith("|")]
    patterns = [pattern for cell in cells for pattern in re.findall(r"(?<!\[)`([\w/*]+)`", cell)]
    return {
        pattern: {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.glob(pattern + ".yaml")}
        for pattern in patterns
    }


def test_the_table_of_experiments_and_the_shipped_configs_agree():
    named = named_configs((ROOT / "docs/experiments.md").read_text())
    assert [pattern for pattern, configs in named.items() if not configs] == []
    shipped = {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")}
    experiments = {name for name in shipped if not name.startswith(PARTS)}
    assert set().union(*named.values()) == experiments
