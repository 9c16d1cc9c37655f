"""Makes the repositories in `tests/fixtures/eras`: see `scripts/make_era_fixtures`."""
