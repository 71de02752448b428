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

_LARGEST_PNG = 60_000
"""Bytes of a picture from which it is written as a JPEG."""


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


def picture(image: Image.Image, widest: int = 1200) -> str:
    """Returns a picture as an address that holds the picture itself, no wider than so many pixels.

    It is a PNG, or where that is large, as of photographs, a JPEG.
    """
    if image.width > widest:
        image = image.resize((widest, max(1, image.height * widest // image.width)), Image.Resampling.LANCZOS)
    kind, content = "png", _saved(image, "PNG", optimize=True)
    if len(content) > _LARGEST_PNG:
        kind, content = "jpeg", _saved(image.convert("RGB"), "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Returns what nested JSON objects hold, by dotted names."""
    if not isinstance(content, Mapping) or not content:
        return {prefix: content}
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else name)
    return found
