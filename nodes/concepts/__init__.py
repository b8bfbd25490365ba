"""ImageToPromptMix: a concept of one picture in another, alone, or left out."""
