"""The gap of Load Projection: its inputs, and the centred form that they give."""
