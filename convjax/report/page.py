"""From templates to pages: escaping, pictures inside of the page, numbers as text."""

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image


def render(template: str, **content: Any) -> str:
    """Returns a page; whatever text goes into it is escaped.

    Args:
        template: its file beside this one.
        content: what the template names; `library`, `script` and `places` are Bokeh's own HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number, "picture": picture}
    for name in ("library", "script"):
        content[name] = Markup(content[name])
    content["places"] = {name: Markup(html) for name, html in content["places"].items()}
    return environment.get_template(template).render(**content)


def percent(share: float | None) -> str:
    """Returns a share as text."""
    return "none" if share is None else f"{100 * share:.2f} %"


def number(value: float | None) -> str:
    """Returns a number with four digits that count."""
    if value is None or math.isnan(value):
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def picture(image: Image.Image) -> str:
    """Returns a picture as an address that holds the picture itself."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Returns what nested JSON objects hold, by dotted names."""
    if not isinstance(content, Mapping) or not content:
        return {prefix: content}
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else name)
    return found
