"""The user's MODEL: its family, its weight patches and run-time patches, its fingerprint."""
