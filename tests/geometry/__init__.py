"""The real geometry of CLIP ViT-L/14: closed forms judged on real pictures and EOS states."""
