"""`make audit`: known vulnerabilities of the versions in constraints.txt, by pip-audit and PyPI's database.

pip-audit ends well where a mirror knows no vulnerabilities at all, or none of the packages; here that is a failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
_COMMAND = ("-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--no-deps", "--disable-pip")


def judge(output: str, errors: str) -> tuple[int, str]:
    """The exit status and what to say, from what pip-audit has printed."""
    try:
        found = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        if "Connection" in errors or "timed out" in errors:
            return (
                1,
                "Nothing was audited: PyPI's database of vulnerabilities cannot be reached, so try with a network.",
            )
        return 1, f"Nothing was audited: pip-audit failed ({last})."
    audited = [one for one in found if "skip_reason" not in one]
    if not audited:
        return 1, f"Nothing was audited: the index in use has vulnerabilities of none of the {len(found)} packages."
    told = []
    for one in audited:
        for hole in one["vulns"]:
            fixed = ", ".join(hole.get("fix_versions", [])) or "no version yet"
            told.append(f"{one['name']} {one['version']}: {hole['id']}, fixed in {fixed}")
    unknown = [one["name"] for one in found if "skip_reason" in one]
    told.append(
        f"{len(audited)} packages were audited, {len(told)} vulnerabilities found"
        + (f"; not in the database: {', '.join(unknown)}." if unknown else ".")
    )
    return int(len(told) > 1), "\n".join(told)


def main() -> int:
    call = [sys.executable, *_COMMAND, "--requirement", str(CONSTRAINTS)]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    status, text = judge(done.stdout, done.stderr)
    print(text, file=sys.stderr if status else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main())
