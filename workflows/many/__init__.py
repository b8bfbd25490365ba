"""Runs one workflow over a collection of pictures, on one machine or on many."""
