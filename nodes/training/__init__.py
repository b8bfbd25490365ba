"""What Online Refine and Fit Projection share: inputs, session, previews, unfinished runs."""
