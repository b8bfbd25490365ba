"""Captions to fit on where the user has none: varied sentences put together from small lists.

They name subjects, looks, places, styles and light in many orders and lengths, since the map is
fitted to how text states vary and not to what any one of them says.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..errors import ImageToPromptError

COUNT = 4000
BROAD_COUNT = 300
_TEMPLATES = (
    "{}", "a photo of {}", "a picture of a {}", "a drawing of {}", "a close up of a {}",
    "there is a {} in the picture", "{}, seen from far away", "one of many {}", "a scene with {}",
    "a {} on its own", "the {} of my friend", "an old image of a {}",
)  # fmt: skip

SUBJECTS = (
    "cat", "dog", "horse", "bird", "owl", "fox", "lion", "elephant", "fish", "butterfly",
    "woman", "man", "girl", "boy", "old man", "child", "family", "crowd", "soldier", "dancer",
    "robot", "dragon", "knight", "astronaut", "witch", "house", "castle", "church", "bridge",
    "tower", "skyscraper", "street", "market", "kitchen", "bedroom", "library", "garden", "forest",
    "mountain", "lake", "river", "beach", "desert", "island", "waterfall", "field of flowers",
    "sunset", "city", "village", "harbour", "car", "train", "bicycle", "boat", "plane", "motorbike",
    "cup of coffee", "bowl of fruit", "cake", "pizza", "bottle", "book", "chair", "lamp", "clock",
    "guitar", "violin", "vase", "painting", "statue", "dress", "hat", "shoe", "sword", "tree",
    "rose", "mushroom", "apple", "bench", "window", "door", "staircase", "factory", "space ship",
)  # fmt: skip
LOOKS = (
    "red", "blue", "green", "yellow", "purple", "orange", "pink", "black", "white", "grey",
    "golden", "silver", "wooden", "stone", "glass", "small", "huge", "tall", "round", "old", "new",
    "broken", "shiny", "dark", "bright", "colourful", "pale", "striped", "furry", "smiling", "sad",
    "sleeping", "running", "beautiful", "ugly", "strange", "elegant", "simple", "ancient", "modern",
)  # fmt: skip
PLACES = (
    "in the snow", "in the rain", "on a table", "by the sea", "in a forest", "under a tree",
    "in the street", "on a hill", "in front of a wall", "in the fog", "at night", "in the morning",
    "in an empty room", "on the moon", "under water", "in a crowd", "on a white background",
    "on a black background", "near a window", "in the mountains", "in a meadow", "in a big city",
    "on a stage", "next to a river", "in a museum", "at a party", "in the sky", "on the grass",
)  # fmt: skip
STYLES = (
    "a photo of", "a painting of", "an oil painting of", "a drawing of", "a pencil sketch of",
    "a watercolour of", "a close up of", "a blurry photo of", "a black and white photo of",
    "a cartoon of", "a render of", "a portrait of", "a wide shot of", "an illustration of",
    "a poster of", "a sculpture of", "a pixel art picture of", "a cropped photo of", "",
)  # fmt: skip
ENDS = (
    "highly detailed", "soft light", "dramatic light", "golden hour", "cinematic", "minimal",
    "film grain", "sharp focus", "shallow depth of field", "vivid colours", "pastel colours",
    "concept art", "studio light", "wide angle", "seen from above", "in the style of an old master",
    "trending", "vintage", "calm mood", "gloomy mood",
)  # fmt: skip


def captions(count: int = COUNT, seed: int = 0) -> list[str]:
    """`count` different captions in English, the same ones for the same seed.

    Raises ImageToPromptError for a count outside 1..100000.
    """
    if not 1 <= count <= 100_000:
        raise ImageToPromptError("1 to 100000 captions", f"{count}", f"Use {COUNT}.")
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[_caption(draw)] = None
    return list(found)


def broad_captions(count: int = BROAD_COUNT, seed: int = 0, words: Sequence[str] = ()) -> list[str]:
    """`count` different captions whose EOS states have a mean free of any one kind of content.

    One half is `captions`; the other is templates filled with 1 to 3 of `words`, such as a
    tokenizer's vocabulary, since `captions` alone names some 200 things. Without words all are
    `captions`. The same ones for the same arguments. Raises ImageToPromptError for a count
    outside 1..100000, or too few words for as many captions.
    """
    plain = captions(count - count // 2 if words else count, seed)
    draw = random.Random(seed)
    found = dict.fromkeys(plain)
    for _ in range(100 * count):
        if len(found) == count:
            return list(found)
        filling = " ".join(draw.choice(words) for _ in range(draw.choice((1, 1, 2, 3))))
        found[draw.choice(_TEMPLATES).format(filling)] = None
    got = f"{len(set(words))} words"
    raise ImageToPromptError(f"words for {count} captions", got, "Give more words.")


def vocabulary_words(tokens: Sequence[str], most: int = 12_000) -> list[str]:
    """The first `most` whole words of at least 3 letters of a BPE vocabulary.

    tokens: in the order of their ids, which is that of merges and so roughly of frequency; in
    CLIP's vocabulary a token that ends a word ends in "</w>".
    """
    ends = (token.removesuffix("</w>") for token in tokens if token.endswith("</w>"))
    words = [word for word in ends if len(word) >= 3 and word.isascii() and word.isalpha()]
    return words[:most]


def phrases(count: int, seed: int = 0) -> list[str]:
    """`count` different names of one thing, such as "a small red chair": what edits say.

    The same ones for the same seed. Raises ImageToPromptError for a count outside 1..1000.
    """
    if not 1 <= count <= 1000:
        raise ImageToPromptError("1 to 1000 phrases", f"{count}", "Use 64.")
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[_thing(draw)] = None
    return list(found)


def _caption(draw: random.Random) -> str:
    phrase = _thing(draw)
    if draw.random() < 0.3:
        phrase += f" {draw.choice(('and', 'with', 'next to', 'behind'))} {_thing(draw)}"
    words = [draw.choice(STYLES), phrase]
    if draw.random() < 0.6:
        words.append(draw.choice(PLACES))
    sentence = " ".join(word for word in words if word)
    extras = draw.sample(ENDS, draw.choice((0, 0, 0, 1, 1, 2, 3)))
    return ", ".join([sentence, *extras])


def _thing(draw: random.Random) -> str:
    looks = draw.sample(LOOKS, draw.choice((0, 1, 1, 2)))
    words = " ".join([*looks, draw.choice(SUBJECTS)])
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
