"""The daemons' configuration files, as tests write them."""

import json


def toml_value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml_value(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def toml(sections, arrays=None):
    """{section: {key: value}} as TOML; `arrays` is {"images.registry": [{...}]}."""
    lines = []
    for section, values in sections.items():
        if section:
            lines.append(f"[{section}]")
        lines += [f"{key} = {toml_value(value)}" for key, value in values.items()]
    for name, tables in (arrays or {}).items():
        for table in tables:
            lines.append(f"[[{name}]]")
            lines += [f"{key} = {toml_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def merged(base, more):
    result = {key: dict(value) for key, value in base.items()}
    for section, values in (more or {}).items():
        result.setdefault(section, {}).update(values)
    return result
