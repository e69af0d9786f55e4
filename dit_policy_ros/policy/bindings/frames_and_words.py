"""What RDT and H-RDT are fed alike: image tokens of the last frames of every camera, and T5 tokens."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import (
    Encoders,
    FamilyPolicyConfig,
    FrameHistory,
    Images,
    check_width,
    needed,
)
from dit_policy_ros.policy.encoders.language import LanguageFile


class FramesAndWords:
    """Base of both bindings."""

    family: str
    tensors = ("lang_tokens", "lang_mask", "img_tokens")
    lead = 0
    alone = True

    def _join(
        self, encoders: Encoders, config: FamilyPolicyConfig, image_width: int, word_width: int, most_words: int
    ) -> int:
        """Takes the encoders and returns the number of image tokens.

        Raises:
            CheckpointError: an encoder is missing, or of another width than the network's; or an embedding is longer.
        """
        self.config = config
        self.language = needed(encoders.language, "language", self.family)
        self.frames = FrameHistory(needed(encoders.vision, "vision", self.family), len(config.cameras), config.frames)
        tokens, width = self.frames.shape
        check_width(width, image_width, "image feature")
        check_width(self.language.width, word_width, "language embedding")
        if isinstance(self.language, LanguageFile) and self.language.tokens > most_words:
            raise CheckpointError(
                f"A language embedding has {self.language.tokens} tokens, but this checkpoint takes at most "
                f"{most_words}; shorten the sentence and embed it again."
            )
        return tokens

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        words = self.language(instruction)
        img = self.frames(images, epoch).flatten(0, 2)[None]
        return {"lang_tokens": words.tokens, "lang_mask": words.mask, "img_tokens": img}
