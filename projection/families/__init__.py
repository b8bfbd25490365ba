"""Model families whose prompts are not last-layer states of one encoder: SD 2.x and SDXL (ours).

    x = v/|v| - ((v/|v|) . c) c - centre              v: image_embeds (J,), joint CLIP space
    e = offset + spread scale unit(M x)               one reading: M by least squares from captions

SD-IPC is the reading with centre 0, offset 0, spread 27.5 and M the cut inverse of W_t.
"""
