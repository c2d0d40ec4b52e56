"""Makes each role's README.md from its meta/argument_specs.yml and defaults/main.yml, and files of the riva chart.

The chart's dashboard and its queries for KEDA come from the rule set.
``python docs/generate.py`` after a change of any; a unit test names what is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import jinja2
import yaml

ROOT = Path(__file__).resolve().parent.parent
ROLES = ROOT / "roles"
DASHBOARD = ROLES / "riva" / "files" / "chart" / "files" / "dashboard.json"
KEDA_QUERIES = DASHBOARD.with_name("keda-queries.json")

TEMPLATE = """\
<!-- Made by docs/generate.py from meta/argument_specs.yml and defaults/main.yml: change those. -->
# {{ role }}

{{ main.short_description }}.
{% for paragraph in main.description or [] %}

{{ paragraph | markup }}
{% endfor %}
{% if main.examples %}

## Example

```yaml
{{ main.examples | trim }}
```
{% endif %}
{% if tables %}

## Variables
{% for table in tables %}
{% if table.title %}

### {{ table.title }}
{% endif %}

| variable | type | default | what it is |
|---|---|---|---|
{% for row in table.rows %}
| `{{ row.name }}` | {{ row.type }} | {{ row.default }} | {{ row.what | markup }} |
{% endfor %}
{% endfor %}
{% endif %}

## Entry points

| entry point | what is true after it ran |
|---|---|
{% for name, entry in entries.items() %}
| `{{ name }}` | {{ entry.short_description }} |
{% endfor %}
"""


def load(path: Path) -> dict:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def markup(text: str | list) -> str:
    """One line of Markdown of a text in Ansible's markup, or of a list of such; a bar would end a table's cell."""
    line = " ".join(" ".join(text if isinstance(text, list) else [text]).split())
    line = re.sub(r"\bO\((\w+)=(\w+)\)", r"`\1: \2`", line)
    return re.sub(r"\b[CVO]\(([^()]*)\)", r"`\1`", line).replace("|", "\\|")


def shown_type(option: dict) -> str:
    kind = option.get("type", "str")
    return f"list of {option['elements']}" if kind == "list" else kind


def shown_default(option: dict) -> str:
    """The default as YAML in one line; nothing where it follows from something else, as the description says."""
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    value = option["default"]
    if value == "":
        return "empty"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("\n")
    return f"`{text.removesuffix('...').strip()}`"


def what(option: dict) -> str:
    choices = option.get("choices")
    text = markup(option["description"])
    if not choices:
        return text
    said = "Any of" if option.get("type") == "list" else "One of"
    return f"{text} {said} {', '.join(f'`{choice}`' for choice in choices)}."


def tables(options: dict, title: str = "") -> list[dict]:
    """The options as one table, and one more for each option that has options of its own."""
    rows = [
        {"name": name, "type": shown_type(option), "default": shown_default(option), "what": what(option)}
        for name, option in options.items()
    ]
    found = [{"title": title, "rows": rows}] if rows else []
    for name, option in options.items():
        if option.get("options"):
            of = f"An item of `{name}`" if option["type"] == "list" else f"`{name}`"
            found += tables(option["options"], of)
    return found


def readme(role: str) -> str:
    """The README of a role."""
    entries = load(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]
    main = entries["main"]
    engine = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)
    engine.filters["markup"] = markup
    template = engine.from_string(TEMPLATE)
    return template.render(role=role, main=main, entries=entries, tables=tables(main.get("options") or {}))


def roles() -> list[str]:
    return sorted(path.parent.parent.name for path in ROLES.glob("*/meta/argument_specs.yml"))


def dashboard() -> str:
    """The file that the riva chart fills in for each release."""
    sys.path.insert(0, str(ROOT / "collections"))
    from ansible_collections.speechops.riva.plugins.module_utils import scaling_dashboard

    return json.dumps(scaling_dashboard.dashboard(), indent=1) + "\n"


def keda_queries() -> str:
    """The file that the riva chart makes its ScaledObject's queries from."""
    sys.path.insert(0, str(ROOT / "collections"))
    from ansible_collections.speechops.riva.plugins.module_utils import keda_rules

    return json.dumps(keda_rules.chart_queries(), indent=1) + "\n"


def main() -> None:
    files = {ROLES / role / "README.md": readme(role) for role in roles()}
    for path, text in {**files, DASHBOARD: dashboard(), KEDA_QUERIES: keda_queries()}.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
