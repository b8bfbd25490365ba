"""Wire types of this pack. The payload of PROJECTION is a `projection.Projection`."""

from .host.api import io

PROJECTION = io.Custom("PROJECTION")
CATEGORY = "conditioning/image to prompt"
