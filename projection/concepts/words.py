"""Built-in word lists of concepts, as broad as a list of its kind can be, and lists of one's own.

Every entry is a whole phrase that names one thing of its kind and nothing else.
"""

from __future__ import annotations

from types import MappingProxyType

from ..errors import ImageToPromptError
from .concept import MIN_WORDS

_STYLES = (
    "a photograph", "an oil painting", "a watercolour painting", "a pencil sketch",
    "a charcoal drawing", "an ink drawing", "a pastel drawing", "an engraving", "a woodcut print",
    "a linocut", "a line drawing", "a comic book page", "a cartoon", "an anime picture",
    "a manga panel", "pixel art", "a 3d render", "vector art", "a flat illustration",
    "a children's book illustration", "concept art", "a matte painting", "a fresco", "a mosaic",
    "stained glass", "a tapestry", "embroidery", "a paper cut-out", "a collage", "graffiti",
    "a travel poster", "a propaganda poster", "pop art", "impressionism", "expressionism", "cubism",
    "surrealism", "art nouveau", "art deco", "baroque painting", "renaissance painting",
    "abstract art", "minimalist design", "pointillism", "ukiyo-e print", "chinese ink painting",
    "medieval manuscript illumination", "a black and white photograph", "a polaroid photograph",
    "a daguerreotype", "an old film still", "a blueprint", "a technical drawing", "low poly art",
    "claymation", "a plasticine model", "a felt doll", "a marble sculpture", "a wood carving",
    "origami", "a neon sign", "a sticker", "an emoji", "glitch art", "chalk on a blackboard",
    "a crayon drawing", "a screenshot of a video game", "a fashion photograph",
)  # fmt: skip
_COLOURS = (
    "red", "dark red", "crimson", "pink", "hot pink", "magenta", "purple", "violet", "lavender",
    "indigo", "navy blue", "blue", "light blue", "sky blue", "turquoise", "cyan", "teal", "mint",
    "green", "dark green", "olive", "lime green", "yellow", "pale yellow", "gold", "amber",
    "orange", "peach", "salmon", "coral", "rust", "brown", "chocolate brown", "tan", "beige",
    "cream", "white", "silver", "light grey", "grey", "dark grey", "black", "black and white",
    "sepia", "pastel colours", "neon colours", "earthy colours", "rainbow colours",
    "warm colours", "cold colours", "muted colours", "vivid colours", "red and black",
    "blue and orange", "purple and gold", "teal and orange", "green and brown", "pink and blue",
)  # fmt: skip
_PLACES = (
    "in a forest", "in a jungle", "in a meadow", "in a field of wheat", "in a garden", "in a park",
    "in the mountains", "on a hill", "in a desert", "on a beach", "by the sea", "on the open sea",
    "under water", "by a lake", "by a river", "at a waterfall", "in a swamp", "in the snow",
    "on a glacier", "in a cave", "in a canyon", "on a volcano", "in the clouds", "in the sky",
    "in outer space", "on the moon", "in a village", "in a big city", "in a narrow street",
    "on a highway", "on a bridge", "at a harbour", "in a train station", "at an airport",
    "in a market", "in a supermarket", "in a shop", "in a cafe", "in a restaurant", "in a bar",
    "in a kitchen", "in a bedroom", "in a living room", "in a bathroom", "in an office",
    "in a classroom", "in a library", "in a museum", "in a church", "in a castle", "in ruins",
    "in a factory", "in a workshop", "in a garage", "in a laboratory", "in a hospital",
    "on a stage", "in a stadium", "in a swimming pool", "on a farm", "in a barn", "on a table",
    "in a photo studio", "on a plain white background", "on a plain black background",
    "in front of a brick wall", "at night under street lamps", "in thick fog",
)  # fmt: skip
_SUBJECTS = (
    "a cat", "a dog", "a horse", "a cow", "a sheep", "a fox", "a wolf", "a bear", "a lion",
    "a tiger", "an elephant", "a monkey", "a rabbit", "a mouse", "a deer", "a bird", "an owl",
    "a parrot", "a penguin", "a fish", "a shark", "a whale", "an octopus", "a turtle", "a snake",
    "a frog", "a butterfly", "a bee", "a spider", "a dragon", "a robot", "an astronaut", "a knight",
    "a witch", "a woman", "a man", "a child", "a baby", "an old man", "an old woman", "a crowd",
    "a dancer", "a soldier", "a king", "a house", "a castle", "a church", "a tower", "a bridge",
    "a skyscraper", "a tree", "a flower", "a rose", "a mushroom", "an apple", "a banana",
    "a pizza", "a cake", "a cup of coffee", "a bottle", "a chair", "a table", "a lamp", "a clock",
    "a book", "a guitar", "a car", "a bus", "a bicycle", "a motorbike", "a train", "a ship",
    "an aeroplane", "a rocket", "a shoe", "a dress", "a hat", "an umbrella", "a sword", "a phone",
    "a computer", "a statue", "a mountain", "a waterfall",
)  # fmt: skip

CONCEPTS = MappingProxyType(
    {"style": _STYLES, "colours": _COLOURS, "place": _PLACES, "subject": _SUBJECTS}
)


def words_of(text: str) -> tuple[str, ...]:
    """The different words of a list of one's own, separated by commas or line ends.

    Raises ImageToPromptError for fewer than 3: a concept is where its words differ.
    """
    parts = (part.strip() for line in text.splitlines() for part in line.split(","))
    words = tuple(dict.fromkeys(part for part in parts if part))
    if len(words) < MIN_WORDS:
        raise ImageToPromptError(
            f"at least {MIN_WORDS} different words, separated by commas or line ends",
            f"{len(words)}",
            "Give words of one kind, such as: oak, birch, pine, beech, willow.",
            "concept words",
        )
    return words
